"""Which users are notified of whose changed keys, and that no room is shared any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import encryption
from tests.helpers.rooms import Json, act, refusal

Room = Callable[..., str]
FILTERS: list[Json] = [
    {},
    {"room": {"timeline": {"types": ["m.room.message"]}}},
    {"room": {"timeline": {"limit": 0}}},
    {"room": {"rooms": []}},
    {"room": {"state": {"lazy_load_members": True}}},
]


def lists(answer: Json) -> tuple[list[str], list[str]]:
    """(changed, left) of an answer of /sync."""
    found = answer["device_lists"]
    return found["changed"], found["left"]


def names(*people: Person) -> list[str]:
    return sorted(person.user_id for person in people)


def news(person: Person, since: str, **query: Any) -> tuple[list[str], list[str]]:
    """(changed, left), by /sync and by /keys/changes alike."""
    answer = person.sync(since, **query)
    found = lists(answer)
    asked = {"from": since, "to": answer["next_batch"]}
    same = person.get("keys/changes", query_string=asked).get_json()
    assert found == (same["changed"], same["left"])
    return found


def test_who_shares_a_room_learns_of_new_keys_and_nobody_else(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room(alice, bob)
    room(bob, carol)
    since = carol.sync()["next_batch"]

    encryption.upload_device_keys(alice)

    assert news(bob, since) == (names(alice), [])
    assert news(carol, since) == ([], [])


def test_a_users_own_devices_learn_of_new_keys(login: Login) -> None:
    phone, laptop = login("alice"), login("alice")
    since = phone.sync()["next_batch"]

    encryption.upload_device_keys(laptop)

    assert news(phone, since) == (names(phone), [])


def test_a_change_is_told_once(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    since = bob.sync()["next_batch"]
    encryption.upload_device_keys(alice)

    after = bob.sync(since)["next_batch"]

    assert news(bob, after) == ([], [])
    assert news(bob, since) == (names(alice), [])


def test_the_same_keys_again_are_no_news(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    encryption.upload_device_keys(alice)
    since = bob.sync()["next_batch"]

    encryption.upload_device_keys(alice)
    alice.post("keys/upload", json={"one_time_keys": {"curve25519:a": "key"}})

    assert news(bob, since) == ([], [])


@pytest.mark.parametrize("change", ["rename", "logout", "cross-signing", "deactivate"])
def test_what_else_changes_a_device_list(login: Login, room: Room, change: str) -> None:
    alice, phone, bob = login("alice"), login("alice"), login("bob")
    room(alice, bob)
    encryption.upload_device_keys(phone)
    since = bob.sync()["next_batch"]

    if change == "rename":
        phone.put(f"devices/{phone.device_id}", json={"display_name": "Phone"})
    elif change == "logout":
        phone.post("logout")
    elif change == "cross-signing":
        body = encryption.Identity(alice.user_id).upload()
        assert alice.post("keys/device_signing/upload", json=body).status_code == 200
    else:
        auth = {"auth": encryption.password_of(alice)}
        assert alice.post("account/deactivate", json=auth).status_code == 200

    expected = ([], names(alice)) if change == "deactivate" else (names(alice), [])
    assert news(bob, since) == expected


def test_a_device_without_keys_is_no_ones_business(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    since = bob.sync()["next_batch"]

    other = login("alice")
    other.put(f"devices/{other.device_id}", json={"display_name": "Phone"})
    other.post("logout")

    assert news(bob, since) == ([], [])


def test_a_first_sync_tells_of_nobody(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    encryption.upload_device_keys(alice)

    assert lists(bob.sync()) == ([], [])


@pytest.mark.parametrize("wanted", FILTERS)
def test_who_comes_into_a_room_is_told_of_and_is_told(
    login: Login, room: Room, wanted: Json
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, carol)
    before = bob.sync()["next_batch"]

    act(bob, room_id, "join")

    query = {"filter": orjson.dumps(wanted).decode()}
    assert news(alice, before, **query) == (names(bob), [])
    assert news(bob, before, **query) == (names(alice, bob, carol), [])


@pytest.mark.parametrize("wanted", FILTERS)
def test_who_leaves_the_last_common_room_is_left(login: Login, room: Room, wanted: Json) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol)
    room(bob, carol)
    before = bob.sync()["next_batch"]

    act(bob, room_id, "leave")

    query = {"filter": orjson.dumps(wanted).decode()}
    assert news(alice, before, **query) == ([], names(bob))
    assert news(bob, before, **query) == ([], names(alice))
    assert news(carol, before, **query) == ([], [])


def test_who_changes_after_leaving_is_told_of_on_return(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    act(bob, room_id, "leave")
    since = alice.sync()["next_batch"]
    encryption.upload_device_keys(bob)

    while_away = news(alice, since)
    act(bob, room_id, "join")

    assert while_away == ([], [])
    assert news(alice, since) == (names(bob), [])


def test_new_names_invites_and_kicks_of_strangers_are_no_news(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob)
    since = alice.sync()["next_batch"]

    bob.put(f"profile/{bob.user_id}/displayname", json={"displayname": "Robert"})
    act(alice, room_id, "invite", user_id=carol.user_id)
    act(carol, room_id, "leave")

    assert news(alice, since) == ([], [])
    assert news(carol, since) == ([], [])


def test_a_gap_in_the_timeline_hides_nobody(login: Login, room: Room) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, carol)
    since = alice.sync()["next_batch"]
    act(bob, room_id, "join")
    act(carol, room_id, "leave")

    for _ in range(12):
        alice.send(room_id)

    assert alice.sync(since)["rooms"]["join"][room_id]["timeline"]["limited"]
    assert news(alice, since) == (names(bob), names(carol))


def test_who_comes_and_goes_between_two_answers_is_no_news(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    since = alice.sync()["next_batch"]

    act(bob, room_id, "join")
    act(bob, room_id, "leave")

    assert news(alice, since) == ([], [])


def test_a_waiting_sync_ends_when_keys_change(app: Application, login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    room(alice, bob)
    since = bob.sync()["next_batch"]
    encryption.upload_device_keys(alice)

    answer = bob.sync(since, timeout=20_000)

    assert lists(answer) == (names(alice), [])
    with app.homeserver.wakeups.waiting(bob.user_id) as waiter:
        alice.put(f"devices/{alice.device_id}", json={"display_name": "Phone"})
        assert waiter._event.is_set()  # noqa: SLF001 - it has no public look without waiting


def test_keys_changes_wants_two_tokens(login: Login) -> None:
    alice = login("alice")
    token = alice.sync()["next_batch"]

    answers = [
        alice.get("keys/changes"),
        alice.get("keys/changes", query_string={"from": token}),
        alice.get("keys/changes", query_string={"from": "x", "to": token}),
        alice.get("keys/changes", query_string={"from": token, "to": "x"}),
        alice.get("keys/changes", query_string={"from": "s99999", "to": token}),
    ]

    assert [refusal(it) for it in answers] == [
        (400, "M_MISSING_PARAM"),
        (400, "M_MISSING_PARAM"),
        (400, "M_INVALID_PARAM"),
        (400, "M_INVALID_PARAM"),
        (400, "M_INVALID_PARAM"),
    ]


@pytest.mark.parametrize("has_news", [False, True])
def test_a_sync_that_has_none_of_this_asks_the_database_for_none_of_it(
    login: Login, room: Room, statements: list[str], *, has_news: bool
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    encryption.upload_device_keys(alice)
    since = bob.sync(bob.sync()["next_batch"])["next_batch"]
    if has_news:
        alice.send(room_id)
    statements.clear()

    answer = bob.sync(since)

    assert bool(answer["rooms"]["join"].get(room_id)) is has_news
    tables = ("one_time_keys", "fallback_keys", "device_list", "to_device", "device_keys")
    assert bool(statements) is has_news  # and without news for nothing at all
    assert [it for it in statements if any(table in it for table in tables)] == []
