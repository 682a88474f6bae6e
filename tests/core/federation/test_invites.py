from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import outbox
from homebody.core.push import gateway_notices, pushers
from homebody.core.sessions import deactivation
from homebody.core.timeline import outside_rooms
from homebody.spec import signing
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers import remote_answers, remote_checks, remote_room, sliding
from tests.helpers.peers import Answer
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import state_of, unchanged
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
ALICE = "@alice:localhost"


@pytest.fixture
def b(remote: Remotes, app: Application) -> Remote:
    """The server of the room, whose keys are known."""
    found = remote("b.test")
    assert app.homeserver.server.config.federation
    assert found.get("v1", "make_leave", "!nothing:localhost", "@carol:b.test").status == 404
    return found


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def named_room(b: Remote, version: str = "11", **options: Any) -> RemoteRoom:
    room = b.room(version, join_rule="invite", **options)
    room.set_state("m.room.name", {"name": "The room"})
    return room


def invited(person: Person, room_id: str, **query: Any) -> dict[tuple[str, str], Json] | None:
    """Return {(type, state_key): content} of an invite in /sync, None if there is none."""
    rooms = person.sync(**query)["rooms"].get("invite", {})
    if room_id not in rooms:
        return None
    events = rooms[room_id]["invite_state"]["events"]
    return {(it["type"], it["state_key"]): it["content"] for it in events}


def send(b: Remote, event: Event, version: str = "11", **changes: Any) -> Answer:
    """Send an invite without the help of a room."""
    body = {"event": event.pdu, "room_version": version, "invite_room_state": [], **changes}
    return b.put("v2", "invite", event.room_id, event.event_id, json=body)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_invite_is_shown_with_what_the_room_is_and_can_be_accepted(
    b: Remote, alice: Person, version: str
) -> None:
    room = named_room(b, version)
    since = alice.sync()["next_batch"]

    answer = b.invite(room, ALICE)

    assert answer.status == 200
    shown = invited(alice, room.id, since=since)
    assert shown is not None
    assert shown["m.room.name", ""] == {"name": "The room"}
    assert shown["m.room.member", ALICE] == {"membership": "invite"}
    assert alice.post(f"rooms/{quote(room.id)}/join").status_code == 200
    assert invited(alice, room.id) is None
    assert state_of(alice, room.id) == {key: it.content for key, it in room.state.items()}
    assert room.membership(ALICE) == "join"


def test_the_invite_is_signed_by_this_server_too(b: Remote, alice: Person) -> None:
    room = named_room(b)

    signed = b.invite(room, alice.user_id).json["event"]

    assert signed["signatures"].keys() == {"b.test", "localhost"}
    peer = b.peer()
    for key_id, key in peer.verify_keys.items():
        signing.verify_event(signed, room.version, "localhost", key_id, key)
    remote_checks.check_event(peer, signed, room.version)


def test_an_invite_of_the_older_version_is_shown(b: Remote, alice: Person) -> None:
    room = named_room(b, "1")
    event = room.member(ALICE, "invite", sender=room.creator, add=False)
    unsigned = {"invite_room_state": remote_answers.stripped(room)}

    answer = b.put(
        "v1", "invite", room.id, event.event_id, json={**event.pdu, "unsigned": unsigned}
    )

    assert answer.status == 200
    assert answer.json[0] == 200
    shown = invited(alice, room.id)
    assert shown is not None
    assert shown["m.room.name", ""] == {"name": "The room"}


def test_an_invite_is_shown_in_sliding_sync(b: Remote, alice: Person) -> None:
    room = named_room(b)
    b.invite(room, ALICE)

    shown = sliding.ask(alice)["rooms"]

    assert shown[room.id]["name"] == "The room"
    assert shown[room.id]["membership"] == "invite"


def test_an_invite_is_accepted_by_the_inviters_server_though_the_room_names_another(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    c, room = remote("c.test"), named_room(b, "12")
    c.rooms[room.id] = room
    b.invite(room, ALICE)

    assert alice.post(f"join/{quote(room.id)}").status_code == 200
    assert b.received("/make_join/")
    assert not c.received("/make_join/")


def test_an_invite_is_rejected_at_once_and_the_room_learns_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    since = alice.sync()["next_batch"]
    b.hang("/make_leave/", times=1)

    assert alice.post(f"rooms/{quote(room.id)}/leave").status_code == 200

    assert invited(alice, room.id) is None
    (event,) = alice.sync(since=since)["rooms"]["leave"][room.id]["state"]["events"]
    assert (event["type"], event["state_key"]) == ("m.room.member", ALICE)
    assert event["content"] == {"membership": "leave"}
    b.recover()
    app.homeserver.delivery.start()
    b.wait_until(lambda: room.membership(ALICE) == "leave", "the leave")
    app.homeserver.delivery.stop()


def test_the_rejection_is_repeated_until_a_server_takes_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    b.fail("/make_leave/", 502, times=2)
    app.homeserver.delivery.start()

    alice.post(f"rooms/{quote(room.id)}/leave", json={"reason": "no"})

    b.wait_until(lambda: room.membership(ALICE) == "leave", "the leave")
    assert (room.content("m.room.member", ALICE) or {})["reason"] == "no"
    wait_for(lambda: not waiting(app), "the empty outbox")
    app.homeserver.delivery.stop()


def waiting(app: Application) -> list[str]:
    with app.homeserver.database.read() as tx:
        return [it for kind, it in outbox.destinations(tx) if kind == outside_rooms.DEPARTURE]


def test_an_older_server_gets_the_rejection_by_the_older_operation(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    b.fail("/v2/send_leave/", 404, errcode="M_UNRECOGNIZED")
    alice.post(f"rooms/{quote(room.id)}/leave")

    app.homeserver.delivery.start()
    b.wait_until(lambda: room.membership(ALICE) == "leave")
    app.homeserver.delivery.stop()

    assert len(b.received("/v1/send_leave/")) == 1


def test_a_room_that_does_not_know_the_user_any_more_ends_the_rejection(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    del b.rooms[room.id]
    app.homeserver.delivery.start()

    alice.post(f"rooms/{quote(room.id)}/leave")

    wait_for(lambda: b.received("/make_leave/") and not waiting(app), "the empty outbox")
    app.homeserver.delivery.stop()


def test_the_inviter_takes_the_invite_back(b: Remote, alice: Person) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    since = alice.sync()["next_batch"]

    b.send(room.member(ALICE, "leave", sender=room.creator))

    assert invited(alice, room.id) is None
    assert room.id in alice.sync(since=since)["rooms"]["leave"]


def test_another_user_of_the_same_server_takes_the_invite_back(b: Remote, alice: Person) -> None:
    room = named_room(b)
    room.member("@dora:b.test", "join")
    b.invite(room, ALICE)

    b.send(room.member(ALICE, "leave", sender="@dora:b.test"))

    assert invited(alice, room.id) is None


def test_the_end_of_an_invite_does_not_end_the_next_one(b: Remote, alice: Person) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    end = room.member(ALICE, "leave", sender=room.creator)
    b.send(end)
    b.invite(room, ALICE)

    b.send(end)

    assert invited(alice, room.id) is not None


def test_another_server_does_not_take_an_invite_back(
    b: Remote, remote: Remotes, alice: Person
) -> None:
    c, room = remote("c.test"), named_room(b)
    b.invite(room, ALICE)

    c.send(room.member(ALICE, "leave", sender="@carol:c.test", by=c, add=False))
    b.send(
        remote_room.with_wrong_signature(
            room.member(ALICE, "leave", sender=room.creator, add=False), "b.test"
        )
    )
    c.send(room.member(ALICE, "leave", sender=room.creator, add=False))

    assert invited(alice, room.id) is not None


def test_an_invite_after_a_rejection_is_shown_again(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    alice.post(f"rooms/{quote(room.id)}/leave")
    alice.post(f"rooms/{quote(room.id)}/forget")

    b.invite(room, ALICE)

    assert invited(alice, room.id) is not None
    app.homeserver.delivery.start()  # the rejection is out of date
    wait_for(lambda: not waiting(app), "the empty outbox")
    app.homeserver.delivery.stop()
    assert room.membership(ALICE) == "invite"


def test_a_user_is_invited_again_to_a_room_that_all_users_here_have_left(
    b: Remote, app: Application, alice: Person
) -> None:
    app.homeserver.sender.start()
    room = named_room(b)
    b.invite(room, ALICE)
    alice.post(f"rooms/{quote(room.id)}/join")
    alice.post(f"rooms/{quote(room.id)}/leave")
    b.wait_until(lambda: room.membership(ALICE) == "leave")
    room.set_state("m.room.name", {"name": "Another name"})

    b.invite(room, ALICE)

    shown = invited(alice, room.id)
    assert shown is not None
    assert shown["m.room.name", ""] == {"name": "Another name"}
    assert alice.post(f"rooms/{quote(room.id)}/join").status_code == 200
    assert state_of(alice, room.id)["m.room.name", ""] == {"name": "Another name"}
    app.homeserver.sender.stop()


def test_an_invite_to_a_room_that_this_server_is_in_is_signed_and_comes_as_an_event(
    b: Remote, alice: Person, login: Login
) -> None:
    bob = login("bob")
    room = b.room()
    alice.post(f"join/{quote(room.id)}?via=b.test")

    answer = b.invite(room, bob.user_id)

    assert answer.status == 200
    assert invited(bob, room.id) is None
    (head,) = room.heads
    assert b.send(room.events[head]) == {head: {}}
    assert invited(bob, room.id) is not None


def test_users_who_block_invites_get_none(b: Remote, app: Application, alice: Person) -> None:
    path = f"user/{ALICE}/account_data/m.invite_permission_config"
    alice.put(path, json={"default_action": "block"})
    room = named_room(b)

    with unchanged(app):
        answer = b.invite(room, ALICE)

    assert answer.refusal == (403, "M_INVITE_BLOCKED")


def test_a_filter_blocks_and_ignores_invites_of_servers(
    b: Remote, app: Application, alice: Person
) -> None:
    path = f"user/{ALICE}/account_data/org.matrix.msc4155.invite_permission_config"
    room = named_room(b)

    alice.put(path, json={"blocked_servers": ["b.*"]})
    with unchanged(app):
        answer = b.invite(room, ALICE)
    alice.put(path, json={"ignored_servers": ["b.*"]})
    ignored = b.invite(room, ALICE)

    assert answer.refusal == (403, "M_INVITE_BLOCKED")
    assert ignored.status == 200
    assert invited(alice, room.id) is None
    assert alice.get("notifications").get_json()["notifications"] == []
    alice.put(path, json={})
    assert invited(alice, room.id) is not None


def test_invites_by_ignored_users_are_not_shown(b: Remote, alice: Person) -> None:
    ignored: Json = {"ignored_users": {"@carol:b.test": {}}}
    alice.put(f"user/{ALICE}/account_data/m.ignored_user_list", json=ignored)
    room = named_room(b)

    assert b.invite(room, ALICE).status == 200
    assert invited(alice, room.id) is None


CHANGES: dict[str, Json] = {
    "another type": {"type": "m.room.message"},
    "a user of another server": {"state_key": "@dave:b.test"},
    "another server's sender": {"sender": "@carol:c.test"},
    "another membership": {"content": {"membership": "join"}},
    "another room": {"room_id": "!other:b.test"},
    "too deep": {"depth": 2**53},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_other_events_than_invites_are_not_signed(
    b: Remote, app: Application, alice: Person, changes: Json
) -> None:
    room = named_room(b)
    pdu = room.unsigned_event("m.room.member", {"membership": "invite"}, ALICE)
    event = room.sign({**pdu, **changes}, add=False)
    body = {"event": event.pdu, "room_version": "11", "invite_room_state": []}

    with unchanged(app):
        answer = b.put("v2", "invite", room.id, event.event_id, json=body)

    assert answer.refusal == (400, "M_INVALID_PARAM")


def test_invites_with_a_wrong_signature_hash_id_or_version_are_refused(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    event = room.member(ALICE, "invite", sender=room.creator, add=False)
    wrong = [
        (event.event_id, remote_room.with_wrong_signature(event, "b.test")),
        (event.event_id, remote_room.without_signatures(event)),
        (event.event_id, remote_room.with_wrong_hash(event, reason="for fun")),
        ("$" + "A" * 43, event.pdu),
    ]

    with unchanged(app):
        answers = [
            b.put("v2", "invite", room.id, it, json={"event": pdu, "room_version": "11"})
            for it, pdu in wrong
        ]
        unknown = send(b, event, "org.example")

    assert [it.refusal for it in answers] == [(400, "M_INVALID_PARAM")] * 4
    assert unknown.refusal == (400, "M_INCOMPATIBLE_ROOM_VERSION")


def test_the_stripped_state_of_version_12_is_checked(
    b: Remote, app: Application, alice: Person
) -> None:
    room, other = named_room(b, "12"), named_room(b, "12", creator="dave")
    event = room.member(ALICE, "invite", sender=room.creator, add=False)
    good, name = remote_answers.stripped(room), room.state["m.room.name", ""]
    wrong = [
        [],
        [it for it in good if it["type"] != "m.room.create"],
        [*good, remote_room.with_wrong_signature(name, "b.test")],
        remote_answers.stripped(other),
        [*good, {"type": "m.room.topic"}],
        [*good, *[good[0]] * 100],
    ]

    with unchanged(app):
        answers = [send(b, event, "12", invite_room_state=it) for it in wrong]

    assert [it.refusal for it in answers] == [(400, "M_INVALID_PARAM")] * len(wrong)
    assert send(b, event, "12", invite_room_state=good).status == 200


def test_strange_stripped_state_of_older_versions_is_left_out(b: Remote, alice: Person) -> None:
    room = named_room(b)
    event = room.member(ALICE, "invite", sender=room.creator, add=False)
    strange = [1, None, {"type": 1}, {"type": "m.a", "state_key": "", "sender": "x", "content": 1}]

    assert send(b, event, invite_room_state=strange).status == 200

    shown = invited(alice, room.id)
    assert shown == {("m.room.member", ALICE): {"membership": "invite"}}


def test_of_very_large_stripped_state_the_last_events_are_left_out(
    b: Remote, alice: Person
) -> None:
    room = named_room(b)
    event = room.member(ALICE, "invite", sender=room.creator, add=False)
    large = [
        {
            "type": f"m.{name}",
            "state_key": "",
            "sender": room.creator,
            "content": {"x": "x" * 60_000},
        }
        for name in "abcdefgh"
    ]

    assert send(b, event, invite_room_state=large).status == 200

    shown = invited(alice, room.id) or {}
    assert [event_type for event_type, _ in shown if event_type != "m.room.member"] == [
        *("m.a", "m.b", "m.c", "m.d")
    ]


def test_a_server_sends_a_limited_number_of_invites(remote: Remotes, make_app: MakeApp) -> None:
    limits = {"per_second": "0.001", "burst_count": "2"}
    options = {f"rc_invites.per_server.{key}": value for key, value in limits.items()}
    app = make_app(**remote.settings, rate_limits="true", **options)
    remote.talk_to(app)
    b = remote("b.test")
    room = named_room(b)

    answers = [b.invite(room, f"@user{number}:localhost").status for number in range(3)]

    assert answers == [200, 200, 429]


def test_an_invite_is_pushed_with_the_name_of_the_room(
    b: Remote, app: Application, alice: Person
) -> None:
    pusher = {
        "kind": "http",
        "app_id": "org.example",
        "pushkey": "key",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": "http://127.0.0.1:1/_matrix/push/v1/notify"},
    }
    assert alice.post("pushers/set", json=pusher).status_code == 200
    room = named_room(b)

    assert b.invite(room, ALICE).status == 200

    with app.homeserver.database.read() as tx:
        (destination,) = [it for kind, it in outbox.destinations(tx) if kind == "push"]
        (row,) = outbox.first(tx, "push", destination, 9)
        gateway = pushers.gateway(tx, destination)
        assert gateway is not None
        notification = gateway_notices.about(tx, gateway, row.payload)
    assert notification is not None
    assert [notification["event_id"]] == room.heads
    assert notification["room_name"] == "The room"
    assert notification["user_is_target"] is True


def test_a_user_who_is_deactivated_rejects_all_invites(
    b: Remote, app: Application, alice: Person
) -> None:
    room = named_room(b)
    assert b.invite(room, alice.user_id).status == 200
    app.homeserver.delivery.start()

    deactivation.deactivate(app.homeserver.database, ALICE)

    b.wait_until(lambda: room.membership(ALICE) == "leave", "the leave")
    app.homeserver.delivery.stop()


def test_an_invite_shows_the_room_itself_once_another_user_has_joined(
    b: Remote, alice: Person, login: Login
) -> None:
    bob = login("bob")
    room = named_room(b)
    for user_id in (ALICE, bob.user_id):
        assert b.invite(room, user_id).status == 200
    bob.post(f"rooms/{quote(room.id)}/join")

    b.send(room.set_state("m.room.name", {"name": "Another name"}))

    shown = invited(alice, room.id)
    assert shown is not None
    assert shown["m.room.name", ""] == {"name": "Another name"}
    assert alice.post(f"rooms/{quote(room.id)}/join").status_code == 200


def test_a_rejection_is_shown_in_sliding_sync_though_there_is_no_event_yet(
    b: Remote, alice: Person
) -> None:
    room = named_room(b)
    b.invite(room, ALICE)
    deployed, merged = sliding.ask(alice)["pos"], sliding.ask(alice, conn_id="merged")["pos"]
    b.hang("/make_leave/", times=1)
    alice.post(f"rooms/{quote(room.id)}/leave")

    entry = sliding.ask(alice, deployed)["rooms"][room.id]
    body: Json = {"conn_id": "merged", "pos": merged}
    body["lists"] = {"all": {"timeline_limit": 1, "required_state": {}}}
    other = alice.post("/_matrix/client/v4/sync", json=body).get_json()["rooms"][room.id]

    assert entry["membership"] == other["membership"] == "leave"
    for (event,) in (entry["required_state"], other["stripped_state"]):
        assert (event["type"], event["state_key"]) == ("m.room.member", ALICE)
        assert event["content"] == {"membership": "leave"}


def test_filters_of_sliding_sync_know_what_came_with_an_invite(b: Remote, alice: Person) -> None:
    space, room = b.room("11", join_rule="invite", create={"type": "m.space"}), named_room(b)
    for it in (space, room):
        b.invite(it, ALICE)

    def listed(**filters: Any) -> set[str]:
        return set(sliding.ask(alice, lists=sliding.window(9, filters=filters))["rooms"])

    assert listed(room_types=["m.space"]) == {space.id}
    assert listed(not_room_types=["m.space"]) == {room.id}
    assert listed(room_name_like="the room") == {room.id}
