"""GET /hierarchy: the rooms of a space, who sees which of them, in which order and pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.core.rooms import spaces
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, refusal

BOB = "@bob:localhost"


def make_space(person: Person, *children: str, **options: Any) -> str:
    """A public space with these rooms in it, in this order."""
    options = {"preset": "public_chat", "creation_content": {"type": "m.space"}, **options}
    space = person.create_room(**options)
    for number, child in enumerate(children):
        add(person, space, child, order=f"{number:03}")
    return space


def add(person: Person, space: str, child: str, **content: Any) -> None:
    answer = person.set_state(space, "m.space.child", {"via": ["localhost"], **content}, child)
    assert answer.status_code == 200, answer.get_json()


def ask(person: Person, space: str, **query: Any) -> TestResponse:
    path = f"/_matrix/client/v1/rooms/{quote(space)}/hierarchy"
    return person.get(path, query_string=query)


def told(person: Person, space: str, **query: Any) -> Json:
    answer = ask(person, space, **query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def ids(person: Person, space: str, **query: Any) -> list[str]:
    return [room["room_id"] for room in told(person, space, **query)["rooms"]]


def test_a_space_is_told_with_its_children_and_they_with_what_they_are_like(
    login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    kitchen = room(alice, name="Kitchen", topic="Tea")
    space = make_space(alice, kitchen, name="House")

    shown, child = told(alice, space)["rooms"]

    (of_child,) = shown.pop("children_state")
    assert of_child.pop("origin_server_ts") > 0
    assert of_child == {
        "type": "m.space.child",
        "state_key": kitchen,
        "sender": alice.user_id,
        "content": {"via": ["localhost"], "order": "000"},
    }
    assert shown == {
        "room_id": space,
        "name": "House",
        "num_joined_members": 1,
        "room_type": "m.space",
        "join_rule": "public",
        "room_version": "11",
        "world_readable": False,
        "guest_can_join": False,
    }
    assert (child["room_id"], child["name"], child["topic"]) == (kitchen, "Kitchen", "Tea")
    assert child["children_state"] == []


def test_a_space_inside_is_followed_by_its_own_rooms(
    login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    one, two, three = room(alice), room(alice), room(alice)
    inner = make_space(alice, one, two)

    space = make_space(alice, inner, three)

    assert ids(alice, space) == [space, inner, one, two, three]


def test_children_stand_in_the_order_of_the_specs_example(
    login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    a, b, c, d, e, f = (room(alice) for _ in range(6))
    space = make_space(alice)
    add(alice, space, e)
    add(alice, space, d, order="\n")
    add(alice, space, f, order="x" * 51)
    add(alice, space, c, order="first")
    add(alice, space, a, order="aaaa")
    add(alice, space, b, order=" ")

    listed = [child["state_key"] for child in told(alice, space)["rooms"][0]["children_state"]]

    assert listed[:3] == [b, a, c]
    assert sorted(listed[3:]) == sorted([d, e, f])
    assert ids(alice, space) == [space, *listed]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (({"order": " "}, 9, "!z"), ({"order": "~"}, 1, "!a")),
        (({"order": ""}, 9, "!z"), ({}, 1, "!a")),
        (({"order": "a"}, 1, "!z"), ({"order": "a"}, 2, "!a")),
        (({"order": "a"}, 1, "!a"), ({"order": "a"}, 1, "!z")),
        (({"order": "é"}, 1, "!z"), ({}, 2, "!a")),
        (({"order": 1}, 1, "!z"), ({"order": None}, 2, "!a")),
        (({"order": "x" * 50}, 9, "!z"), ({"order": "a" * 51}, 1, "!a")),
    ],
)
def test_one_child_stands_before_another(
    first: tuple[Json, int, str], second: tuple[Json, int, str]
) -> None:
    keys = ("content", "origin_server_ts", "state_key")
    one, other = dict(zip(keys, first, strict=True)), dict(zip(keys, second, strict=True))

    assert spaces.place(one) < spaces.place(other)  # times can't be set by HTTP


@pytest.mark.parametrize("content", [{}, {"via": []}, {"via": "localhost"}, {"via": [1]}])
def test_a_child_without_servers_is_none(
    login: Login, room: Callable[..., str], content: Json
) -> None:
    alice = login("alice")
    kitchen = room(alice)
    space = make_space(alice, kitchen)

    alice.set_state(space, "m.space.child", content, kitchen)

    assert told(alice, space)["rooms"][0]["children_state"] == []
    assert ids(alice, space) == [space]


def test_only_spaces_have_children(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    kitchen, table = room(alice), room(alice)
    add(alice, kitchen, table)

    (shown,) = told(alice, kitchen)["rooms"]

    assert (shown["room_id"], shown["children_state"]) == (kitchen, [])


def test_rooms_of_other_servers_are_children_but_not_rooms(login: Login) -> None:
    alice = login("alice")

    space = make_space(alice, "!far:example.org")

    (shown,) = told(alice, space)["rooms"]
    assert shown["children_state"][0]["state_key"] == "!far:example.org"


def test_a_loop_ends_and_each_room_comes_once(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    kitchen = room(alice)
    inner = make_space(alice, kitchen)
    space = make_space(alice, inner, kitchen)
    add(alice, inner, space)
    add(alice, inner, inner)

    assert ids(alice, space) == [space, inner, kitchen]


@pytest.mark.parametrize(("max_depth", "count"), [(0, 1), (1, 2), (2, 3), (3, 4), (99, 4)])
def test_the_tree_ends_at_the_depth_that_was_asked_for(
    login: Login, room: Callable[..., str], max_depth: int, count: int
) -> None:
    alice = login("alice")
    tree = [room(alice)]
    for _ in range(3):
        tree.insert(0, make_space(alice, tree[0]))

    found = told(alice, tree[0], max_depth=max_depth)["rooms"]

    assert [it["room_id"] for it in found] == tree[:count]
    assert all(it["children_state"] for it in found[:3])


def test_a_room_counts_as_deep_as_the_shortest_way_to_it(
    login: Login, room: Callable[..., str]
) -> None:
    alice = login("alice")
    kitchen = room(alice)
    shared = make_space(alice, kitchen)
    first = make_space(alice, shared)
    space = make_space(alice, first, shared)

    assert ids(alice, space, max_depth=2) == [space, first, shared, kitchen]


def test_only_what_is_suggested(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    kitchen, cellar, odd = room(alice), room(alice), room(alice)
    space = make_space(alice, cellar)
    add(alice, space, kitchen, suggested=True)
    add(alice, space, odd, suggested="yes")

    found = told(alice, space, suggested_only="true")["rooms"]

    assert [it["room_id"] for it in found] == [space, kitchen]
    assert [it["state_key"] for it in found[0]["children_state"]] == [kitchen]


RULES: list[tuple[str, dict[str, Any], bool]] = [
    ("public", {"join_rule": "public"}, True),
    ("invite", {"join_rule": "invite"}, False),
    ("knock", {"join_rule": "knock"}, True),
    ("knock_restricted", {"join_rule": "knock_restricted", "allow": []}, True),
    ("restricted", {"join_rule": "restricted", "allow": []}, False),
]


@pytest.mark.parametrize(("rule", "is_seen"), [it[1:] for it in RULES], ids=[it[0] for it in RULES])
def test_a_stranger_sees_what_they_could_join_or_knock_at(
    login: Login, rule: Json, is_seen: bool
) -> None:
    alice, bob = login("alice"), login("bob")
    child = alice.create_room(initial_state=[{"type": "m.room.join_rules", "content": rule}])
    space = make_space(alice, child)

    assert (child in ids(bob, space)) is is_seen
    assert told(bob, space)["rooms"][0]["children_state"][0]["state_key"] == child


@pytest.mark.parametrize(
    ("version", "rule", "is_seen"),
    [
        ("6", "knock", False),
        ("7", "knock", True),
        ("9", "knock_restricted", False),
        ("7", "restricted", False),
        ("8", "restricted", True),
    ],
)
def test_join_rules_count_where_the_version_knows_them(
    login: Login, version: str, rule: str, is_seen: bool
) -> None:
    alice, bob = login("alice"), login("bob")
    space = make_space(alice)
    bob.post(f"join/{quote(space)}")
    allow = [] if rule == "knock_restricted" else [{"type": "m.room_membership", "room_id": space}]
    content = {"join_rule": rule, "allow": allow}
    child = alice.create_room(
        room_version=version, initial_state=[{"type": "m.room.join_rules", "content": content}]
    )
    add(alice, space, child)

    assert (child in ids(bob, space)) is is_seen


def test_members_and_the_invited_see_a_private_room(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    child = alice.create_room(invite=[BOB])
    space = make_space(alice, child)

    seen = {who.user_id: child in ids(who, space) for who in (alice, bob, carol)}

    assert seen == {alice.user_id: True, bob.user_id: True, carol.user_id: False}


def test_everybody_sees_a_room_that_all_may_read(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    readable = {"history_visibility": "world_readable"}
    child = alice.create_room(
        initial_state=[{"type": "m.room.history_visibility", "content": readable}]
    )
    space = make_space(alice, child)

    assert ids(bob, space) == [space, child]


def test_who_is_banned_sees_neither_room_nor_space(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    child = room(alice)
    space = make_space(alice, child)
    act(alice, child, "ban", user_id=BOB)
    assert ids(bob, space) == [space]

    act(alice, space, "ban", user_id=BOB)

    assert refusal(ask(bob, space)) == (403, "M_FORBIDDEN")


def test_below_what_is_hidden_nothing_is_told(login: Login, room: Callable[..., str]) -> None:
    alice, bob = login("alice"), login("bob")
    child = room(alice)
    hidden = make_space(alice, child, preset="private_chat")
    space = make_space(alice, hidden)

    assert ids(bob, space) == [space]


@pytest.mark.parametrize("name", ["!none:localhost", "!private"])
def test_a_space_that_is_hidden_or_does_not_exist_is_refused_alike(login: Login, name: str) -> None:
    alice, bob = login("alice"), login("bob")
    space = make_space(alice, preset="private_chat") if name == "!private" else name

    assert refusal(ask(bob, space)) == (403, "M_FORBIDDEN")


def test_pages_together_are_the_whole_tree(login: Login, room: Callable[..., str]) -> None:
    alice = login("alice")
    inner = make_space(alice, *(room(alice) for _ in range(3)))
    space = make_space(alice, inner, room(alice), room(alice))
    whole = ids(alice, space)

    pages: list[list[str]] = []
    token: str | None = None
    while token is not None or not pages:
        query: Json = {"from": token} if token else {}
        page = told(alice, space, limit=2, max_depth=5, suggested_only="false", **query)
        pages.append([it["room_id"] for it in page["rooms"]])
        token = page.get("next_batch")

    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert [room_id for page in pages for room_id in page] == whole


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_of_a_tree_that_is_too_large_for_one_look_are_the_whole_tree(
    login: Login, room: Callable[..., str], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    alice, bob = login("alice"), login("bob")
    hidden = room(alice, preset="private_chat")
    inner = make_space(alice, *(room(alice) for _ in range(3)), hidden)
    space = make_space(alice, inner, *(room(alice) for _ in range(4)), inner)
    whole = ids(bob, space)
    monkeypatch.setattr(spaces, "MAX_ROOMS", 2)

    page = told(bob, space, limit=limit)
    found = [it["room_id"] for it in page["rooms"]]
    while "next_batch" in page:
        page = told(bob, space, limit=limit, **{"from": page["next_batch"]})
        found += [it["room_id"] for it in page["rooms"]]

    assert len(whole) == 9
    assert sorted(found) == sorted(whole)


def test_a_tree_that_was_looked_at_whole_ends(
    login: Login, room: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = login("alice")
    space = make_space(alice, *(room(alice) for _ in range(3)))
    monkeypatch.setattr(spaces, "MAX_ROOMS", 4)

    page = told(alice, space)

    assert len(page["rooms"]) == 4
    assert "next_batch" not in page


@pytest.mark.parametrize(
    "query",
    [
        {"max_depth": 2},
        {"suggested_only": "true"},
        {"from": "made up"},
        {"from": "5-0-99999999999"},
        {"limit": 0},
        {"limit": "x"},
        {"max_depth": -1},
        {"suggested_only": "maybe"},
    ],
)
def test_what_changes_between_pages_or_makes_no_sense_is_refused(
    login: Login, room: Callable[..., str], query: Json
) -> None:
    alice = login("alice")
    space = make_space(alice, room(alice))
    asked = {"max_depth": 5, "limit": 1}
    token = told(alice, space, **asked)["next_batch"]

    answer = ask(alice, space, **{**asked, "from": token, **query})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_more_rooms_take_no_more_queries(
    login: Login, room: Callable[..., str], statements: list[str]
) -> None:
    alice = login("alice")
    small = make_space(alice, room(alice))
    large = make_space(alice, *(room(alice) for _ in range(12)))
    ids(alice, small)  # the token is looked up once

    statements.clear()
    ids(alice, small)
    few = len(statements)
    assert len(ids(alice, large)) == 13

    assert len(statements) - few == few < 15
