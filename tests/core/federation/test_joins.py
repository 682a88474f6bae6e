from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import joining, outbox
from homebody.core.events import state
from homebody.core.federation import departures, joins
from homebody.core.federation.joins import JoinRequest
from homebody.core.timeline import gaps, outside_rooms
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_answers, remote_room, sliding
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import membership, refusal, state_of, unchanged
from tests.helpers.scripted_server import Request, Response
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
ALICE = "@alice:localhost"


@pytest.fixture
def b(remote: Remotes) -> Remote:
    """The server of the room."""
    return remote("b.test")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def join(person: Person, room_id: str, *via: str) -> Any:
    path = f"join/{quote(room_id)}"
    return person.post(path + "?" + "&".join(f"via={it}" for it in via))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_user_joins_a_remote_room_of_each_version_and_both_sides_talk(
    b: Remote, alice: Person, version: str
) -> None:
    room = b.room(version)
    before = room.message("before")

    answer = join(alice, room.id, "b.test")

    assert answer.get_json() == {"room_id": room.id}
    state = state_of(alice, room.id)
    assert state["m.room.member", ALICE]["membership"] == "join"
    assert {key: event.content for key, event in room.state.items()} == state
    assert list(b.send(room.message("hello alice")).values()) == [{}]
    shown = alice.sync()["rooms"]["join"][room.id]
    assert [it["type"] for it in shown["timeline"]["events"]] == ["m.room.member", "m.room.message"]
    keys = {(it["type"], it["state_key"]) for it in shown["state"]["events"]}
    assert keys >= room.state.keys() - {("m.room.member", ALICE)}
    assert before.event_id not in {it["event_id"] for it in shown["timeline"]["events"]}


def test_sliding_sync_shows_the_state_of_a_room_as_it_was_before_the_join(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    room.set_state("m.room.name", {"name": "The name"})
    join(alice, room.id, "b.test")

    shown = sliding.ask(alice, lists=sliding.window(9, required_state=[["*", "*"]]))

    entry = shown["rooms"][room.id]
    assert entry["name"] == "The name"
    assert sliding.state(shown, room.id) == {key: it.content for key, it in room.state.items()}


def test_what_alice_says_reaches_the_room(b: Remote, app: Application, alice: Person) -> None:
    app.homeserver.sender.start()
    room = b.room()
    join(alice, room.id, "b.test")

    event_id = alice.send(room.id, "hello")

    assert b.wait_for_event(event_id).content["body"] == "hello"
    assert [it["type"] for it in b.pdus] == ["m.room.message"]  # the join came by send_join
    app.homeserver.sender.stop()


def test_what_was_before_the_join_is_a_gap(b: Remote, app: Application, alice: Person) -> None:
    room = b.room()
    (before,) = room.heads

    join(alice, room.id, "b.test")

    with app.homeserver.database.read() as tx:
        gap = gaps.newest(tx, room.id, 0, tx.position)
    assert gap is not None
    assert gap.event_ids == [before]


def test_an_alias_of_another_server_is_resolved_by_it(b: Remote, alice: Person) -> None:
    room = b.room()
    b.aliases["#room:b.test"] = room.id

    answer = join(alice, "#room:b.test")

    assert answer.get_json() == {"room_id": room.id}
    assert room.membership(ALICE) == "join"


def test_the_room_id_names_a_server_as_well(b: Remote, alice: Person) -> None:
    room = b.room("10")

    assert join(alice, room.id).status_code == 200


def test_the_join_has_the_name_of_the_user_and_what_the_client_adds(
    b: Remote, alice: Person
) -> None:
    alice.put(f"profile/{ALICE}/displayname", json={"displayname": "Alice"})
    room = b.room()

    path = f"rooms/{quote(room.id)}/join?server_name=b.test"
    assert alice.post(path, json={"reason": "curious"}).status_code == 200

    assert room.content("m.room.member", ALICE) == {
        "membership": "join",
        "displayname": "Alice",
        "reason": "curious",
    }


def test_servers_are_tried_in_the_order_of_the_request(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    c, d = remote("c.test"), remote("d.test")
    room = b.room()
    c.fail("/make_join/", 502)

    answer = join(alice, room.id, "c.test", "d.test", "b.test")

    assert answer.status_code == 200
    assert len(c.received("/make_join/")) == len(d.received("/make_join/")) == 1
    assert not d.received("/send_join/")


def test_a_room_that_no_server_has_is_not_found(b: Remote, alice: Person) -> None:
    assert refusal(join(alice, "!nothing:b.test", "b.test")) == (404, "M_NOT_FOUND")
    assert refusal(join(alice, "!nothing:localhost")) == (404, "M_NOT_FOUND")
    assert refusal(join(alice, "!" + "A" * 43)) == (404, "M_NOT_FOUND")


def test_the_refusal_of_a_room_is_passed_on_and_nothing_stays(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room(join_rule="invite")

    with unchanged(app):
        answer = join(alice, room.id, "b.test")

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_a_room_version_that_this_server_does_not_support_is_named(
    b: Remote, alice: Person
) -> None:
    b.fail("/make_join/", 400, errcode="M_INCOMPATIBLE_ROOM_VERSION", room_version="org.example")

    answer = join(alice, "!room:b.test", "b.test")

    assert refusal(answer) == (400, "M_INCOMPATIBLE_ROOM_VERSION")
    assert answer.get_json()["room_version"] == "org.example"


TEMPLATES: dict[str, Json] = {
    "another type": {"type": "m.room.message"},
    "another room": {"room_id": "!other:b.test"},
    "another user": {"sender": "@bob:localhost"},
    "another target": {"state_key": "@bob:localhost"},
    "another membership": {"content": {"membership": "leave"}},
    "no content": {"content": None},
    "too many prev_events": {"prev_events": ["$" + "A" * 43] * 21},
    "strange auth_events": {"auth_events": {"a": 1}},
    "no depth": {"depth": None},
}


@pytest.mark.parametrize("changes", TEMPLATES.values(), ids=TEMPLATES)
def test_a_wrong_template_is_not_signed_and_another_server_is_asked(
    b: Remote, remote: Remotes, alice: Person, changes: Json
) -> None:
    room, c = b.room(), remote("c.test")
    pdu = room.unsigned_event("m.room.member", {"membership": "join"}, ALICE, sender=ALICE)
    wrong = {"event": {**pdu, **changes}, "room_version": "11"}
    c.answer("/make_join/", Response(200, wrong))

    answer = join(alice, room.id, "c.test", "b.test")

    assert answer.status_code == 200
    assert not c.received("/send_join/")


@pytest.mark.parametrize("version", ["org.example", 11, None, []])
def test_a_template_of_an_unknown_version_is_refused(
    b: Remote, alice: Person, version: Any
) -> None:
    room = b.room()
    pdu = room.unsigned_event("m.room.member", {"membership": "join"}, ALICE, sender=ALICE)
    b.answer("/make_join/", Response(200, {"event": pdu, "room_version": version}))

    assert refusal(join(alice, room.id, "b.test")) == (502, "M_UNKNOWN")
    assert not b.received("/send_join/")


def lie(b: Remote, change: Any) -> None:
    """Have the remote change its next response to send_join."""

    def respond(request: Any) -> Response:
        answer = remote_answers.send_join(b, request)
        change(answer)
        return Response(200, answer)

    b.answer("/send_join/", respond, times=1)


@pytest.mark.parametrize("errcode", ["M_UNRECOGNIZED", None])
@pytest.mark.parametrize("version", ["1", "6", "11"])
def test_a_server_that_does_not_know_the_newer_operation_is_asked_by_the_older_one(
    b: Remote, alice: Person, version: str, errcode: str | None
) -> None:
    room = b.room(version)
    error = {} if errcode is None else {"errcode": errcode, "error": "Unknown request"}
    b.answer("/v2/send_join/", Response(404, error))

    assert join(alice, room.id, "b.test").status_code == 200

    assert {key: it.content for key, it in room.state.items()} == state_of(alice, room.id)
    assert len(b.received("/v1/send_join/")) == 1
    assert list(b.send(room.message("hello alice")).values()) == [{}]


def test_the_older_operation_is_not_used_for_a_room_that_is_not_there(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    b.fail("/v2/send_join/", 404, errcode="M_NOT_FOUND")

    assert refusal(join(alice, room.id, "b.test")) == (404, "M_NOT_FOUND")
    assert not b.received("/v1/send_join/")


@pytest.mark.parametrize("body", [[], [200], ["ok", {}], [200, {"state": 1}], [200, []], 7])
def test_a_malformed_response_to_the_older_operation_is_refused(
    b: Remote, app: Application, alice: Person, body: Any
) -> None:
    room = b.room()
    b.fail("/v2/send_join/", 404, errcode="M_UNRECOGNIZED")
    b.answer("/v1/send_join/", Response(200, body))

    assert refusal(join(alice, room.id, "b.test")) == (502, "M_UNKNOWN")
    assert room.id not in alice.sync()["rooms"].get("join", {})
    with app.homeserver.database.read() as tx:
        assert not joining.every(tx)


def without(event_type: str) -> Any:
    def change(answer: Json) -> None:
        for key in ("state", "auth_chain"):
            answer[key] = [it for it in answer[key] if it["type"] != event_type]

    return change


def without_any(answer: Json) -> None:
    answer["state"] = answer["auth_chain"] = []


def no_lists(answer: Json) -> None:
    answer["state"] = {"a": 1}


LIES = {
    "without create event": without("m.room.create"),
    "without power levels": without("m.room.power_levels"),
    "without anything": without_any,
    "without lists": no_lists,
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES)
def test_a_response_that_makes_no_room_is_refused_and_the_room_is_left(
    b: Remote, app: Application, alice: Person, change: Any
) -> None:
    room = b.room()
    lie(b, change)

    answer = join(alice, room.id, "b.test")

    assert refusal(answer) == (502, "M_UNKNOWN")
    assert room.id not in alice.sync()["rooms"].get("join", {})
    assert alice.get(f"rooms/{quote(room.id)}/state").status_code == 403
    leave_now(app)
    assert room.membership(ALICE) == "leave"
    with app.homeserver.database.read() as tx:
        assert not joining.every(tx)
    b.complaints.clear()


def leave_now(app: Application) -> None:
    """Send the leaves that wait in the outbox."""
    db, kind = app.homeserver.database, outside_rooms.DEPARTURE
    with db.read() as tx:
        rooms = [room for it, room in outbox.destinations(tx) if it == kind]
        rows = [(room, row) for room in rooms for row in outbox.first(tx, kind, room, 9)]
    assert rows
    for room_id, row in rows:
        departures.send(db, app.homeserver.federation, room_id, row.payload)


def test_after_a_lie_the_same_room_can_be_joined_by_an_honest_server(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    lie(b, without_any)
    join(alice, room.id, "b.test")

    assert join(alice, room.id, "b.test").status_code == 200
    state = state_of(alice, room.id)
    assert state.keys() == room.state.keys()


def test_a_server_that_names_the_wrong_room_version_spoils_nothing(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room("11")
    room.member("dave", "join")

    def respond(request: Any) -> Response:
        return Response(200, {**remote_answers.make_membership(b, request), "room_version": "10"})

    b.answer("/make_join/", respond, times=1)

    assert refusal(join(alice, room.id, "b.test")) == (502, "M_UNKNOWN")
    with app.homeserver.database.read() as tx:
        assert not state.find_many(tx, list(room.events))
    b.complaints.clear()
    assert join(alice, room.id, "b.test").status_code == 200
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    assert b.send(room.message("hello", sender="dave")).popitem()[1] == {}


def test_events_of_the_state_without_a_valid_signature_are_left_out(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    topic = room.set_state("m.room.topic", {"topic": "A topic"})
    name = room.set_state("m.room.name", {"name": "A name"})

    def change(answer: Json) -> None:
        wrong = remote_room.with_wrong_signature(topic, "b.test")
        answer["state"] = [wrong if it == topic.pdu else it for it in answer["state"]]

    lie(b, change)

    assert join(alice, room.id, "b.test").status_code == 200
    state = state_of(alice, room.id)
    assert state["m.room.name", ""] == name.content
    assert ("m.room.topic", "") not in state


def test_a_refused_join_is_tried_by_the_next_server(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    room, c = b.room(), remote("c.test")
    c.rooms[room.id] = room
    c.fail("/send_join/", 403, errcode="M_FORBIDDEN")

    assert join(alice, room.id, "c.test", "b.test").status_code == 200
    assert len(b.received("/make_join/")) == 1


def test_a_refusal_of_the_servers_that_the_user_names_is_final(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    room, c = b.room("10"), remote("c.test")
    c.rooms[room.id] = room
    c.fail("/make_join/", 400, errcode="M_UNABLE_TO_GRANT_JOIN")

    answer = join(alice, room.id, "c.test")

    assert refusal(answer) == (400, "M_UNABLE_TO_GRANT_JOIN")
    assert not b.received("/make_join/")


def test_the_server_in_the_room_id_is_tried_where_those_that_the_user_names_do_not_help(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    room = b.room("10")
    remote("c.test").fail("/make_join/", 502)
    remote("d.test")

    assert join(alice, room.id, "c.test", "d.test").status_code == 200
    assert len(b.received("/make_join/")) == 1


def test_a_join_that_may_have_been_taken_is_sent_to_the_other_servers(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    room, c = b.room(), remote("c.test")
    c.rooms[room.id] = room
    c.fail("/send_join/", 502)

    assert join(alice, room.id, "c.test", "b.test").status_code == 200
    assert not b.received("/make_join/")  # it is the same event
    assert len(b.received("/send_join/")) == 1


def test_a_join_without_a_response_is_sent_again_by_the_next_process(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    b.cut("/send_join/", times=1)

    assert refusal(join(alice, room.id, "b.test"))[0] in {502, 504}
    app.homeserver.joins.start()

    wait_for(lambda: room.id in alice.sync()["rooms"].get("join", {}), "the room")
    first, second = b.received("/send_join/")
    assert (first.uri, first.body) == (second.uri, second.body)


def test_a_join_is_not_sent_again_when_the_user_has_joined_by_another(
    b: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "RETRY_AFTER_S", (0.3,))
    room = b.room()
    b.cut("/send_join/", times=1)

    assert refusal(join(alice, room.id, "b.test"))[0] in {502, 504}
    assert join(alice, room.id, "b.test").status_code == 200

    time.sleep(0.6)
    assert len(b.received("/send_join/")) == 2
    assert room.membership(ALICE) == "join"


def test_a_join_that_takes_long_goes_on_after_its_request(
    b: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joins, "ANSWERED_WITHIN_S", 0.2)
    room = b.room()
    b.delay("/send_join/", 1.0)

    answers = [join(alice, room.id, "b.test") for _ in range(2)]

    assert [refusal(it) for it in answers] == [(504, "M_UNKNOWN")] * 2
    wait_for(lambda: room.id in alice.sync()["rooms"].get("join", {}), "the room")
    assert len(b.received("/make_join/")) == 1


def test_another_user_who_joins_meanwhile_waits_for_the_room(
    b: Remote, app: Application, alice: Person, login: Login
) -> None:
    room, bob = b.room(), login("bob")
    b.delay("/send_join/", 0.5, times=1)
    request = JoinRequest(room.id, ALICE, {}, ["b.test"])

    with ThreadPoolExecutor() as pool:
        first = pool.submit(app.homeserver.joins.join, request)
        b.wait_until(lambda: b.received("/send_join/"))
        app.homeserver.joins.join(JoinRequest(room.id, bob.user_id, {}, ["b.test"]))
        first.result()

    assert len(b.received("/make_join/")) == 1
    assert membership(bob, room.id, bob.user_id)["membership"] == "join"


def test_events_that_come_during_a_join_are_shown_after_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    late = []

    def respond(request: Any) -> Response:
        answer = remote_answers.send_join(b, request)
        late.append(room.message("meanwhile"))
        assert b.send(late[0]) == {late[0].event_id: {}}
        return Response(200, answer)

    b.answer("/send_join/", respond)

    assert join(alice, room.id, "b.test").status_code == 200

    def bodies() -> list[str]:
        events = alice.sync()["rooms"]["join"][room.id]["timeline"]["events"]
        return [it["content"].get("body") for it in events]

    wait_for(lambda: "meanwhile" in bodies(), "the message")


def test_a_room_is_joined_again_after_all_users_of_this_server_have_left(
    b: Remote, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    room = b.room()
    room.set_state("m.room.topic", {"topic": "old"})
    room.set_state("m.room.name", {"name": "The name"})
    join(alice, room.id, "b.test")
    since = alice.sync()["next_batch"]
    alice.post(f"rooms/{quote(room.id)}/leave")
    b.wait_until(lambda: room.membership(ALICE) == "leave")
    room.set_state("m.room.topic", {"topic": "new"})
    room.member("dave", "join")
    app.homeserver.sender.stop()

    assert join(alice, room.id, "b.test").status_code == 200

    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    shown = alice.sync(since=since)["rooms"]["join"][room.id]
    assert shown["timeline"]["events"][-1]["content"]["membership"] == "join"
    new = {it["type"]: it["content"] for it in shown["state"]["events"]}
    assert new["m.room.topic"] == {"topic": "new"}
    assert b.send(room.message("again")).popitem()[1] == {}


@pytest.mark.parametrize("rule", ["restricted", "knock_restricted"])
def test_members_of_an_allowed_room_join_a_restricted_one_that_another_server_authorises(
    b: Remote, alice: Person, rule: str
) -> None:
    allowed, restricted = b.room(), b.room(join_rule=rule)
    join(alice, allowed.id, "b.test")

    assert join(alice, restricted.id, "b.test").status_code == 200

    own = restricted.state["m.room.member", ALICE]
    assert own.content["join_authorised_via_users_server"] == restricted.creator
    shown = membership(alice, restricted.id, ALICE)
    assert shown["join_authorised_via_users_server"] == restricted.creator


def test_an_authorised_join_needs_the_signature_of_that_server(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room(join_rule="restricted")
    lie(b, lambda answer: answer.pop("event"))

    assert refusal(join(alice, room.id, "b.test")) == (502, "M_UNKNOWN")
    leave_now(app)


@pytest.fixture
def authorised_elsewhere(
    b: Remote, app: Application, alice: Person, login: Login, room: Callable[..., str]
) -> Iterator[tuple[Person, str]]:
    """A restricted room of Alice's that Bob may join, as Carol of b.test authorises."""
    app.homeserver.sender.start()
    bob = login("bob")
    allowed, restricted = room(alice, bob), room(alice, room_version="11")
    there = b.join(restricted, "carol")
    path = f"rooms/{quote(restricted)}/state/m.room.power_levels"
    users = {ALICE: 50, "@carol:b.test": 100}
    levels = {**alice.get(path).get_json(), "users": users, "invite": 100}
    rules = {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": allowed}],
    }
    alice.put(f"rooms/{quote(restricted)}/state/m.room.join_rules", json=rules)
    assert alice.put(path, json=levels).status_code == 200
    b.wait_until(lambda: there.content("m.room.power_levels") == levels)
    there.creator = "@carol:b.test"
    yield bob, restricted
    app.homeserver.sender.stop()


def test_a_room_here_whose_users_may_not_invite_is_joined_by_another_server(
    alice: Person, authorised_elsewhere: tuple[Person, str]
) -> None:
    bob, restricted = authorised_elsewhere

    assert join(bob, restricted).status_code == 200

    content = membership(alice, restricted, bob.user_id)
    assert content["join_authorised_via_users_server"] == "@carol:b.test"


def test_a_user_who_is_banned_here_while_another_server_authorises_the_join_has_not_joined(
    b: Remote, alice: Person, authorised_elsewhere: tuple[Person, str]
) -> None:
    bob, restricted = authorised_elsewhere

    def ban_first(request: Request) -> Response:
        alice.post(f"rooms/{quote(restricted)}/ban", json={"user_id": bob.user_id})
        return remote_answers.respond(b, request)

    b.answer("/send_join/", ban_first)

    assert refusal(join(bob, restricted)) == (403, "M_FORBIDDEN")

    assert membership(alice, restricted, bob.user_id)["membership"] == "ban"


def test_who_follows_a_room_of_another_server_to_its_replacement_finds_their_settings_there(
    b: Remote, alice: Person
) -> None:
    old = b.room()
    join(alice, old.id, "b.test")
    alice.put(f"user/{ALICE}/rooms/{quote(old.id)}/tags/m.favourite", json={"order": 0.5})
    new = b.room(create={"predecessor": {"room_id": old.id}})
    tombstone = {"body": "moved", "replacement_room": new.id}
    b.send(old.set_state("m.room.tombstone", tombstone))

    assert join(alice, new.id, "b.test").status_code == 200

    tags = alice.get(f"user/{ALICE}/rooms/{quote(new.id)}/tags").get_json()["tags"]
    assert tags == {"m.favourite": {"order": 0.5}}
