"""Rooms that only other servers are in are shown in spaces, and by themselves."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.federation import remote_rooms
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.network import Network
from tests.helpers.remote import Remote, Remotes
from tests.helpers.rooms import Json, refusal
from tests.helpers.scripted_server import Response

NOT_FOUND = (404, "M_NOT_FOUND")
HOUSE, KITCHEN, GARDEN, SHED = "!house:b.test", "!kitchen:b.test", "!garden:b.test", "!shed:c.test"


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def c(remote: Remotes) -> Remote:
    return remote("c.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


def room(room_id: str, **fields: Any) -> Json:
    """Return a summary."""
    return {
        "room_id": room_id,
        "num_joined_members": 2,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
        **fields,
    }


def space(room_id: str, **fields: Any) -> Json:
    return room(room_id, room_type="m.space", **fields)


def child(room_id: str, *via: str, ts: int = 1, **content: Any) -> Json:
    return {
        "type": "m.space.child",
        "state_key": room_id,
        "sender": "@carol:b.test",
        "content": {"via": list(via or ("b.test",)), **content},
        "origin_server_ts": ts,
    }


def has(remote: Remote, described: Json, *children: Json, state: list[Json], **more: Any) -> None:
    """Let a server describe a room."""
    remote.hierarchies[described["room_id"]] = {
        "room": {**described, "children_state": state},
        "children": list(children),
        "inaccessible_children": [],
        **more,
    }


def make_space(person: Person, *children: Json) -> str:
    """Return a space of this server with these rooms."""
    found = person.create_room(preset="public_chat", creation_content={"type": "m.space"})
    for it in children:
        answer = person.set_state(found, "m.space.child", it["content"], it["state_key"])
        assert answer.status_code == 200, answer.get_json()
    return found


def page(person: Person, room_id: str, **query: Any) -> Json:
    path = f"/_matrix/client/v1/rooms/{quote(room_id)}/hierarchy"
    answer = person.get(path, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def ids(body: Json) -> list[str]:
    return [it["room_id"] for it in body["rooms"]]


def test_rooms_of_other_servers_are_shown_in_a_space(b: Remote, alice: Person) -> None:
    kitchen = alice.create_room(preset="public_chat")
    has(b, room(GARDEN, name="Garden"), state=[])
    house = make_space(
        alice, child(kitchen, "localhost", order="a"), child(GARDEN, "b.test", order="b")
    )

    found = page(alice, house)

    assert ids(found) == [house, kitchen, GARDEN]
    assert found["rooms"][2] == room(GARDEN, name="Garden", children_state=[])
    (request,) = b.received("hierarchy")
    assert request.query == {"suggested_only": ["false"]}


def test_a_space_elsewhere_is_followed_over_several_servers(
    b: Remote, c: Remote, alice: Person
) -> None:
    inner = space("!inner:c.test")
    state = [child(inner["room_id"], "c.test", ts=2), child(KITCHEN, ts=1)]
    has(b, space(HOUSE), room(KITCHEN), inner, state=state)
    has(c, inner, room(SHED), state=[child(SHED, "c.test")])

    found = page(alice, HOUSE)

    assert ids(found) == [HOUSE, KITCHEN, inner["room_id"], SHED]
    assert [len(it["children_state"]) for it in found["rooms"]] == [2, 0, 1, 0]
    assert [len(it.received("hierarchy")) for it in (b, c)] == [1, 1]


def test_what_others_say_is_kept_for_a_while(b: Remote, alice: Person, login: Login) -> None:
    has(b, space(HOUSE), room(KITCHEN), state=[child(KITCHEN)])

    pages = [page(person, HOUSE) for person in (alice, alice, login("bob"))]

    assert [ids(it) for it in pages] == [[HOUSE, KITCHEN]] * 3
    assert len(b.received("hierarchy")) == 1


def test_a_room_that_another_server_shows_a_moment_later_appears(b: Remote, alice: Person) -> None:
    house = make_space(alice, child(GARDEN, "b.test"))
    before = ids(page(alice, house))
    has(b, room(GARDEN), state=[])

    after = ids(page(alice, house))

    assert (before, after) == ([house], [house, GARDEN])


def test_only_what_is_on_the_page_is_asked_for(b: Remote, c: Remote, alice: Person) -> None:
    has(b, room(KITCHEN), state=[])
    has(c, room(SHED), state=[])
    house = make_space(alice, child(KITCHEN, "b.test", order="a"), child(SHED, "c.test", order="b"))

    first = page(alice, house, limit=2)
    asked = len(c.received("hierarchy"))
    second = page(alice, house, limit=2, **{"from": first["next_batch"]})

    assert (ids(first), ids(second)) == ([house, KITCHEN], [SHED])
    assert asked == 0
    assert "next_batch" not in second


def test_only_suggested_rooms_are_asked_for(b: Remote, c: Remote, alice: Person) -> None:
    state = [child(KITCHEN, suggested=True), child(SHED, "c.test")]
    has(b, space(HOUSE), room(KITCHEN), room(SHED), state=state)

    found = page(alice, HOUSE, suggested_only="true")

    assert ids(found) == [HOUSE, KITCHEN]
    assert b.received("hierarchy")[0].query == {"suggested_only": ["true"]}
    assert not c.received("hierarchy")


def test_children_that_are_not_accessible_are_not_asked_for(
    b: Remote, c: Remote, alice: Person
) -> None:
    has(b, space(HOUSE), state=[child(SHED, "c.test")], inaccessible_children=[SHED])

    assert ids(page(alice, HOUSE)) == [HOUSE]
    assert not c.received("hierarchy")


@pytest.mark.parametrize(
    ("fields", "is_shown"),
    [
        ({"join_rule": "invite"}, False),
        ({"join_rule": "private"}, False),
        ({"join_rule": "invite", "world_readable": True}, True),
        ({"join_rule": "knock"}, True),
        ({"join_rule": "restricted", "allowed_room_ids": ["!elsewhere:b.test"]}, False),
        ({"join_rule": "knock_restricted", "room_version": "10"}, True),
        ({"join_rule": "knock", "room_version": "6"}, False),
        ({"join_rule": "knock", "room_version": "org.example.new"}, True),
        ({"join_rule": None}, True),
    ],
)
def test_a_user_sees_only_what_they_could_join_or_read(
    b: Remote, alice: Person, fields: Json, is_shown: bool
) -> None:
    has(b, space(HOUSE), room(KITCHEN, **fields), state=[child(KITCHEN)])

    assert ids(page(alice, HOUSE)) == [HOUSE, KITCHEN][: 1 + is_shown]


def test_members_of_an_allowed_room_see_a_restricted_one(
    b: Remote, alice: Person, login: Login
) -> None:
    house = make_space(alice, child(KITCHEN, "b.test"))
    has(b, room(KITCHEN, join_rule="restricted", allowed_room_ids=[house]), state=[])

    assert ids(page(alice, house)) == [house, KITCHEN]
    assert ids(page(login("bob"), house)) == [house]


def test_a_server_that_does_not_know_a_room_is_followed_by_the_next(
    b: Remote, c: Remote, alice: Person
) -> None:
    has(c, room(SHED), state=[])
    house = make_space(alice, child(SHED, "localhost", "b.test", "c.test"))

    assert ids(page(alice, house)) == [house, SHED]


def test_a_server_that_fails_is_asked_once_a_minute(b: Remote, alice: Person) -> None:
    b.fail("hierarchy", 500)
    house = make_space(alice, child(KITCHEN, "b.test", "no server", "127.0.0.1:9"))

    assert [ids(page(alice, house)) for _ in range(2)] == [[house]] * 2
    assert len(b.received("hierarchy")) == 1


def test_a_space_that_nobody_knows_is_refused(b: Remote, alice: Person) -> None:
    path = "/_matrix/client/v1/rooms/{}/hierarchy"

    for unknown in (HOUSE, "!" + "a" * 43, "!nowhere:localhost", "nonsense"):
        assert refusal(alice.get(path.format(unknown))) == (403, "M_FORBIDDEN")


def test_servers_that_hang_are_left_out(
    b: Remote, c: Remote, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_rooms, "SERVER_SECONDS", 0.5)
    monkeypatch.setattr(remote_rooms, "PAGE_SECONDS", 0.7)
    has(c, room(SHED), state=[])
    b.hang("hierarchy")
    hanging = [child(f"!{number}:b.test", "b.test") for number in range(4)]
    house = make_space(alice, *hanging, child(SHED, "c.test"))

    began = time.monotonic()
    found = page(alice, house)

    assert ids(found) == [house, SHED]
    assert time.monotonic() - began < 5


def test_a_room_is_listed_once_even_in_a_loop(b: Remote, alice: Person) -> None:
    inner = space("!inner:b.test")
    has(b, space(HOUSE), inner, space(HOUSE), state=[child(inner["room_id"]), child(HOUSE)])
    has(b, inner, space(HOUSE), state=[child(HOUSE)])

    assert ids(page(alice, HOUSE)) == [HOUSE, inner["room_id"]]


def test_the_depth_is_limited(b: Remote, alice: Person) -> None:
    inner = space("!inner:b.test")
    has(b, space(HOUSE), inner, state=[child(inner["room_id"])])
    has(b, inner, room(KITCHEN), state=[child(KITCHEN)])

    found = page(alice, HOUSE, max_depth=1)

    assert ids(found) == [HOUSE, inner["room_id"]]
    assert len(found["rooms"][1]["children_state"]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Response(200, []),
        Response(200, {}),
        Response(200, {"room": 5}),
        Response(200, {"room": room(KITCHEN), "children": []}),
        Response(200, {"room": {"room_id": HOUSE}}),
        Response(200, b"{"),
        Response(500, {}),
    ],
)
def test_what_does_not_describe_the_room_is_nothing(
    b: Remote, alice: Person, answer: Response
) -> None:
    b.answer("hierarchy", answer)

    response = alice.get(f"/_matrix/client/v1/rooms/{HOUSE}/hierarchy")

    assert refusal(response) == (403, "M_FORBIDDEN")


def test_what_is_not_valid_in_a_response_is_left_out(b: Remote, alice: Person) -> None:
    good = child(KITCHEN)
    wrong: list[Any] = [
        *(5, {}, {**good, "type": "m.space.parent"}, {**good, "state_key": "kitchen"}),
        *({**good, "content": {}}, {**good, "content": {"via": "b.test"}}),
        *({**good, "origin_server_ts": "1"}, {**good, "sender": 5}, {**good, "sender": "carol"}),
    ]
    stranger = room("!stranger:b.test")
    has(b, space(HOUSE), room(KITCHEN), stranger, {"room_id": 5}, state=[*wrong, good])
    b.hierarchies[HOUSE]["inaccessible_children"] = [5, {}, "!other:b.test"]

    (house, kitchen) = page(alice, HOUSE)["rooms"]

    assert house["children_state"] == [good]
    assert kitchen["room_id"] == KITCHEN


# summaries


def summary(person: Person, room_id_or_alias: str, **query: Any) -> Any:
    path = f"/_matrix/client/v1/room_summary/{quote(room_id_or_alias)}"
    return person.get(path, query_string=query)


def test_a_room_elsewhere_is_described_by_a_server_in_it(
    b: Remote, c: Remote, alice: Person
) -> None:
    has(c, room(KITCHEN, name="Kitchen"), state=[])

    by_via = summary(alice, KITCHEN, via=["localhost", "c.test"]).get_json()

    assert by_via == room(KITCHEN, name="Kitchen")


def test_what_one_server_says_is_not_kept_for_others(
    b: Remote, c: Remote, alice: Person, login: Login
) -> None:
    has(b, room(KITCHEN, name="Kitchen"), state=[])
    has(c, room(KITCHEN, name="A lie"), state=[])

    lie = summary(alice, KITCHEN, via="c.test").get_json()
    truth = summary(login("bob"), KITCHEN).get_json()

    assert (lie["name"], truth["name"]) == ("A lie", "Kitchen")


def test_an_alias_elsewhere_is_resolved_first(b: Remote, alice: Person) -> None:
    b.aliases["#kitchen:b.test"] = KITCHEN
    has(b, room(KITCHEN, name="Kitchen"), state=[])

    assert summary(alice, "#kitchen:b.test").get_json() == room(KITCHEN, name="Kitchen")
    assert refusal(summary(alice, "#shed:b.test")) == NOT_FOUND


def test_a_private_room_elsewhere_is_not_shown(b: Remote, alice: Person) -> None:
    has(b, room(KITCHEN, join_rule="invite"), state=[])

    assert refusal(summary(alice, KITCHEN)) == NOT_FOUND
    assert refusal(summary(alice, SHED, via="b.test")) == NOT_FOUND


def test_a_summary_elsewhere_needs_no_account(app: Application, b: Remote) -> None:
    has(b, room(KITCHEN), state=[])

    answer = app.test_client().get(f"/_matrix/client/v1/room_summary/{KITCHEN}")

    assert answer.get_json() == room(KITCHEN)


def test_without_federation_only_own_rooms_are_shown(make_app: MakeApp, remote: Remotes) -> None:
    app = make_app(**{**remote.settings, "federation": "false"})

    answer = app.test_client().get(f"/_matrix/client/v1/room_summary/{KITCHEN}")

    assert refusal(answer) == NOT_FOUND


def test_two_servers_show_each_others_spaces(two_servers: Network) -> None:
    a, b = two_servers["a.test"], two_servers["b.test"]
    alice, bob = a.person("alice"), b.person("bob")
    kitchen = bob.create_room(preset="public_chat", name="Kitchen")
    secret = bob.create_room(preset="private_chat", name="Secret")
    house = bob.create_room(preset="public_chat", creation_content={"type": "m.space"})
    for it in (kitchen, secret):
        path = f"/rooms/{quote(house)}/state/m.space.child/{quote(it)}"
        bob.ask("PUT", path, {"via": ["b.test"]})

    found = alice.ask("GET", f"/_matrix/client/v1/rooms/{quote(house)}/hierarchy")
    shown = alice.ask("GET", f"/_matrix/client/v1/room_summary/{quote(kitchen)}?via=b.test")

    assert ids(found) == [house, kitchen]
    assert shown["name"] == "Kitchen"
