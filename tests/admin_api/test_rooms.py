"""Rooms as administration tools list, read, block and change them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core import audit
from homebody.core.rooms import membership as memberships
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.spec.room_versions import VERSIONS
from homebody.storage.expressions import batches
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, act, membership, refusal, state_of, unchanged

MakeRoom = Callable[..., str]
ROOMS = "/_synapse/admin/v1/rooms"
JOIN = "/_synapse/admin/v1/join"
KEYS = {
    "room_id",
    "name",
    "canonical_alias",
    "joined_members",
    "joined_local_members",
    "version",
    "creator",
    "encryption",
    "federatable",
    "public",
    "join_rules",
    "guest_access",
    "history_visibility",
    "state_events",
    "room_type",
}
UNKNOWN = "!unknown:localhost"
CREATE = {"room_version": "10", "creator": "@owner:localhost"}


def at(room_id: str, end: str = "") -> str:
    return f"{ROOMS}/{quote(room_id)}{end}"


def listed(admin: Person, **query: object) -> list[Json]:
    answer = admin.get(ROOMS, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    rooms: list[Json] = answer.get_json()["rooms"]
    return rooms


def names(admin: Person, **query: object) -> list[Any]:
    return [room["name"] for room in listed(admin, **query)]


def audited(app: Application) -> list[tuple[str, str]]:
    """(action, subject) of the audit log, newest first."""
    with app.homeserver.database.read() as tx:
        return [(it["action"], it["subject"]) for it in audit.latest(tx, 20)]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ROOMS),
        ("GET", at(UNKNOWN)),
        ("GET", at(UNKNOWN, "/members")),
        ("GET", at(UNKNOWN, "/state")),
        ("GET", at(UNKNOWN, "/block")),
        ("PUT", at(UNKNOWN, "/block")),
        ("POST", at(UNKNOWN, "/make_room_admin")),
        ("POST", f"{JOIN}/{quote(UNKNOWN)}"),
        ("GET", at(UNKNOWN, "/forward_extremities")),
        ("DELETE", at(UNKNOWN, "/forward_extremities")),
        ("GET", at(UNKNOWN, "/messages")),
        ("GET", at(UNKNOWN, "/context/$e")),
        ("GET", at(UNKNOWN, "/timestamp_to_event")),
        ("GET", at(UNKNOWN, "/hierarchy")),
        ("GET", "/_synapse/admin/v1/fetch_event/$e"),
    ],
)
def test_only_administrators_may_call_it(
    app: Application, alice: Person, method: str, path: str
) -> None:
    with unchanged(app):
        assert refusal(alice.client.open(path, method=method)) == (401, "M_MISSING_TOKEN")
        assert refusal(alice.request(method, path, data=b"{")) == (403, "M_FORBIDDEN")


def test_the_list_has_each_room_with_its_properties(
    app: Application, admin: Person, alice: Person, room: MakeRoom
) -> None:
    room_id = room(
        alice,
        admin,
        name="Tea",
        room_alias_name="tea",
        creation_content={"type": "m.space", "m.federate": False},
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1"}}],
    )
    alice.put(f"directory/list/room/{quote(room_id)}", json={"visibility": "public"})
    bare = admin.create_room()

    answer = admin.get(ROOMS).get_json()

    assert (answer["total_rooms"], answer["offset"]) == (2, 0)
    assert not {"next_batch", "prev_batch"} & answer.keys()
    first, second = answer["rooms"]
    assert first.keys() == second.keys() == KEYS
    assert (first["room_id"], first["name"], first["canonical_alias"]) == (bare, None, None)
    assert (first["room_type"], first["public"], first["encryption"]) == (None, False, None)
    assert first["federatable"] is True
    assert second["room_id"] == room_id
    assert {key: second[key] for key in KEYS - {"room_id", "state_events"}} == {
        "name": "Tea",
        "canonical_alias": "#tea:localhost",
        "joined_members": 2,
        "joined_local_members": 2,
        "version": app.homeserver.server.config.default_room_version,
        "creator": alice.user_id,
        "encryption": "m.megolm.v1",
        "federatable": False,
        "public": True,
        "join_rules": "public",
        "guest_access": None,
        "history_visibility": "shared",
        "room_type": "m.space",
    }
    assert second["state_events"] == len(state_of(alice, room_id))


def test_the_list_comes_in_pages(admin: Person) -> None:
    for number in range(5):
        admin.create_room(name=f"room {number}")

    first = admin.get(ROOMS, query_string={"limit": 2}).get_json()
    second = admin.get(ROOMS, query_string={"limit": 2, "from": first["next_batch"]}).get_json()
    last = admin.get(ROOMS, query_string={"limit": 2, "from": 4}).get_json()
    total = admin.get(ROOMS, query_string={"limit": 0}).get_json()

    assert [it["name"] for it in first["rooms"]] == ["room 0", "room 1"]
    assert [it["name"] for it in second["rooms"]] == ["room 2", "room 3"]
    assert [it["name"] for it in last["rooms"]] == ["room 4"]
    assert (first["next_batch"], second["prev_batch"], second["next_batch"]) == (2, 0, 4)
    assert (last["prev_batch"], last["offset"], last["total_rooms"]) == (2, 4, 5)
    assert "next_batch" not in last
    assert "prev_batch" not in first
    assert (total["rooms"], total["total_rooms"]) == ([], 5)


def test_the_list_is_sorted_by_any_property(admin: Person, alice: Person, room: MakeRoom) -> None:
    room(admin, name="b", topic="x")
    room(admin, alice, name="a", room_version="10")
    admin.create_room(name="c", room_version="9")

    assert names(admin) == ["a", "b", "c"]
    assert names(admin, dir="b") == ["c", "b", "a"]
    assert names(admin, order_by="alphabetical") == ["a", "b", "c"]
    assert names(admin, order_by="size")[0] == "a"
    assert names(admin, order_by="joined_local_members")[0] == "a"
    assert names(admin, order_by="joined_members", dir="b")[-1] == "a"
    assert names(admin, order_by="version") == ["c", "b", "a"]  # as texts: 9, 12, 10
    assert names(admin, order_by="join_rules")[0] == "c"
    for order in ("canonical_alias", "creator", "encryption", "federatable", "public"):
        assert sorted(names(admin, order_by=order)) == ["a", "b", "c"]
    for order in ("guest_access", "history_visibility", "state_events"):
        assert sorted(names(admin, order_by=order)) == ["a", "b", "c"]


def test_rooms_are_found_by_name_by_alias_and_by_their_exact_id(admin: Person) -> None:
    tea = admin.create_room(name="Tea Party", room_alias_name="afternoon")
    admin.create_room(name="Coffee")

    assert names(admin, search_term="teA") == ["Tea Party"]
    assert names(admin, search_term="noon") == ["Tea Party"]
    assert names(admin, search_term=tea) == ["Tea Party"]
    assert names(admin, search_term=tea[:-1]) == []
    assert names(admin, search_term="localhost") == []


def test_the_list_can_be_limited_to_public_and_to_empty_rooms(admin: Person, alice: Person) -> None:
    public = admin.create_room(name="public", visibility="public")
    empty = alice.create_room(name="empty")
    act(alice, empty, "leave")

    assert names(admin, public_rooms="true") == ["public"]
    assert names(admin, public_rooms="false") == ["empty"]
    assert names(admin, empty_rooms="true") == ["empty"]
    assert names(admin, empty_rooms="false") == ["public"]
    assert public != empty


@pytest.mark.parametrize(
    "query",
    [
        "search_term=",
        "order_by=colour",
        "dir=up",
        "limit=-1",
        "from=-1",
        "limit=many",
        "public_rooms=1",
        "empty_rooms=maybe",
    ],
)
def test_a_wrong_parameter_of_the_list_is_refused(admin: Person, query: str) -> None:
    assert refusal(admin.get(f"{ROOMS}?{query}")) == (400, "M_INVALID_PARAM")


def test_unknown_parameters_are_passed_over(admin: Person) -> None:
    assert admin.get(f"{ROOMS}?colour=blue&order=up").status_code == 200


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.big)])
def test_a_long_list_is_read_in_few_statements(
    app: Application, admin: Person, statements: list[str], count: int
) -> None:
    for some in batches(range(count), 50):
        with app.homeserver.database.write() as tx:
            for number in some:
                draft = Draft(f"!r{number}:localhost", admin.user_id, "m.room.create", CREATE, "")
                room_id = sending.create(tx, VERSIONS["10"], draft)
                memberships.join(tx, room_id, admin.user_id)
                name = {"name": f"room {number:04}"}
                sending.send(tx, Draft(room_id, admin.user_id, "m.room.name", name, ""))
    queries: list[Json] = [
        {},
        {"order_by": "joined_members"},
        {"order_by": "creator", "search_term": "1", "empty_rooms": "false"},
    ]
    for query in queries:
        admin.get(ROOMS, query_string=query)
        statements.clear()
        began = time.thread_time()

        page = admin.get(ROOMS, query_string=query).get_json()

        spent = time.thread_time() - began
        assert page["total_rooms"] > count / 4
        assert len(statements) <= 10, statements
        assert spent < 0.2


def test_the_details_of_a_room_say_more_than_the_list(
    admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    login("alice")  # a second device
    room_id = room(alice, admin, topic="teas")
    alice.set_state(room_id, "m.room.avatar", {"url": "mxc://localhost/a"})

    found = admin.get(at(room_id)).get_json()

    assert found.keys() == KEYS | {
        *("avatar", "topic", "joined_local_devices", "forgotten", "tombstoned", "replacement_room")
    }
    assert (found["topic"], found["avatar"]) == ("teas", "mxc://localhost/a")
    assert found["joined_local_devices"] == 3
    assert (found["forgotten"], found["tombstoned"], found["replacement_room"]) == (
        False,
        False,
        None,
    )
    assert refusal(admin.get(at(UNKNOWN))) == (404, "M_NOT_FOUND")


def test_the_details_tell_of_a_replaced_room_and_of_one_that_all_have_forgotten(
    admin: Person, alice: Person
) -> None:
    room_id = alice.create_room()
    new = act(alice, room_id, "upgrade", new_version="12").get_json()["replacement_room"]
    act(alice, room_id, "leave")
    before = admin.get(at(room_id)).get_json()
    act(alice, room_id, "forget")

    after = admin.get(at(room_id)).get_json()

    assert (before["tombstoned"], before["replacement_room"]) == (True, new)
    assert (before["forgotten"], after["forgotten"]) == (False, True)


def test_members_and_state_are_those_of_the_room(
    admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob, name="Tea")
    act(bob, room_id, "leave")
    act(alice, room_id, "invite", user_id=bob.user_id)

    members = admin.get(at(room_id, "/members")).get_json()
    state = admin.get(at(room_id, "/state")).get_json()["state"]
    only = admin.get(at(room_id, "/state?type=m.room.name")).get_json()["state"]

    assert members == {"members": [alice.user_id], "total": 1}
    assert {(it["type"], it["state_key"]): it["content"] for it in state} == state_of(
        alice, room_id
    )
    assert [(it["type"], it["content"], it["room_id"]) for it in only] == [
        ("m.room.name", {"name": "Tea"}, room_id)
    ]
    assert all({"event_id", "origin_server_ts", "sender", "unsigned"} <= it.keys() for it in state)
    for end in ("/members", "/state"):
        assert refusal(admin.get(at(UNKNOWN, end))) == (404, "M_NOT_FOUND")


def test_ids_may_come_unescaped(admin: Person) -> None:
    room_id = admin.create_room(room_version="10")

    assert admin.get(f"{ROOMS}/{room_id}").get_json()["room_id"] == room_id


# --- blocks


def test_a_blocked_room_is_not_continued_by_an_upgrade(
    app: Application, admin: Person, alice: Person
) -> None:
    room_id = alice.create_room()
    admin.put(at(room_id, "/block"), json={"block": True})
    path = f"rooms/{quote(room_id)}/upgrade"

    with unchanged(app):
        answer = alice.post(path, json={"new_version": "11"})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    admin.put(at(room_id, "/block"), json={"block": False})
    assert alice.post(path, json={"new_version": "11"}).status_code == 200


def test_nobody_comes_into_a_blocked_room(
    app: Application, admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob, carol = login("bob"), login("carol")
    room_id = room(alice)
    act(alice, room_id, "invite", user_id=carol.user_id)
    answer = admin.put(at(room_id, "/block"), json={"block": True})

    assert answer.get_json() == {"block": True}
    assert admin.get(at(room_id, "/block")).get_json() == {
        "block": True,
        "user_id": admin.user_id,
    }
    with unchanged(app):
        assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")
        assert refusal(act(carol, room_id, "join")) == (403, "M_FORBIDDEN")
        refused = act(alice, room_id, "invite", user_id=bob.user_id)
        assert refusal(refused) == (403, "M_FORBIDDEN")
        assert refusal(bob.post(f"knock/{quote(room_id)}")) == (403, "M_FORBIDDEN")
        joined = {"membership": "join"}
        refused = bob.set_state(room_id, "m.room.member", joined, bob.user_id)
        assert refusal(refused) == (403, "M_FORBIDDEN")
    assert alice.send(room_id)  # members stay
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Al"})
    assert membership(alice, room_id, alice.user_id)["displayname"] == "Al"
    assert carol.create_room()
    admin.put(at(room_id, "/block"), json={"block": False})
    assert admin.get(at(room_id, "/block")).get_json() == {"block": False}
    assert act(bob, room_id, "join").status_code == 200
    assert act(carol, room_id, "join").status_code == 200
    assert audited(app)[:2] == [("room.unblock", room_id), ("room.block", room_id)]


def test_a_room_of_another_server_can_be_blocked_before_anybody_is_in_it(
    app: Application, remote: Remotes, admin: Person, alice: Person
) -> None:
    b = remote("b.test")
    there = b.room()
    admin.put(at(there.id, "/block"), json={"block": True})
    asked = len(b.received("/"))

    refused = [
        alice.post(f"join/{quote(there.id)}?via=b.test"),
        alice.post(f"knock/{quote(there.id)}?via=b.test"),
        admin.post(f"{JOIN}/{quote(there.id)}?server_name=b.test", json={"user_id": alice.user_id}),
    ]

    assert [refusal(it) for it in refused] == [(403, "M_FORBIDDEN")] * 3
    assert len(b.received("/")) == asked
    admin.put(at(there.id, "/block"), json={"block": False})
    assert alice.post(f"join/{quote(there.id)}?via=b.test").status_code == 200


@pytest.mark.parametrize(
    ("body", "errcode"), [({}, "M_MISSING_PARAM"), ({"block": "yes"}, "M_BAD_JSON")]
)
def test_a_wrong_block_changes_nothing(
    app: Application, admin: Person, body: Json, errcode: str
) -> None:
    with unchanged(app):
        assert refusal(admin.put(at(UNKNOWN, "/block"), json=body)) == (400, errcode)
        for method in ("GET", "PUT"):
            answer = admin.request(method, at("nonsense", "/block"), json={"block": True})
            assert refusal(answer) == (400, "M_INVALID_PARAM")
    assert admin.get(at(UNKNOWN, "/block")).get_json() == {"block": False}


# --- administrators of rooms


@pytest.mark.parametrize("version", ["1", "6", "10", "11", "12"])
def test_an_administrator_gets_the_power_of_the_strongest_local_user(
    app: Application, admin: Person, alice: Person, version: str
) -> None:
    room_id = alice.create_room(room_version=version, preset="private_chat")

    answer = admin.post(at(room_id, "/make_room_admin"), data=b"", json=None)

    assert (answer.status_code, answer.get_json()) == (200, {})
    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    assert levels["users"][admin.user_id] == 100
    assert membership(alice, room_id, admin.user_id)["membership"] == "invite"
    assert act(admin, room_id, "join").status_code == 200
    kept = admin.set_state(room_id, "m.room.power_levels", levels)
    assert kept.status_code == 200
    assert audited(app)[0] == ("room.make_admin", room_id)


def test_another_user_can_be_made_administrator_by_the_alias_of_a_public_room(
    admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, room_alias_name="tea", room_version="10")
    path = f"{ROOMS}/{quote('#tea:localhost')}/make_room_admin"

    assert admin.post(path, json={"user_id": bob.user_id}).status_code == 200
    assert admin.post(path, json={"user_id": bob.user_id}).status_code == 200  # again

    state = state_of(alice, room_id)
    assert state["m.room.power_levels", ""]["users"] == {alice.user_id: 100, bob.user_id: 100}
    assert ("m.room.member", bob.user_id) not in state


def test_a_creator_keeps_their_power_in_a_room_without_power_levels(
    app: Application, admin: Person, alice: Person
) -> None:
    with app.homeserver.database.write() as tx:
        content = {**CREATE, "creator": alice.user_id}
        draft = Draft("!bare:localhost", alice.user_id, "m.room.create", content, "")
        room_id = sending.create(tx, VERSIONS["10"], draft)
        memberships.join(tx, room_id, alice.user_id)

    assert admin.post(at(room_id, "/make_room_admin")).status_code == 200

    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    assert levels == {"users": {alice.user_id: 100, admin.user_id: 100}}


def test_a_banned_administrator_comes_back(admin: Person, alice: Person, room: MakeRoom) -> None:
    room_id = room(alice, admin, room_version="10")
    act(alice, room_id, "ban", user_id=admin.user_id)

    assert admin.post(at(room_id, "/make_room_admin")).status_code == 200

    assert membership(alice, room_id, admin.user_id)["membership"] == "leave"
    assert act(admin, room_id, "join").status_code == 200
    assert admin.set_state(room_id, "m.room.name", {"name": "mine"}).status_code == 200


def test_without_a_powerful_local_user_there_is_no_administrator(
    app: Application, admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, bob, room_version="10")
    act(alice, room_id, "leave")
    with unchanged(app):
        for path in (at(room_id, "/make_room_admin"), at(UNKNOWN, "/make_room_admin")):
            assert refusal(admin.post(path)) == (400, "M_UNKNOWN")
        wrong = admin.post(at(room_id, "/make_room_admin"), json={"user_id": "bob"})
        assert refusal(wrong) == (400, "M_INVALID_PARAM")
        wrong = admin.post(at(room_id, "/make_room_admin"), json={"user_id": 3})
        assert refusal(wrong) == (400, "M_BAD_JSON")
        assert refusal(admin.post(at("#no:localhost", "/make_room_admin"))) == (404, "M_NOT_FOUND")


# --- joins


def test_a_user_is_joined_to_a_public_room_by_id_and_by_alias(
    app: Application, admin: Person, alice: Person, login: Login, room: MakeRoom
) -> None:
    bob = login("bob")
    room_id = room(alice, room_alias_name="tea")

    by_id = admin.post(f"{JOIN}/{quote(room_id)}", json={"user_id": bob.user_id})
    by_alias = admin.post(f"{JOIN}/{quote('#tea:localhost')}", json={"user_id": admin.user_id})

    assert by_id.get_json() == by_alias.get_json() == {"room_id": room_id}
    for user in (bob, admin):
        assert membership(alice, room_id, user.user_id)["membership"] == "join"
    assert audited(app)[:2] == [("room.join", room_id)] * 2


def test_an_administrator_in_a_private_room_brings_others_in(
    app: Application, admin: Person, alice: Person, login: Login
) -> None:
    bob = login("bob")
    own, other = admin.create_room(), alice.create_room()

    answer = admin.post(f"{JOIN}/{quote(own)}", json={"user_id": bob.user_id})
    with unchanged(app):
        refused = admin.post(f"{JOIN}/{quote(other)}", json={"user_id": bob.user_id})

    assert answer.status_code == 200
    assert membership(admin, own, bob.user_id)["membership"] == "join"
    assert refusal(refused) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"user_id": 1}, (400, "M_BAD_JSON")),
        ({"user_id": "@nobody:localhost"}, (404, "M_NOT_FOUND")),
        ({"user_id": "@bob:elsewhere.test"}, (400, "M_UNKNOWN")),
    ],
)
def test_only_known_users_of_this_server_are_joined(
    app: Application, admin: Person, body: Json, expected: tuple[int, str]
) -> None:
    room_id = admin.create_room()
    with unchanged(app):
        assert refusal(admin.post(f"{JOIN}/{quote(room_id)}", json=body)) == expected


def test_a_room_to_join_must_be_known(admin: Person, alice: Person) -> None:
    body = {"user_id": alice.user_id}

    assert refusal(admin.post(f"{JOIN}/{quote('#no:localhost')}", json=body)) == (
        404,
        "M_NOT_FOUND",
    )
    assert admin.post(f"{JOIN}/{quote(UNKNOWN)}", json=body).status_code == 404
    assert refusal(admin.post(f"{JOIN}/nonsense", json=body)) == (400, "M_INVALID_PARAM")


def test_a_user_is_joined_to_a_room_of_another_server(
    app: Application, remote: Remotes, admin: Person, alice: Person
) -> None:
    there = remote("b.test").room()

    answer = admin.post(
        f"{JOIN}/{quote(there.id)}?server_name=b.test", json={"user_id": alice.user_id}
    )

    assert answer.get_json() == {"room_id": there.id}
    assert there.id in alice.get("joined_rooms").get_json()["joined_rooms"]
    assert audited(app)[0] == ("room.join", there.id)


# --- forward extremities


def test_the_ends_of_a_room_are_shown_and_all_but_the_newest_removed(
    app: Application, remote: Remotes, admin: Person, alice: Person
) -> None:
    b = remote("b.test")
    there = b.room()
    assert alice.post(f"join/{quote(there.id)}?via=b.test").status_code == 200
    base = [there.events[it] for it in there.heads]
    for number in range(3):
        event = there.message(f"branch {number}", prev=base)
        assert b.send(event) == {event.event_id: {}}

    found = admin.get(at(there.id, "/forward_extremities")).get_json()
    removed = admin.delete(at(there.id, "/forward_extremities")).get_json()
    left = admin.get(at(there.id, "/forward_extremities")).get_json()

    assert found["count"] == len(found["results"]) > 1
    assert all(
        {key: type(it[key]) for key in it}
        == {"event_id": str, "state_group": int, "depth": int, "received_ts": int}
        for it in found["results"]
    )
    assert removed == {"deleted": found["count"] - 1}
    assert [it["event_id"] for it in left["results"]] == [event.event_id]
    assert alice.send(there.id)
    assert audited(app)[0] == ("room.remove_extremities", there.id)


def test_an_unknown_room_has_no_ends(app: Application, admin: Person) -> None:
    path = at(UNKNOWN, "/forward_extremities")
    with unchanged(app):
        assert admin.get(path).get_json() == {"count": 0, "results": []}
        assert admin.delete(path).get_json() == {"deleted": 0}
    room_id = admin.create_room()
    assert admin.get(at(room_id, "/forward_extremities")).get_json()["count"] == 1
    assert admin.delete(at(room_id, "/forward_extremities")).get_json() == {"deleted": 0}
    assert refusal(admin.get(at("#no:localhost", "/forward_extremities"))) == (404, "M_NOT_FOUND")


def test_the_admin_api_of_rooms_answers_browsers_on_other_origins(make_app: MakeApp) -> None:
    answer = make_app().test_client().options(ROOMS, headers={"Origin": "https://tools.test"})

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
