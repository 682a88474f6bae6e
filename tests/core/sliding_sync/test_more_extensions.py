"""The extensions for thread subscriptions (MSC4308) and profiles (MSC4262)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.sliding_sync import kept_states
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal
from tests.helpers.sliding import Json, ask, request, window

MakeRoom = Callable[..., str]
UNSTABLE = "/_matrix/client/unstable"
THREADS = "io.element.msc4308.thread_subscriptions"
PROFILES = "org.matrix.msc4262.profiles"


def threads(person: Person, pos: str | None = None, **options: Any) -> tuple[str, Json]:
    """Return (pos, the section of thread subscriptions)."""
    wanted = {THREADS: {"enabled": True, **options}}
    answer = ask(person, pos, lists={}, extensions=wanted)
    return answer["pos"], answer["extensions"].get(THREADS, {})


def subscribe(person: Person, room_id: str, thread: str, method: str = "PUT") -> None:
    """Subscribe to a thread, or unsubscribe."""
    path = f"io.element.msc4306/rooms/{quote(room_id)}/thread/{quote(thread)}/subscription"
    body: Json = {"json": {}} if method == "PUT" else {}
    assert person.request(method, f"{UNSTABLE}/{path}", **body).status_code == 200


def profiles(
    person: Person, pos: str | None = None, lists: Json | None = None, **options: Any
) -> tuple[str, Json]:
    """Return (pos, {user_id: changes})."""
    wanted = {PROFILES: {"enabled": True, **options}}
    answer = ask(person, pos, lists=window(9) if lists is None else lists, extensions=wanted)
    return answer["pos"], answer["extensions"].get(PROFILES, {}).get("users", {})


def call(person: Person, name: str) -> None:
    """Change the person's display name."""
    body = {"displayname": name}
    assert person.put(f"profile/{person.user_id}/displayname", json=body).status_code == 200


def test_thread_subscriptions_are_sent_at_first_and_when_they_change(
    login: Login, room: MakeRoom
) -> None:
    alice = login("alice")
    room_id = room(alice)
    first, second = alice.send(room_id), alice.send(room_id)
    subscribe(alice, room_id, first)

    pos, at_first = threads(alice)
    pos, nothing = threads(alice, pos)
    subscribe(alice, room_id, second)
    subscribe(alice, room_id, first, "DELETE")
    pos, later = threads(alice, pos)

    assert at_first["subscribed"][room_id][first]["automatic"] is False
    assert nothing == {}
    assert list(later["subscribed"][room_id]) == [second]
    assert list(later["unsubscribed"][room_id]) == [first]
    assert threads(alice, pos)[1] == {}


def test_more_changes_than_the_limit_are_found_by_the_page_before(
    login: Login, room: MakeRoom
) -> None:
    alice = login("alice")
    room_id = room(alice)
    pos, _ = threads(alice)
    roots = [alice.send(room_id) for _ in range(4)]
    for root in roots:
        subscribe(alice, room_id, root)

    _, section = threads(alice, pos, limit=3)
    query = {"dir": "b", "from": section["prev_batch"], "to": pos}
    path = f"{UNSTABLE}/io.element.msc4308/thread_subscriptions"
    page = alice.get(path, query_string=query).get_json()

    assert set(section["subscribed"][room_id]) == set(roots[1:])
    assert page == {"subscribed": {room_id: {roots[0]: page["subscribed"][room_id][roots[0]]}}}


def test_thread_subscriptions_that_are_wanted_later_are_all_sent(
    login: Login, room: MakeRoom
) -> None:
    alice = login("alice")
    room_id = room(alice)
    root = alice.send(room_id)
    subscribe(alice, room_id, root)
    pos = ask(alice)["pos"]

    assert list(threads(alice, pos)[1]["subscribed"][room_id]) == [root]


def test_thread_subscriptions_of_others_are_not_sent(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    subscribe(alice, room_id, alice.send(room_id))

    assert threads(bob)[1] == {}


@pytest.mark.parametrize("extension", [{"limit": 0}, {"limit": "all"}, {"enabled": 1}])
def test_an_extension_for_threads_that_is_not_allowed_is_refused(
    login: Login, extension: Json
) -> None:
    answer = request(login("alice"), extensions={THREADS: extension})

    assert refusal(answer) == (400, "M_BAD_JSON")


def test_a_room_comes_with_the_profiles_of_whom_it_shows(login: Login, room: MakeRoom) -> None:
    alice, bob, carol, dave = (login(name) for name in ("alice", "bob", "carol", "dave"))
    room_id = room(alice, bob, carol, dave, name="Kitchen")
    call(bob, "Robert")
    alice.send(room_id)

    _, lazy = profiles(alice, lists=window(9, limit=1))
    everybody = window(9, limit=1, required_state=[["m.room.member", "*"]])
    _, eager = profiles(alice, lists=everybody, fields=["displayname"])

    assert set(lazy) == {alice.user_id}
    assert set(eager) == {it.user_id for it in (alice, bob, carol, dave)}
    assert eager[bob.user_id] == {"updated": {"displayname": "Robert"}}


def test_changes_of_profiles_are_sent_also_of_rooms_outside_the_windows(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room(alice, bob, carol)
    room(alice)
    pos, _ = profiles(alice, lists=window(0))

    call(bob, "Robert")
    pos, changed = profiles(alice, pos, lists={})
    bob.delete(f"profile/{bob.user_id}/displayname")
    pos, removed = profiles(alice, pos, lists={})

    assert changed == {bob.user_id: {"updated": {"displayname": "Robert"}}}
    assert removed == {bob.user_id: {"removed": ["displayname"]}}
    assert profiles(alice, pos, lists={})[1] == {}


def test_ones_own_profile_is_sent_and_those_of_strangers_are_not(
    login: Login, room: MakeRoom
) -> None:
    alice, mallory = login("alice"), login("mallory")
    room(alice)
    pos, _ = profiles(alice, lists={})
    call(alice, "Alicia")
    call(mallory, "Mallory the stranger")

    assert profiles(alice, pos, lists={})[1] == {
        alice.user_id: {"updated": {"displayname": "Alicia"}}
    }


def test_a_user_who_shares_no_room_any_more_is_to_be_forgotten(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos, _ = profiles(alice)
    bob.post(f"rooms/{quote(room_id)}/leave")

    assert profiles(alice, pos)[1][bob.user_id] is None


def test_other_fields_are_sent_of_all_who_are_shown(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    bob.send(room_id)
    bob.put(f"profile/{bob.user_id}/org.example.pet", json={"org.example.pet": "cat"})
    pos, at_first = profiles(alice, fields=["displayname"])

    pos, found = profiles(alice, pos, fields=["displayname", "org.example.pet"])

    assert at_first[bob.user_id] == {"updated": {"displayname": "bob"}}
    assert found[bob.user_id]["updated"]["org.example.pet"] == "cat"
    assert profiles(alice, pos, fields=["displayname", "org.example.pet"])[1] == {}


def test_a_user_who_is_shown_later_comes_with_their_profile(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob, name="Kitchen")
    alice.send(room_id)
    pos, at_first = profiles(alice, lists=window(9, limit=1))
    bob.send(room_id)
    pos, later = profiles(alice, pos, lists=window(9, limit=1))
    bob.send(room_id)

    assert bob.user_id not in at_first
    assert later == {bob.user_id: {"updated": {"displayname": "bob"}}}
    assert profiles(alice, pos, lists=window(9, limit=1))[1] == {}


def test_without_changes_there_is_no_section(login: Login) -> None:
    answer = ask(login("alice"), extensions={PROFILES: {"enabled": True}, THREADS: {}})

    assert answer["extensions"] == {}


def test_over_a_restart_only_changes_are_sent(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    subscribe(alice, room_id, alice.send(room_id))
    wanted: Json = {PROFILES: {"enabled": True}, THREADS: {"enabled": True}}
    pos = ask(alice, ask(alice, extensions=wanted)["pos"], extensions=wanted)["pos"]
    homeserver = app.homeserver
    kept_states.write(homeserver.database, homeserver.sliding_connections, is_last=True)
    alice.client = bob.client = make_app().test_client()
    call(bob, "Robert")

    found = ask(alice, pos, extensions=wanted)["extensions"]

    assert found == {PROFILES: {"users": {bob.user_id: {"updated": {"displayname": "Robert"}}}}}


def test_without_rooms_on_the_connection_a_user_is_to_be_forgotten_too(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos, _ = profiles(alice, lists={})
    bob.post(f"rooms/{quote(room_id)}/leave")

    assert profiles(alice, pos, lists={})[1] == {bob.user_id: None}
