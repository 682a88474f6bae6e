"""Changes of profiles between two positions, as sliding sync sends them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from homebody.core.profiles import profile_changes
from homebody.web import Application
from tests.conftest import PASSWORD, Login, Person

Json = dict[str, Any]
Room = Callable[..., str]
PETS = "org.example.pets"


def put(person: Person, name: str, value: object) -> None:
    answer = person.put(f"profile/{person.user_id}/{name}", json={name: value})
    assert answer.status_code == 200, answer.get_json()


def position(app: Application) -> int:
    with app.homeserver.database.read() as tx:
        return tx.position


def since(
    app: Application, person: Person, after: int, fields: Collection[str] | None = None
) -> dict[str, Json]:
    with app.homeserver.database.read() as tx:
        return profile_changes.since(tx, person.user_id, after, tx.position, fields)


def test_changes_are_for_the_user_and_for_those_in_a_room_with_them(
    app: Application, login: Login, room: Room
) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room(alice, bob)
    before = position(app)

    put(alice, "displayname", "Alice")
    put(alice, PETS, ["cat"])
    put(alice, "m.tz", "Europe/London")
    put(alice, PETS, None)

    changes = {"displayname": "Alice", PETS: None, "m.tz": "Europe/London"}
    assert since(app, bob, before) == {alice.user_id: {"updated": changes}}
    assert since(app, alice, before) == {alice.user_id: {"updated": changes}}
    assert since(app, mallory, before) == {}
    assert since(app, bob, position(app)) == {}


def test_removed_fields_are_listed(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    put(alice, PETS, ["cat"])
    put(alice, "m.tz", "Europe/London")
    before = position(app)

    alice.delete(f"profile/{alice.user_id}/{PETS}")
    alice.delete(f"profile/{alice.user_id}/org.example.none")

    assert since(app, bob, before) == {alice.user_id: {"removed": [PETS]}}


def test_only_the_wanted_fields_are_returned(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    before = position(app)
    put(alice, PETS, ["cat"])
    put(alice, "m.tz", "Europe/London")

    with app.homeserver.database.read() as tx:
        users = [alice.user_id, bob.user_id, "@carol:b.test"]
        profiles = profile_changes.of_users(tx, users, {"displayname", PETS})

    assert since(app, bob, before, {PETS}) == {alice.user_id: {"updated": {PETS: ["cat"]}}}
    assert since(app, bob, before, {"avatar_url"}) == {}
    assert profiles == {
        alice.user_id: {"displayname": "alice", PETS: ["cat"]},
        bob.user_id: {"displayname": "bob"},
    }


def test_what_stays_the_same_is_not_a_change(app: Application, login: Login) -> None:
    alice = login("alice")
    put(alice, PETS, ["cat"])
    before = position(app)

    put(alice, PETS, ["cat"])

    assert since(app, alice, before) == {}


@pytest.mark.parametrize("is_erased", [True, False])
def test_the_changes_go_with_the_profile(
    app: Application, login: Login, *, is_erased: bool
) -> None:
    alice = login("alice")
    before = position(app)
    put(alice, PETS, ["cat"])
    auth = {"type": "m.login.password", "user": "alice", "password": PASSWORD}

    alice.post("account/deactivate", json={"auth": auth, "erase": is_erased})

    assert bool(since(app, alice, before)) == (not is_erased)
