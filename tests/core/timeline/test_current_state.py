"""Changes of current state by state resolution: what the server itself makes of them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody.core.events import state
from homebody.core.sync import summaries
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.large_room import store_member
from tests.helpers.resets import apply, member, reset
from tests.helpers.rooms import act, refusal, state_at, state_of, unchanged

TOPIC = ("m.room.topic", "")
NAME = ("m.room.name", "")
NO_AVATAR = ("m.room.avatar", "")


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


@pytest.fixture
def room_id(alice: Person, bob: Person, room: Callable[..., str]) -> str:
    return room(alice, bob, name="Tea")


def topic(person: Person, room_id: str, text: str) -> str:
    """Set the topic and return the id of the event."""
    answer = person.set_state(room_id, "m.room.topic", {"topic": text})
    return str(answer.get_json()["event_id"])


def test_an_older_event_is_the_state_again_from_then_on(
    app: Application, alice: Person, room_id: str
) -> None:
    first, second = topic(alice, room_id, "first"), topic(alice, room_id, "second")
    with app.homeserver.database.read() as tx:
        before = tx.position

    reset(app, room_id, {TOPIC: first})

    assert state_of(alice, room_id)[TOPIC] == {"topic": "first"}
    with app.homeserver.database.read() as tx:
        assert state_at(tx, room_id, before)[TOPIC].event_id == second
        assert state_at(tx, room_id, tx.position)[TOPIC].event_id == first
    app.homeserver.database.caches.clear(app.homeserver.database.writer.last_position)
    assert state_of(alice, room_id)[TOPIC] == {"topic": "first"}


def test_an_entry_can_go_and_be_set_again(app: Application, alice: Person, room_id: str) -> None:
    reset(app, room_id, {NAME: None})
    gone = state_of(alice, room_id)
    alice.set_state(room_id, "m.room.name", {"name": "Coffee"})

    assert NAME not in gone
    assert state_of(alice, room_id)[NAME] == {"name": "Coffee"}


def test_what_is_the_state_already_changes_nothing(
    app: Application, alice: Person, room_id: str
) -> None:
    first = topic(alice, room_id, "first")

    with unchanged(app):
        reset(
            app, room_id, {TOPIC: first, ("m.room.avatar", ""): None, member("@x:far.test"): None}
        )


def test_two_changes_at_one_position_leave_the_last(
    app: Application, alice: Person, room_id: str
) -> None:
    first, second = topic(alice, room_id, "first"), topic(alice, room_id, "second")
    third = topic(alice, room_id, "third")
    with app.homeserver.database.write() as tx:
        at = tx.next_position()
        apply(tx, room_id, {TOPIC: first}, at)
        apply(tx, room_id, {TOPIC: second}, at)

    assert state_of(alice, room_id)[TOPIC] == {"topic": "second"}
    with app.homeserver.database.read() as tx:
        assert state_at(tx, room_id, at)[TOPIC].event_id == second
        assert state_at(tx, room_id, at - 1)[TOPIC].event_id == third


def test_a_local_user_whose_member_event_goes_has_left(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    alice.send(room_id)

    reset(app, room_id, {member(bob.user_id): None})

    assert refusal(bob.put(f"rooms/{quote(room_id)}/send/m.room.message/1", json={})) == (
        403,
        "M_FORBIDDEN",
    )
    assert bob.get("joined_rooms").get_json() == {"joined_rooms": []}
    joined = alice.get(f"rooms/{quote(room_id)}/joined_members").get_json()["joined"]
    assert [*joined] == [alice.user_id]
    with app.homeserver.database.read() as tx:
        assert state.membership_of(tx, room_id, bob.user_id) == "leave"
        assert state.joined(tx, room_id) == state.Joined(
            frozenset({alice.user_id}), {"localhost": 1}, 1
        )
    assert act(bob, room_id, "forget").status_code == 200
    assert act(bob, room_id, "join").status_code == 200


def test_their_unread_counts_and_notifications_go(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    since = bob.sync()["next_batch"]
    alice.send(room_id, "hello bob")
    counted = bob.sync(since)["rooms"]["join"][room_id]["unread_notifications"]

    reset(app, room_id, {member(bob.user_id): None})

    assert counted["notification_count"] == 1
    assert bob.get("notifications").get_json()["notifications"] == []


def test_what_is_kept_of_members_follows(app: Application, alice: Person, room_id: str) -> None:
    far = "@far:far.test"
    with app.homeserver.database.write() as tx:
        joined = store_member(tx, room_id, far, "join")
        store_member(tx, room_id, far, "leave")
    alice.sync()

    seen = []
    for event_id in (joined.event_id, None):
        reset(app, room_id, {member(far): event_id})
        with app.homeserver.database.read() as tx:
            kept = state.joined(tx, room_id), summaries.members(tx, [room_id])
            app.homeserver.database.caches.clear(app.homeserver.database.writer.last_position)
        with app.homeserver.database.read() as tx:
            assert kept == (state.joined(tx, room_id), summaries.members(tx, [room_id]))
            seen.append(kept[0].servers.get("far.test"))

    assert seen == [1, None]


def test_a_reset_that_is_undone_changes_nothing(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    first = topic(alice, room_id, "first")
    topic(alice, room_id, "second")
    before = state_of(alice, room_id)

    with (
        unchanged(app),
        pytest.raises(ZeroDivisionError),
        app.homeserver.database.write() as tx,
    ):
        apply(tx, room_id, {TOPIC: first, member(bob.user_id): None})
        raise ZeroDivisionError

    assert state_of(alice, room_id) == before
    with app.homeserver.database.read() as tx:
        assert state.joined(tx, room_id).total == 2
        assert state.resets(tx, [room_id], 0) == {}


def test_the_waiting_requests_of_those_concerned_are_woken(
    app: Application, bob: Person, room_id: str
) -> None:
    with app.homeserver.wakeups.waiting(bob.user_id) as waiter:
        waiter.clear()
        reset(app, room_id, {member(bob.user_id): None})

        assert waiter._event.is_set()  # noqa: SLF001 - nothing else tells without waiting
