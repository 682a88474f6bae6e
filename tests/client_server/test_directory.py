"""The directory of published rooms, and summaries of rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, refusal, unchanged

Room = Callable[..., str]
BOB = "@bob:localhost"


def names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.get_json()
    return [room["name"] for room in answer.get_json()["chunk"]]


def publish(person: Person, name: str, **options: Any) -> str:
    return person.create_room(name=name, visibility="public", **options)


def summary(person: Person, room_id_or_alias: str) -> Any:
    return person.get(f"/_matrix/client/v1/room_summary/{room_id_or_alias}")


def test_a_room_is_published_and_withdrawn(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="x")
    path = f"directory/list/room/{room_id}"
    anybody = app.test_client()
    before = anybody.get(f"/_matrix/client/v3/{path}").get_json()

    for body, visibility in (({}, "public"), ({"visibility": "private"}, "private")):
        answer = alice.put(path, json=body)
        assert (answer.status_code, answer.get_json()) == (200, {})
        assert anybody.get(f"/_matrix/client/v3/{path}").get_json() == {"visibility": visibility}

    assert before == {"visibility": "private"}


def test_only_who_manages_the_room_publishes_it(app: Application, login: Login, room: Room) -> None:
    admin, alice, bob = login("admin"), login("alice"), login("bob")
    room_id = room(alice, bob)
    path = f"directory/list/room/{room_id}"

    with unchanged(app):
        answers = [
            bob.put(path, json={}),
            alice.put(path, json={"visibility": "hidden"}),
            alice.put("directory/list/room/!nowhere:localhost", json={}),
            alice.get("directory/list/room/!nowhere:localhost"),
        ]

    assert [refusal(answer) for answer in answers] == [
        (403, "M_FORBIDDEN"),
        (400, "M_BAD_JSON"),
        (404, "M_NOT_FOUND"),
        (404, "M_NOT_FOUND"),
    ]
    assert admin.put(path, json={}).status_code == 200


def test_a_published_room_shows_what_it_is(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = publish(
        alice,
        "Cats",
        topic="All about cats",
        room_alias_name="cats",
        creation_content={"type": "org.example.cats"},
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://localhost/cat"}},
            {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
            {
                "type": "m.room.history_visibility",
                "content": {"history_visibility": "world_readable"},
            },
        ],
    )

    answer = app.test_client().get("/_matrix/client/v3/publicRooms")

    assert answer.get_json() == {
        "chunk": [
            {
                "room_id": room_id,
                "name": "Cats",
                "topic": "All about cats",
                "canonical_alias": "#cats:localhost",
                "avatar_url": "mxc://localhost/cat",
                "guest_can_join": True,
                "world_readable": True,
                "join_rule": "public",
                "room_type": "org.example.cats",
                "num_joined_members": 1,
            }
        ],
        "total_room_count_estimate": 1,
    }


def test_state_of_odd_shapes_does_no_harm(login: Login) -> None:
    alice = login("alice")
    odd = ("name", "topic", "avatar", "guest_access", "join_rules", "encryption")
    content = {"name": 5, "topic": ["x"], "url": {}, "join_rule": ["x"], "algorithm": None}
    room_id = alice.create_room(
        visibility="public",
        initial_state=[{"type": f"m.room.{kind}", "content": content} for kind in odd],
    )

    [chunk] = alice.get("publicRooms").get_json()["chunk"]
    preview = summary(alice, room_id).get_json()

    assert chunk == {
        "room_id": room_id,
        "guest_can_join": False,
        "world_readable": False,
        "join_rule": "invite",
        "num_joined_members": 1,
    }
    assert preview == {**chunk, "room_version": "11", "membership": "join"}


def test_the_fullest_rooms_come_first_and_empty_ones_not_at_all(login: Login) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    publish(alice, "one")
    two, three, none = publish(alice, "two"), publish(alice, "three"), publish(alice, "none")
    for who, room_id in ((bob, two), (bob, three), (carol, three)):
        act(who, room_id, "join")

    act(alice, none, "leave")

    assert names(alice.get("publicRooms")) == ["three", "two", "one"]


def test_an_empty_token_begins_at_the_first_page(login: Login) -> None:
    alice = login("alice")
    publish(alice, "Garden")

    answers = [alice.get("publicRooms?since="), alice.post("publicRooms", json={"since": ""})]

    assert [names(answer) for answer in answers] == [["Garden"], ["Garden"]]


def test_pages_lead_forth_and_back(login: Login) -> None:
    alice = login("alice")
    for name in "abcde":
        publish(alice, name)
    everything = names(alice.get("publicRooms"))

    first = alice.get("publicRooms?limit=2")
    token = first.get_json()["next_batch"]
    second = alice.post("publicRooms", json={"limit": 2, "since": token})
    third = alice.get(f"publicRooms?limit=2&since={second.get_json()['next_batch']}")
    back = alice.get(f"publicRooms?limit=2&since={second.get_json()['prev_batch']}")

    assert names(first) + names(second) + names(third) == everything
    assert names(back) == names(first)
    assert "prev_batch" not in first.get_json()
    assert "next_batch" not in third.get_json()
    assert third.get_json()["total_room_count_estimate"] == 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"generic_search_term": "CAT"}, {"Cats", "Pets"}),
        ({"generic_search_term": "dog"}, {"Dogs"}),
        ({"generic_search_term": "#dogs:local"}, {"Dogs"}),
        ({"generic_search_term": "%"}, set()),
        ({"generic_search_term": ""}, {"Cats", "Dogs", "Pets"}),
        ({"room_types": ["m.space"]}, {"Pets"}),
        ({"room_types": [None]}, {"Cats", "Dogs"}),
        ({"room_types": [None, "m.space"]}, {"Cats", "Dogs", "Pets"}),
        ({"room_types": []}, set()),
        ({"room_types": ["m.space"], "generic_search_term": "dog"}, set()),
    ],
)
def test_the_directory_is_searched(login: Login, body: Json, expected: set[str]) -> None:
    alice = login("alice")
    publish(alice, "Cats")
    publish(alice, "Dogs", room_alias_name="dogs")
    publish(alice, "Pets", topic="From cat to cow", creation_content={"type": "m.space"})

    answer = alice.post("publicRooms", json={"filter": body})

    assert set(names(answer)) == expected
    assert answer.get_json()["total_room_count_estimate"] == len(expected)


def test_rooms_of_other_networks_are_none(login: Login) -> None:
    alice = login("alice")
    publish(alice, "Cats")

    answer = alice.post("publicRooms", json={"third_party_instance_id": "irc"})

    assert names(answer) == []


@pytest.mark.parametrize(
    ("method", "query", "body", "expected"),
    [
        ("GET", "limit=-1", None, (400, "M_INVALID_PARAM")),
        ("GET", "limit=many", None, (400, "M_INVALID_PARAM")),
        ("GET", "since=s123", None, (400, "M_INVALID_PARAM")),
        ("GET", "since=-1", None, (400, "M_INVALID_PARAM")),
        ("GET", "since=99999999999", None, (400, "M_INVALID_PARAM")),
        ("GET", "server=elsewhere.example", None, (403, "M_FORBIDDEN")),
        ("POST", "server=elsewhere.example", {}, (403, "M_FORBIDDEN")),
        ("POST", "", {"limit": -1}, (400, "M_INVALID_PARAM")),
        ("POST", "", {"limit": "1"}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": []}, (400, "M_BAD_JSON")),
        ("POST", "", {"filter": {"room_types": [5]}}, (400, "M_BAD_JSON")),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(
    login: Login, method: str, query: str, body: Json | None, expected: tuple[int, str]
) -> None:
    alice = login("alice")

    answer = alice.request(method, f"publicRooms?{query}", json=body)

    assert refusal(answer) == expected


def test_this_server_may_be_named(login: Login) -> None:
    alice = login("alice")
    publish(alice, "Cats")

    assert names(alice.get("publicRooms?server=localhost&limit=0")) == ["Cats"]


def test_the_number_of_queries_does_not_grow_with_the_rooms(
    login: Login, statements: list[str]
) -> None:
    alice = login("alice")

    def queries() -> int:
        statements.clear()
        assert alice.post("publicRooms", json={"filter": {"room_types": [None]}}).status_code == 200
        return len(statements)

    publish(alice, "first")
    queries()  # the first one authenticates as well
    one = queries()
    for name in "abcdefgh":
        publish(alice, name)

    assert queries() == one


def test_a_summary_tells_more_than_the_directory(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    space = alice.create_room()
    allow = [{"type": "m.room_membership", "room_id": space}]
    encryption = {"algorithm": "m.megolm.v1.aes-sha2"}
    room_id = alice.create_room(
        name="Cats",
        invite=[BOB],
        initial_state=[
            {"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}},
            {"type": "m.room.encryption", "content": encryption},
        ],
    )

    answer = summary(bob, room_id)

    assert answer.get_json() == {
        "room_id": room_id,
        "name": "Cats",
        "num_joined_members": 1,
        "guest_can_join": True,
        "world_readable": False,
        "join_rule": "restricted",
        "allowed_room_ids": [space],
        "room_version": "11",
        "encryption": "m.megolm.v1.aes-sha2",
        "membership": "invite",
    }


def test_anybody_may_see_the_summary_of_an_open_room(app: Application, login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(preset="public_chat", room_alias_name="cats")

    answer = app.test_client().get("/_matrix/client/v1/room_summary/%23cats:localhost")

    assert answer.get_json()["room_id"] == room_id
    assert "membership" not in answer.get_json()
    assert summary(alice, room_id).get_json()["membership"] == "join"


@pytest.mark.parametrize("path", ["summary/{}", "rooms/{}/summary"])
def test_the_paths_of_the_proposal_give_the_summary_with_its_names(
    app: Application, login: Login, path: str
) -> None:
    alice = login("alice")
    encryption = {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room_id = alice.create_room(
        preset="public_chat", room_alias_name="cats", initial_state=[encryption]
    )
    prefix = "/_matrix/client/unstable/im.nheko.summary/"

    mine = alice.get(prefix + path.format(room_id)).get_json()
    by_alias = app.test_client().get(prefix + path.format("%23cats:localhost")).get_json()
    unknown = alice.get(prefix + path.format("%23dogs:localhost"))

    stable = summary(alice, room_id).get_json()
    assert mine.pop("im.nheko.summary.room_version") == stable.pop("room_version")
    assert mine.pop("im.nheko.summary.encryption") == stable.pop("encryption")
    assert mine == stable
    assert by_alias["room_id"] == room_id
    assert "membership" not in by_alias
    assert refusal(unknown) == (404, "M_NOT_FOUND")


def test_the_summary_of_a_closed_room_is_for_those_who_could_come_in(
    app: Application, login: Login
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    space = alice.create_room(preset="public_chat")
    act(carol, space, "join")
    closed = alice.create_room()
    allow = [{"type": "m.room_membership", "room_id": space}]
    content = {"join_rule": "restricted", "allow": allow}
    alice.set_state(closed, "m.room.join_rules", content)

    answers = [
        summary(bob, closed),
        app.test_client().get(f"/_matrix/client/v1/room_summary/{closed}"),
        summary(alice, "!nowhere:localhost"),
        summary(alice, "%23nowhere:localhost"),
    ]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 4
    assert summary(carol, closed).status_code == 200
    assert refusal(summary(alice, "nowhere")) == (400, "M_INVALID_PARAM")


def test_who_is_banned_from_a_closed_room_sees_no_summary_of_it(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    space = alice.create_room(preset="public_chat")
    act(bob, space, "join")
    closed, opened = alice.create_room(), alice.create_room(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space}]
    content = {"join_rule": "restricted", "allow": allow}
    alice.set_state(closed, "m.room.join_rules", content)
    before = summary(bob, closed)

    for room_id in (closed, opened):
        act(alice, room_id, "ban", user_id=bob.user_id)

    assert before.status_code == 200
    assert refusal(summary(bob, closed)) == (404, "M_NOT_FOUND")
    assert summary(bob, opened).get_json()["membership"] == "ban"  # as anybody may see it
