from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from homebody.core.events import state as room_state
from homebody.core.federation import remote_states
from homebody.models.events import OUTLIER
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import remote_answers
from tests.helpers.partial_rooms import is_partial, join, let_state_come, omitting
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.rooms import state_of
from tests.helpers.scripted_server import Response
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
CAROL = "@carol:b.test"
DAVE = ("m.room.member", "@dave:b.test")


@pytest.fixture
def b(remote: Remotes, app: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    """A server that leaves members out, and does not send them before `let_state_come`."""
    with omitting(remote, app, monkeypatch) as b:
        yield b


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def room_with_much_state(b: Remote) -> RemoteRoom:
    """Make a room in which a few events are missing when it is joined, but less than a tenth."""
    room = b.room()
    for number in range(40):
        room.event("org.example.entry", {"number": number}, str(number))
    return room


def asked_about(b: Remote) -> list[str]:
    """Return the events before which the state was asked for, in order."""
    return [it.query["event_id"][0] for it in b.received("/state_ids/")]


def state_in(room: RemoteRoom) -> dict[tuple[str, str], Json]:
    return {key: it.content for key, it in room.state.items()}


def test_many_missing_members_come_with_the_whole_state(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    users = room.crowd(60)
    room.message("the last before the join")
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)
    assert len(users) == 60
    assert len(b.received("/v1/event/")) <= 2
    assert len(b.received("/state/")) == 1


def test_few_missing_members_are_asked_for_one_by_one(
    b: Remote, app: Application, alice: Person
) -> None:
    room = room_with_much_state(b)
    dave = room.member("dave", "join")
    erin = room.member("erin", "leave", sender=CAROL)
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)
    assert not b.received("/state/")
    asked = {it.parts[-1] for it in b.received("/v1/event/")}
    assert asked == {dave.event_id, erin.event_id}


def test_an_event_that_can_not_be_had_alone_comes_with_the_whole_state(
    b: Remote, app: Application, alice: Person
) -> None:
    room = room_with_much_state(b)
    room.member("dave", "join")
    room.set_state("m.room.topic", {"topic": "last"})
    b.fail("/v1/event/", 404)
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)
    assert b.received("/state/")


def test_events_that_an_earlier_try_has_stored_are_not_asked_for_again(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.crowd(30)
    room.set_state("m.room.topic", {"topic": "last"})

    def without_create(request: Any) -> Response:
        answer = remote_answers.state(b, request)
        answer["pdus"] = [it for it in answer["pdus"] if it["type"] != "m.room.create"]
        return Response(200, answer)

    b.answer("/state/", without_create, times=1)
    b.fail("/state_ids/", 503, times=1)
    b.recover("/state")
    join(alice, room.id)
    wait_for(lambda: not is_partial(app, room.id), "all members of the room")

    assert state_of(alice, room.id) == state_in(room)
    assert len(b.received("/state/")) == 1


def test_where_there_are_too_many_ids_the_whole_state_is_asked_for(
    b: Remote, app: Application, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_states, "MAX_IDS_BYTES", 1000)
    room = room_with_much_state(b)
    room.member("dave", "join")
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)
    assert b.received("/state/")


def test_the_state_is_that_after_the_event_which_the_join_follows(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    last = room.member("dave", "join", content={"displayname": "David"})
    join(alice, room.id)

    let_state_come(b, app, room)

    assert set(asked_about(b)) == {last.event_id}
    assert state_of(alice, room.id) == state_in(room)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("is_member", [True, False])
def test_the_event_which_the_join_follows_is_part_of_the_state_in_each_room_version(
    b: Remote, app: Application, alice: Person, version: str, is_member: bool
) -> None:
    room = b.room(version)
    if is_member:
        room.member("dave", "join")
    else:
        room.set_state("m.room.topic", {"topic": "last"})
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)


def test_a_message_before_the_join_changes_nothing(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    last = room.message("hello")
    join(alice, room.id)

    let_state_come(b, app, room)

    assert set(asked_about(b)) == {last.event_id}
    assert state_of(alice, room.id) == state_in(room)


def test_an_event_before_the_join_that_is_not_allowed_changes_nothing(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    joined = room.member("mallory", "join")
    room.member("mallory", "ban", sender=CAROL)
    keys = (("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.join_rules", ""))
    cited = [*(room.state[key].event_id for key in keys), joined.event_id]
    room.member("mallory", "join", content={"displayname": "M"}, auth_events=cited)
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id)["m.room.member", "@mallory:b.test"]["membership"] == "ban"


def test_a_join_that_follows_several_events_is_asked_about_itself(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    (start,) = room.heads
    room.member("dave", "join", prev=[start])
    room.member("erin", "join", prev=[start])
    join(alice, room.id)
    join_id = room.heads[-1]

    let_state_come(b, app, room)

    assert set(asked_about(b)) == {join_id}
    assert state_of(alice, room.id) == state_in(room)


def test_a_server_that_knows_nothing_before_the_join_is_asked_about_that(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.member("dave", "join")
    last = room.message("hello")
    room.hidden.add(last.event_id)
    join(alice, room.id)

    let_state_come(b, app, room)

    assert asked_about(b)[-2:] == [last.event_id, *room.heads]
    assert state_of(alice, room.id) == state_in(room)


def two_of_one_key(answer: Json, b: Remote) -> None:
    (room,) = b.rooms.values()
    answer["pdu_ids"] += [
        it.event_id for it in room.events.values() if it.type == "m.room.join_rules"
    ]


def nothing(answer: Json, _b: Remote) -> None:
    answer["pdu_ids"] = answer["auth_chain_ids"] = []


def no_list(answer: Json, _b: Remote) -> None:
    answer["pdu_ids"] = {"a": 1}


@pytest.mark.parametrize("change", [two_of_one_key, nothing, no_list])
def test_ids_that_are_no_state_of_the_room_are_not_taken_for_it(
    b: Remote, app: Application, alice: Person, change: Any
) -> None:
    room = room_with_much_state(b)
    room.set_state("m.room.join_rules", {"join_rule": "public", "allow": []})
    room.member("dave", "join")

    def respond(request: Any) -> Response:
        answer = remote_answers.state_ids(b, request)
        change(answer, b)
        return Response(200, answer)

    b.answer("/state_ids/", respond, times=4)
    b.fail("/state/", 404, times=4)
    b.recover("/state")
    join(alice, room.id)

    b.wait_until(lambda: len(b.received("/state_ids/")) > 2)
    assert is_partial(app, room.id)
    b.recover("/state_ids/")
    let_state_come(b, app, room)
    assert state_of(alice, room.id) == state_in(room)


@pytest.mark.parametrize("is_last", [True, False])
def test_an_invite_of_before_becomes_part_of_the_room(
    b: Remote, app: Application, alice: Person, login: Login, *, is_last: bool
) -> None:
    bob, room = login("bob"), room_with_much_state(b)
    assert b.invite(room, bob.user_id).status == 200
    invite = room.state["m.room.member", bob.user_id]
    if not is_last:
        room.set_state("m.room.topic", {"topic": "last"})
    join(alice, room.id)

    let_state_come(b, app, room)

    with app.homeserver.database.read() as tx:
        found = room_state.find_any(tx, invite.event_id)
    assert found is not None
    assert found.standing == OUTLIER
    assert join(bob, room.id).status_code == 200
    assert state_of(bob, room.id).keys() == room.state.keys() | {("m.room.member", bob.user_id)}


def test_events_that_were_rejected_are_not_in_the_state(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.crowd(30)
    room.member("dave", "join", auth_events=[])
    room.message("last")

    def without_create(request: Any) -> Response:
        answer = remote_answers.state(b, request)
        answer["pdus"] = [it for it in answer["pdus"] if it["type"] != "m.room.create"]
        return Response(200, answer)

    b.recover("/state")
    b.answer("/state/", without_create, times=1)
    join(alice, room.id)
    wait_for(lambda: not is_partial(app, room.id), "all members of the room")

    assert len(b.received("/state/")) == 1
    assert state_of(alice, room.id).keys() == room.state.keys() - {DAVE}


def test_a_rejected_event_before_the_join_changes_nothing(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    room.crowd(3)
    last = room.member("dave", "join", auth_events=[])
    join(alice, room.id)

    let_state_come(b, app, room)

    assert last.event_id in asked_about(b)
    assert state_of(alice, room.id).keys() == room.state.keys() - {DAVE}


def test_another_event_than_the_one_that_was_asked_for_is_not_taken_for_it(
    b: Remote, app: Application, alice: Person
) -> None:
    room = b.room()
    message = room.message("hello")
    room.member("dave", "join")
    answer = {"origin": "b.test", "origin_server_ts": 1, "pdus": [message.pdu]}
    b.answer("/v1/event/", Response(200, answer))
    join(alice, room.id)

    let_state_come(b, app, room)

    assert state_of(alice, room.id) == state_in(room)


def known_elsewhere(b: Remote, app: Application, alice: Person) -> Event:
    """Return a join of Dave in another room, which is stored."""
    other = b.room()
    dave = other.member("dave", "join")
    join(alice, other.id)
    let_state_come(b, app, other)
    b.fail("/state", 503)
    return dave


@pytest.mark.parametrize("is_message", [True, False])
def test_ids_of_messages_and_of_other_rooms_are_no_state_of_the_room(
    b: Remote, app: Application, alice: Person, *, is_message: bool
) -> None:
    dave, room = known_elsewhere(b, app, alice), b.room()
    join(alice, room.id)
    wrong = alice.send(room.id, "hello") if is_message else dave.event_id

    def respond(request: Any) -> Response:
        answer = remote_answers.state_ids(b, request)
        return Response(200, answer | {"pdu_ids": [*answer["pdu_ids"], wrong]})

    asked = len(asked_about(b))
    b.recover("/state")
    b.answer("/state_ids/", respond, times=2)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")
    assert len(asked_about(b)) >= asked + 3
    assert state_of(alice, room.id).keys() == room.state.keys()


def test_a_join_that_follows_an_event_of_another_room_is_asked_about_itself(
    b: Remote, app: Application, alice: Person
) -> None:
    dave, room = known_elsewhere(b, app, alice), b.room()

    def template(request: Any) -> Response:
        answer = remote_answers.make_membership(b, request)
        event = answer["event"] | {"prev_events": [dave.event_id]}
        return Response(200, answer | {"event": event})

    def respond(request: Any) -> Response:
        ids = [it.event_id for it in room.state.values() if it.state_key != alice.user_id]
        return Response(200, {"pdu_ids": ids, "auth_chain_ids": []})

    b.answer("/make_join/", template, times=1)
    join(alice, room.id)
    b.recover("/state")
    b.answer("/state_ids/", respond)

    wait_for(lambda: not is_partial(app, room.id), "all members of the room")
    with app.homeserver.database.read() as tx:
        assert not room_state.is_joined(tx, room.id, dave.sender)
        assert room_state.is_joined(tx, room.id, CAROL)
