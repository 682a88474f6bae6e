"""Rooms that everybody has left and forgotten are deleted after some time; others are not."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from homebody.core.administration import abandoned_rooms
from homebody.models.accounts import Account
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes

DAY_MS = 86_400_000
MONTHS = 40 * DAY_MS


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(alice: Person, login: Login) -> Person:
    return login("bob")


def room_of(alice: Person, bob: Person) -> str:
    """A room with both."""
    room = alice.create_room(invite=[bob.user_id])
    assert bob.post(f"join/{quote(room)}").status_code == 200
    alice.send(room)
    return room


def leave(person: Person, room: str, *, forget: bool = True) -> None:
    assert person.post(f"rooms/{quote(room)}/leave").status_code == 200
    if forget:
        assert person.post(f"rooms/{quote(room)}/forget").status_code == 200


def let_time_pass(app: Application) -> None:
    with app.homeserver.database.write() as tx:
        ago = StoredEvent.origin_server_ts - MONTHS
        tx.sql.execute(update(StoredEvent).values(origin_server_ts=ago))
        tx.sql.execute(
            update(ForgottenRoom).values(forgotten_ts=ForgottenRoom.forgotten_ts - MONTHS)
        )
        deactivated = Account.deactivated_ts - MONTHS
        tx.sql.execute(update(Account).values(deactivated_ts=deactivated))


def rooms(app: Application) -> set[str]:
    with app.homeserver.database.read() as tx:
        found = set(tx.sql.execute(select(Room.room_id)).scalars())
        events = set(tx.sql.execute(select(StoredEvent.room_id)).scalars())
    assert found == events
    return found


def sweep(app: Application) -> int:
    return abandoned_rooms.sweep(app.homeserver.database)


def test_a_room_that_all_have_forgotten_is_deleted_after_some_time(
    app: Application, alice: Person, bob: Person
) -> None:
    room, other = room_of(alice, bob), room_of(alice, bob)
    for person in (alice, bob):
        leave(person, room)
    assert sweep(app) == 0  # too early

    let_time_pass(app)

    assert sweep(app) == 1
    assert rooms(app) == {other}


def test_a_room_that_somebody_is_in_stays(app: Application, alice: Person, bob: Person) -> None:
    room = room_of(alice, bob)
    leave(alice, room)
    let_time_pass(app)

    assert sweep(app) == 0
    assert rooms(app) == {room}


def test_a_room_that_somebody_has_left_but_not_forgotten_stays(
    app: Application, alice: Person, bob: Person
) -> None:
    room = room_of(alice, bob)
    leave(alice, room)
    leave(bob, room, forget=False)
    let_time_pass(app)

    assert sweep(app) == 0
    assert bob.get(f"rooms/{quote(room)}/messages?dir=b").status_code == 200


def test_a_room_with_an_open_invite_stays(
    app: Application, alice: Person, bob: Person, login: Login
) -> None:
    room = room_of(alice, bob)
    carol = login("carol")
    assert (
        alice.post(f"rooms/{quote(room)}/invite", json={"user_id": carol.user_id}).status_code
        == 200
    )
    for person in (alice, bob):
        leave(person, room)
    let_time_pass(app)

    assert sweep(app) == 0
    leave(carol, room)
    let_time_pass(app)
    assert sweep(app) == 1


def test_an_invite_of_somebody_without_an_account_keeps_the_room(
    app: Application, alice: Person, bob: Person
) -> None:
    room = room_of(alice, bob)
    alice.post(f"rooms/{quote(room)}/invite", json={"user_id": "@later:localhost"})
    for person in (alice, bob):
        leave(person, room)
    let_time_pass(app)

    assert sweep(app) == 0


def test_a_deactivated_account_keeps_no_room(app: Application, alice: Person, bob: Person) -> None:
    room = room_of(alice, bob)
    leave(alice, room)
    auth = {
        "type": "m.login.password",
        "user": bob.user_id,
        "password": "correct horse battery staple",
    }
    assert bob.post("account/deactivate", json={"auth": auth}).status_code == 200
    let_time_pass(app)

    assert sweep(app) == 1
    assert room not in rooms(app)


def test_left_rooms_are_deleted_if_the_settings_say_so(make_app: MakeApp) -> None:
    app = make_app(**{"retention.left_rooms": "30 d", "retention.forgotten_rooms": ""})
    client = app.test_client()
    people = []
    for name in ("alice", "bob"):
        body = {"username": name, "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
        made = client.post("/_matrix/client/v3/register", json=body).get_json()
        people.append(Person(client, made["user_id"], made["access_token"], made["device_id"]))
    room, recent = room_of(*people), room_of(*people)
    for person in people:
        leave(person, room, forget=False)
    let_time_pass(app)
    for person in people:
        leave(person, recent)

    assert sweep(app) == 1
    assert rooms(app) == {recent}


def test_a_rejected_invite_of_another_server_leaves_nothing(
    remote: Remotes, app: Application, alice: Person
) -> None:
    b = remote("b.test")
    room = b.room(join_rule="invite")
    assert b.invite(room, alice.user_id).status == 200
    assert sweep(app) == 0
    let_time_pass(app)
    assert sweep(app) == 0

    leave(alice, room.id)
    let_time_pass(app)

    assert sweep(app) <= 1
    assert room.id not in rooms(app)


def test_a_room_of_another_server_that_was_left_is_deleted(
    remote: Remotes, app: Application, alice: Person
) -> None:
    b = remote("b.test")
    room = b.room()
    assert alice.post(f"join/{quote(room.id)}?server_name=b.test").status_code == 200
    leave(alice, room.id)
    assert sweep(app) == 0
    let_time_pass(app)

    assert sweep(app) == 1

    assert rooms(app) == set()
    assert alice.post(f"join/{quote(room.id)}?server_name=b.test").status_code == 200
