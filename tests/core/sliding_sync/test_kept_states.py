"""Connections of sliding sync go on after a restart, with nothing lost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody import errors
from homebody.core.accounts import sync_connections
from homebody.core.sliding_sync import connections, kept_states
from homebody.core.sliding_sync.connections import Connections, Place
from homebody.core.sliding_sync.order import OwnMembership, RoomOrder
from homebody.core.sliding_sync.requests import RoomConfig, Selection
from homebody.core.sliding_sync.states import ConnectionState, SentRoom
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.sliding import Json, ask, bodies, request, window

MakeRoom = Callable[..., str]


def write(app: Application, *, is_last: bool = False) -> None:
    """Write what is due."""
    homeserver = app.homeserver
    kept_states.write(homeserver.database, homeserver.sliding_connections, is_last=is_last)


def stop(app: Application) -> None:
    """Do what is done when the server stops."""
    write(app, is_last=True)


def seen(person: Person, pos: str | None = None) -> Json:
    """Return a response that the client has received, as the next request says."""
    answer = ask(person, pos)
    ask(person, answer["pos"])
    return answer


def is_unknown(person: Person, pos: str) -> bool:
    """Return whether the server doesn't know a `pos`."""
    answer = request(person, pos)
    return (answer.status_code, answer.get_json().get("errcode")) == (400, "M_UNKNOWN_POS")


def test_after_a_restart_a_client_gets_only_what_is_new(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, _other = room(alice, bob), room(alice, bob)
    pos = ask(bob, seen(bob)["pos"])["pos"]
    stop(app)
    bob.client = alice.client = make_app().test_client()

    nothing = ask(bob, pos)
    alice.send(room_id, "good morning")
    found = ask(bob, nothing["pos"])

    assert (nothing["rooms"], nothing["lists"]["all"]["count"]) == ({}, 2)
    assert bodies(found, room_id) == ["good morning"]
    assert "initial" not in found["rooms"][room_id]


def test_after_a_kill_only_rooms_with_later_events_are_sent_in_full(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    busy, quiet, later = room(alice, bob), room(alice, bob), room(alice, bob)
    pos = seen(bob)["pos"]
    write(app)
    alice.send(busy, "before")
    pos = ask(bob, pos)["pos"]
    bob.client = alice.client = make_app().test_client()
    alice.send(later, "after")

    found = ask(bob, pos)

    assert set(found["rooms"]) == {busy, later}
    assert found["rooms"][busy]["initial"] is True
    assert bodies(found, busy)[-1] == "before"
    assert found["rooms"][busy]["num_live"] == 0
    assert "initial" not in found["rooms"][later]
    assert bodies(found, later) == ["after"]
    assert quiet not in found["rooms"]
    assert ask(bob, found["pos"])["rooms"] == {}


def test_a_room_that_was_left_before_a_kill_is_left_after_it(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = seen(bob)["pos"]
    write(app)
    bob.post(f"rooms/{quote(room_id)}/leave")
    told = ask(bob, pos)
    bob.client = make_app().test_client()

    found = ask(bob, told["pos"])

    assert found["rooms"][room_id]["membership"] == "leave"
    assert found["rooms"][room_id]["limited"] is True
    assert ask(bob, found["pos"])["rooms"] == {}


def test_a_window_that_widens_after_a_restart_has_the_rooms_that_were_not_sent(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    old, new = room(alice, bob), room(alice, bob)
    first = ask(bob, lists=window(0))
    pos = ask(bob, first["pos"], lists=window(0))["pos"]
    stop(app)
    bob.client = make_app().test_client()

    found = ask(bob, pos, lists=window(9))

    assert list(first["rooms"]) == [new]
    assert list(found["rooms"]) == [old]
    assert found["rooms"][old]["initial"] is True


def test_messages_to_a_device_come_once_over_a_restart(
    app: Application, make_app: MakeApp, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    wanted = {"to_device": {"enabled": True}, "e2ee": {"enabled": True}}

    def look(pos: str | None, since: str | None) -> tuple[str, str, list[str]]:
        extensions = {**wanted, "to_device": {"enabled": True, "since": since}}
        answer = ask(bob, pos, lists={}, conn_id="encryption", extensions=extensions)
        section = answer["extensions"]["to_device"]
        types = [event["type"] for event in section["events"]]
        return answer["pos"], section["next_batch"], types

    def tell(event_type: str) -> None:
        content: Json = {"messages": {bob.user_id: {bob.device_id: {}}}}
        alice.put(f"sendToDevice/{event_type}/{event_type}", json=content)

    pos, since, _ = look(None, None)
    tell("m.first")
    pos, since, got = look(pos, since)
    again = look(pos, since)
    tell("m.second")
    stop(app)
    bob.client = alice.client = make_app().test_client()
    tell("m.third")

    later = look(again[0], again[1])
    repeated = look(again[0], again[1])
    done = look(later[0], later[1])

    assert (got, again[2]) == (["m.first"], [])
    assert later[2] == repeated[2] == ["m.second", "m.third"]
    assert done[2] == []


def test_what_was_never_written_is_unknown_and_the_client_starts_anew(
    app: Application, make_app: MakeApp, login: Login
) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    pos = ask(alice)["pos"]
    stop(app)  # nobody knows whether the client has received it
    alice.client = make_app().test_client()

    assert is_unknown(alice, pos)
    assert ask(alice)["rooms"][room_id]["initial"] is True


def test_a_connection_that_began_anew_does_not_go_on_with_what_is_older(
    app: Application, make_app: MakeApp, login: Login
) -> None:
    alice = login("alice")
    alice.create_room()
    old = seen(alice)["pos"]
    stop(app)
    new = ask(alice, lists=window(0, limit=1))["pos"]
    alice.client = make_app().test_client()

    assert is_unknown(alice, new)
    assert not is_unknown(alice, old)


def test_a_pos_from_before_what_is_written_is_unknown(
    app: Application, make_app: MakeApp, login: Login
) -> None:
    alice = login("alice")
    first = ask(alice)["pos"]
    pos = ask(alice, ask(alice, first)["pos"])["pos"]
    stop(app)
    alice.client = make_app().test_client()

    assert is_unknown(alice, first)
    assert not is_unknown(alice, pos)


def test_after_a_restart_a_pos_is_good_for_its_own_device_and_connection_only(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, laptop, mallory = login("alice"), login("alice"), login("mallory")
    room(alice)
    poses = [seen(person)["pos"] for person in (alice, laptop, mallory)]
    stop(app)
    client = make_app().test_client()
    for person in (alice, laptop, mallory):
        person.client = client

    assert is_unknown(mallory, poses[0])
    assert is_unknown(laptop, poses[0])
    assert request(alice, poses[0], conn_id="other").get_json()["errcode"] == "M_UNKNOWN_POS"
    assert not is_unknown(alice, poses[0])


@pytest.mark.parametrize("field", ["position", "number", "end"])
def test_a_pos_that_a_client_made_up_is_unknown(
    app: Application, make_app: MakeApp, login: Login, field: str
) -> None:
    alice = login("alice")
    pos = seen(alice)["pos"]
    stop(app)
    alice.client = make_app().test_client()
    place = connections.parse(pos)
    assert place is not None
    end = pos.partition(".")[2]
    made_up = {
        "position": f"s{place.position + 1}~{place.number}.{end}",
        "number": f"s{place.position}~{place.number + 1}.{end}",
        "end": f"s{place.position}~{place.number}.{end[::-1]}",
    }

    assert is_unknown(alice, made_up[field])
    assert not is_unknown(alice, pos)


def test_connections_end_with_their_device(app: Application, login: Login) -> None:
    alice, laptop = login("alice"), login("alice")
    for person in (alice, laptop):
        seen(person)
    stop(app)

    alice.post("logout")

    with app.homeserver.database.read() as tx:
        assert sync_connections.find(tx, (alice.user_id, alice.device_id, "")) is None
        assert sync_connections.find(tx, (laptop.user_id, laptop.device_id, "")) is not None


def test_nothing_is_written_of_a_device_that_has_logged_out(app: Application, login: Login) -> None:
    alice = login("alice")
    seen(alice)
    alice.post("logout")

    stop(app)

    with app.homeserver.database.read() as tx:
        assert sync_connections.find(tx, (alice.user_id, alice.device_id, "")) is None


def test_a_restored_backup_has_no_connections(app: Application, login: Login) -> None:
    alice = login("alice")
    seen(alice)
    stop(app)

    with app.homeserver.database.write() as tx:
        sync_connections.remove_all(tx)

    with app.homeserver.database.read() as tx:
        assert sync_connections.find(tx, (alice.user_id, alice.device_id, "")) is None


def test_connections_that_were_not_used_for_a_month_are_deleted(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    seen(alice)
    stop(app)

    sync_connections.sweep(app.homeserver.database)
    with app.homeserver.database.read() as tx:
        before = sync_connections.find(tx, (alice.user_id, alice.device_id, ""))
    now_ns = time.time_ns() + (sync_connections.KEPT_MS + 60_000) * 1_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    sync_connections.sweep(app.homeserver.database)

    with app.homeserver.database.read() as tx:
        after = sync_connections.find(tx, (alice.user_id, alice.device_id, ""))
    assert (before is None, after) == (False, None)


def test_a_device_has_few_connections_in_the_database(app: Application, login: Login) -> None:
    alice = login("alice")
    for number in range(sync_connections.MAX_OF_DEVICE + 2):
        answer = ask(alice, conn_id=str(number))
        ask(alice, answer["pos"], conn_id=str(number))
        write(app)
        time.sleep(0.002)

    with app.homeserver.database.read() as tx:
        kept = [
            number
            for number in range(sync_connections.MAX_OF_DEVICE + 2)
            if sync_connections.find(tx, (alice.user_id, alice.device_id, str(number)))
        ]
    assert kept == [*range(2, sync_connections.MAX_OF_DEVICE + 2)]


def test_a_connection_that_was_dropped_from_memory_goes_on(
    app: Application, login: Login, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = seen(bob)["pos"]
    write(app)
    monkeypatch.setattr(Connections, "IDLE_SECONDS", 0.0)  # each request drops all connections

    alice.send(room_id, "one")
    first = ask(bob, pos)
    alice.send(room_id, "two")
    second = ask(bob, first["pos"])

    assert bodies(first, room_id) == ["one"]
    assert "initial" not in first["rooms"][room_id]
    assert second["rooms"][room_id]["initial"] is True
    assert bodies(second, room_id) == ["one", "two"]


def test_a_state_is_written_again_when_ten_rooms_were_sent() -> None:
    kept, key = Connections(), ("@alice:localhost", "PHONE", "")

    def step(pos: str | None, *rooms: str) -> str:
        state = kept.get(key, pos) if pos else kept.begin(key)
        new = dataclasses.replace(state, touched=frozenset(rooms))
        return kept.add(key, new, after=pos)

    pos = step(None, "!a", "!b")
    unread = kept.due()
    pos = step(pos)
    first = kept.due()
    for number in range(Connections.MAX_TOUCHED - 1):
        pos = step(pos, f"!{number}")
    pos = step(pos, "!0")
    few = kept.due()
    pos = step(pos, "!last")
    pos = step(pos)
    many = kept.due()

    assert (unread, len(first), few, len(many)) == ([], 1, [], 1)
    assert kept.due(is_last=True) == []
    step(step(pos, "!one"))
    assert len(kept.due(is_last=True)) == 1


def test_a_state_is_the_same_after_it_was_encoded() -> None:
    config = RoomConfig(
        20,
        frozenset({("m.room.create", "")}),
        frozenset({Selection(frozenset({("a", "b")}), frozenset({("c", "d")}))}),
    )
    own = {"!b:x": OwnMembership("join", 7), "!a:x": OwnMembership("invite", 3)}
    state = ConnectionState(
        position=9,
        ephemeral=8,
        request_digest=b"digest",
        order=RoomOrder(own, ["!b:x", "!a:x"], {"!b:x"}),
        rooms={"!b:x": SentRoom(config, "join", 5), "!gone:x": SentRoom(config, "leave", 2, 1)},
        direct=frozenset({"!elsewhere:x"}),
        lists={"all": {"count": 2}},
        extension_rooms={"typing": frozenset({"!b:x"})},
    )

    found = kept_states.decode(kept_states.encode(state))

    assert found == state


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x91\x02", b"\xc1"])
def test_a_state_of_another_version_is_no_state(content: bytes) -> None:
    assert kept_states.decode(content) is None


def test_a_pos_says_its_place() -> None:
    pos = connections.make_pos(b"secret", Place(12, 3))

    quiet = Place(12, 3, is_quiet=True)
    assert connections.parse(pos) == Place(12, 3)
    assert connections.parse(connections.make_pos(b"secret", quiet)) == quiet
    assert connections.make_pos(b"other", Place(12, 3)) != pos
    assert [connections.parse(it) for it in ("", "s1", f"{pos}x", "s" + "9" * 19 + pos[3:])] == (
        [None] * 4
    )


def test_what_could_not_be_written_is_written_the_next_time(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_states, "_WRITTEN_AT_ONCE", 1)
    people = [login("alice"), login("bob"), login("carol")]
    for person in people:
        seen(person)

    def written() -> list[bool]:
        with app.homeserver.database.read() as tx:
            keys = [(it.user_id, it.device_id, "") for it in people]
            return [sync_connections.find(tx, key) is not None for key in keys]

    def refuse(*_: object) -> None:
        raise errors.unknown("The disk is full", 503)

    with monkeypatch.context() as patch:
        patch.setattr(sync_connections, "put", refuse)
        write(app)
    before = written()
    write(app)

    assert (before, written()) == ([False] * 3, [True] * 3)
