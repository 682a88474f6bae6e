"""Names of rooms: set, resolved, listed, removed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homebody.web import Application
from tests.conftest import Login
from tests.helpers.rooms import act, refusal, state_of, unchanged

Room = Callable[..., str]
CATS = "directory/room/%23cats:localhost"


def test_an_alias_is_set_resolved_by_anybody_and_removed(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    answer = alice.put(CATS, json={"room_id": room_id})

    assert (answer.status_code, answer.get_json()) == (200, {})
    found = app.test_client().get(f"/_matrix/client/v3/{CATS}").get_json()
    assert found == {"room_id": room_id, "servers": ["localhost"]}
    listed = alice.get(f"rooms/{room_id}/aliases").get_json()
    assert listed == {"aliases": ["#cats:localhost"]}
    removed = alice.delete(CATS)
    assert (removed.status_code, removed.get_json()) == (200, {})
    assert refusal(alice.get(CATS)) == (404, "M_NOT_FOUND")


def test_a_room_may_have_many_aliases(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_alias_name="b")
    for name in ("a", "größe", "with/slash"):
        path = f"directory/room/%23{name.replace('/', '%2F')}:localhost"
        assert alice.put(path, json={"room_id": room_id}).status_code == 200

    aliases = alice.get(f"rooms/{room_id}/aliases").get_json()["aliases"]

    assert set(aliases) == {f"#{name}:localhost" for name in ("a", "b", "größe", "with/slash")}


def test_the_canonical_alias_goes_with_its_alias(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_alias_name="dogs")
    alice.put(CATS, json={"room_id": room_id})
    content = {"alias": "#cats:localhost", "alt_aliases": ["#dogs:localhost", "#cats:localhost"]}
    assert alice.set_state(room_id, "m.room.canonical_alias", content).status_code == 200

    alice.delete(CATS)

    state = state_of(alice, room_id)
    assert state["m.room.canonical_alias", ""] == {"alt_aliases": ["#dogs:localhost"]}


def test_an_alias_that_is_gone_may_stay_in_the_state(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.put(CATS, json={"room_id": room_id})
    alice.set_state(room_id, "m.room.canonical_alias", {"alias": "#cats:localhost"})

    assert bob.delete(CATS).status_code == 200

    state = state_of(alice, room_id)
    assert state["m.room.canonical_alias", ""] == {"alias": "#cats:localhost"}
    again = {"alias": "#cats:localhost", "org.example": True}
    assert alice.set_state(room_id, "m.room.canonical_alias", again).status_code == 200


def test_who_has_the_power_removes_the_aliases_of_others(login: Login, room: Room) -> None:
    login("admin")
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.put(CATS, json={"room_id": room_id})

    assert alice.delete(CATS).status_code == 200

    assert refusal(alice.get(CATS)) == (404, "M_NOT_FOUND")


def test_an_administrator_removes_any_alias(login: Login) -> None:
    admin, alice = login("admin"), login("alice")
    alice.create_room(room_alias_name="cats")

    assert admin.delete(CATS).status_code == 200


def test_others_may_not_remove_it(app: Application, login: Login, room: Room) -> None:
    login("admin")
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room(alice, bob, room_alias_name="cats")

    with unchanged(app):
        answers = [bob.delete(CATS), carol.delete(CATS)]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("%23taken:localhost", (409, "M_UNKNOWN")),
        ("%23cats:elsewhere.example", (400, "M_INVALID_PARAM")),
        ("cats", (400, "M_INVALID_PARAM")),
        ("%23cats", (400, "M_INVALID_PARAM")),
        ("%23:localhost", (400, "M_INVALID_PARAM")),
        (f"%23{'x' * 255}:localhost", (400, "M_INVALID_PARAM")),
    ],
)
def test_an_alias_that_can_not_be_is_refused(
    app: Application, login: Login, alias: str, expected: tuple[int, str]
) -> None:
    alice = login("alice")
    room_id = alice.create_room(room_alias_name="taken")

    with unchanged(app):
        answer = alice.put(f"directory/room/{alias}", json={"room_id": room_id})

    assert refusal(answer) == expected


def test_only_members_name_a_room(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)

    with unchanged(app):
        answers = [
            bob.put(CATS, json={"room_id": room_id}),
            bob.put(CATS, json={"room_id": "!nowhere:localhost"}),
        ]
        without = bob.put(CATS, json={})

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2
    assert refusal(without) == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("%23cats:localhost", (404, "M_NOT_FOUND")),
        ("%23cats:elsewhere.example", (404, "M_NOT_FOUND")),
        ("cats", (400, "M_INVALID_PARAM")),
    ],
)
def test_an_alias_that_nobody_has_set_is_told_so(
    login: Login, alias: str, expected: tuple[int, str]
) -> None:
    alice = login("alice")

    answers = [alice.get(f"directory/room/{alias}"), alice.delete(f"directory/room/{alias}")]

    assert [refusal(answer) for answer in answers] == [expected] * 2


def test_the_list_of_aliases_is_for_members_unless_all_may_read(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(room_alias_name="cats")
    refused = bob.get(f"rooms/{room_id}/aliases")

    content = {"history_visibility": "world_readable"}
    alice.set_state(room_id, "m.room.history_visibility", content)

    assert refusal(refused) == (403, "M_FORBIDDEN")
    assert bob.get(f"rooms/{room_id}/aliases").get_json() == {"aliases": ["#cats:localhost"]}
    act(alice, room_id, "leave")
    assert bob.get(f"rooms/{room_id}/aliases").status_code == 200


def test_an_administrator_sees_the_aliases_of_any_room(login: Login) -> None:
    owner, alice = login("owner"), login("alice")
    room_id = alice.create_room(room_alias_name="cats")

    assert owner.get(f"rooms/{room_id}/aliases").get_json() == {"aliases": ["#cats:localhost"]}
