"""createRoom: every option, the order of the first events, and nothing left by a refusal."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest

from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal, state_of, unchanged

ALICE, BOB, CAROL = "@alice:localhost", "@bob:localhost", "@carol:localhost"


def types(person: Person, room_id: str) -> list[str]:
    return [event_type for event_type, _ in state_of(person, room_id)]


def test_a_room_without_wishes_is_private_and_of_version_11(login: Login) -> None:
    alice = login("alice")

    answer = alice.post("createRoom")

    assert answer.status_code == 200
    room_id = answer.get_json().pop("room_id")
    assert answer.get_json() == {"room_id": room_id}
    assert re.fullmatch(r"![A-Za-z]{18}:localhost", room_id)
    state = state_of(alice, room_id)
    assert list(state) == [
        ("m.room.create", ""),
        ("m.room.member", ALICE),
        ("m.room.power_levels", ""),
        ("m.room.join_rules", ""),
        ("m.room.history_visibility", ""),
        ("m.room.guest_access", ""),
    ]
    assert state["m.room.create", ""] == {"room_version": "11", "creator": ALICE}
    assert state["m.room.member", ALICE]["membership"] == "join"
    assert state["m.room.power_levels", ""]["users"] == {ALICE: 100}


def test_the_first_events_come_in_the_order_of_the_spec(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(
        room_alias_name="pub",
        name="The Grand Duke Pub",
        topic="All about happy hour",
        initial_state=[{"type": "org.example.colour", "content": {"colour": "blue"}}],
        invite=[BOB],
    )

    assert types(alice, room_id) == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "org.example.colour",
        "m.room.name",
        "m.room.topic",
        "m.room.member",
    ]


def test_name_and_topic_become_state(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(name="Pub", topic="Happy hour")

    state = state_of(alice, room_id)
    assert state["m.room.name", ""] == {"name": "Pub"}
    assert state["m.room.topic", ""] == {
        "topic": "Happy hour",
        "m.topic": {"m.text": [{"body": "Happy hour", "mimetype": "text/plain"}]},
    }


@pytest.mark.parametrize(
    ("options", "join_rule", "guest_access"),
    [
        ({}, "invite", "can_join"),
        ({"visibility": "private"}, "invite", "can_join"),
        ({"visibility": "public"}, "public", None),
        ({"preset": "private_chat"}, "invite", "can_join"),
        ({"preset": "trusted_private_chat"}, "invite", "can_join"),
        ({"preset": "public_chat"}, "public", None),
        ({"preset": "private_chat", "visibility": "public"}, "invite", "can_join"),
    ],
)
def test_a_preset_sets_who_may_come_in_and_read(
    login: Login, options: dict[str, Any], join_rule: str, guest_access: str | None
) -> None:
    alice = login("alice")

    room_id = alice.create_room(**options)

    state = state_of(alice, room_id)
    assert state["m.room.join_rules", ""] == {"join_rule": join_rule}
    expected = None if guest_access is None else {"guest_access": guest_access}
    assert state.get(("m.room.guest_access", "")) == expected
    assert state["m.room.history_visibility", ""] == {"history_visibility": "shared"}


def test_initial_state_goes_before_the_preset_and_name_before_initial_state(login: Login) -> None:
    alice = login("alice")
    initial_state = [
        {"type": "m.room.join_rules", "content": {"join_rule": "knock"}, "state_key": ""},
        {"type": "m.room.name", "content": {"name": "from initial_state"}},
        {"type": "org.example.thing", "content": {}, "state_key": "a/b"},
    ]

    room_id = alice.create_room(initial_state=initial_state, name="from name")

    state = state_of(alice, room_id)
    assert state["m.room.join_rules", ""] == {"join_rule": "knock"}
    assert state["m.room.name", ""] == {"name": "from name"}
    assert state["org.example.thing", "a/b"] == {}


def test_an_alias_names_the_room_and_is_told(login: Login) -> None:
    alice = login("alice")

    answer = alice.post("createRoom", json={"room_alias_name": "tutorial"})

    room_id = answer.get_json()["room_id"]
    assert answer.get_json() == {"room_id": room_id, "room_alias": "#tutorial:localhost"}
    state = state_of(alice, room_id)
    assert state["m.room.canonical_alias", ""] == {"alias": "#tutorial:localhost"}
    found = alice.get("directory/room/%23tutorial:localhost").get_json()
    assert found == {"room_id": room_id, "servers": ["localhost"]}


def test_invited_people_get_their_invites_marked_as_direct(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(invite=[BOB, CAROL, BOB], is_direct=True)

    state = state_of(alice, room_id)
    assert state["m.room.member", BOB] == {"membership": "invite", "is_direct": True}
    assert state["m.room.member", CAROL] == {"membership": "invite", "is_direct": True}
    assert "is_direct" not in state["m.room.member", ALICE]


def test_trusted_people_are_as_powerful_as_the_creator(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(preset="trusted_private_chat", invite=[BOB])

    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    assert levels["users"] == {ALICE: 100, BOB: 100}


def test_in_version_12_trusted_people_are_creators_too(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(
        room_version="12",
        preset="trusted_private_chat",
        invite=[BOB, CAROL],
        creation_content={"additional_creators": [CAROL]},
    )

    state = state_of(alice, room_id)
    create = state["m.room.create", ""]
    assert create == {"room_version": "12", "additional_creators": [CAROL, BOB]}
    levels = state["m.room.power_levels", ""]
    assert levels["users"] == {}
    assert levels["events"]["m.room.tombstone"] > levels["state_default"]
    assert re.fullmatch(r"![A-Za-z0-9_-]{43}", room_id)


def test_power_levels_are_laid_over_the_generated_ones(login: Login) -> None:
    alice = login("alice")

    room_id = alice.create_room(power_level_content_override={"events_default": 10, "kick": 60})

    levels = state_of(alice, room_id)["m.room.power_levels", ""]
    assert (levels["events_default"], levels["kick"], levels["ban"]) == (10, 60, 50)
    assert levels["users"] == {ALICE: 100}


def test_creation_content_is_kept_but_for_the_keys_of_the_server(login: Login) -> None:
    alice = login("alice")
    content = {"m.federate": False, "type": "m.space", "room_version": "1", "creator": BOB}

    room_id = alice.create_room(creation_content=content)

    create = state_of(alice, room_id)["m.room.create", ""]
    ours = {"room_version": "11", "creator": ALICE}
    assert create == {"m.federate": False, "type": "m.space", **ours}


@pytest.mark.parametrize("version", list(VERSIONS))
def test_rooms_of_every_version_can_be_made_and_talked_in(login: Login, version: str) -> None:
    alice, bob = login("alice"), login("bob")

    room_id = alice.create_room(room_version=version, preset="public_chat", name="x", invite=[BOB])

    assert bob.post(f"rooms/{room_id}/join").status_code == 200
    event_id = bob.send(room_id)
    path = f"rooms/{room_id}/redact/{quote(event_id, safe='')}/1"  # in version 3 with slashes
    assert alice.put(path, json={}).status_code == 200
    create = state_of(bob, room_id)["m.room.create", ""]
    assert create["room_version"] == version
    assert create.get("creator") == (ALICE if int(version) < 12 else None)


def test_the_default_version_is_a_setting(make_app: MakeApp) -> None:
    client = make_app(default_room_version="12").test_client()
    body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
    token = client.post("/_matrix/client/v3/register", json=body).get_json()["access_token"]
    alice = Person(client, ALICE, token, "")

    room_id = alice.create_room()

    assert state_of(alice, room_id)["m.room.create", ""] == {"room_version": "12"}


def test_a_public_room_stands_in_the_directory_and_others_do_not(login: Login) -> None:
    alice = login("alice")

    public = alice.create_room(visibility="public")
    alice.create_room(preset="public_chat")

    chunk = alice.get("publicRooms").get_json()["chunk"]
    assert [room["room_id"] for room in chunk] == [public]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"room_version": "org.example.9"}, (400, "M_UNSUPPORTED_ROOM_VERSION")),
        ({"room_version": 11}, (400, "M_BAD_JSON")),
        ({"preset": "secret_chat"}, (400, "M_BAD_JSON")),
        ({"visibility": "hidden"}, (400, "M_BAD_JSON")),
        ({"name": 5}, (400, "M_BAD_JSON")),
        ({"name": "x" * 70_000}, (413, "M_TOO_LARGE")),
        ({"invite": "@bob:localhost"}, (400, "M_BAD_JSON")),
        ({"invite": ["bob"]}, (400, "M_INVALID_PARAM")),
        ({"invite": ["@bob:elsewhere.example"]}, (403, "M_FORBIDDEN")),
        ({"invite": [ALICE]}, (403, "M_FORBIDDEN")),
        ({"invite": [f"@u{n}:localhost" for n in range(201)]}, (400, "M_INVALID_PARAM")),
        (
            {"invite_3pid": [{"id_server": "x", "medium": "email", "address": "a@b.example"}]},
            (400, "M_SERVER_NOT_TRUSTED"),
        ),
        ({"invite_3pid": [{"medium": "email"}]}, (400, "M_MISSING_PARAM")),
        ({"room_alias_name": "two words"}, (400, "M_INVALID_PARAM")),
        ({"room_alias_name": "pub:localhost"}, (400, "M_INVALID_PARAM")),
        ({"room_alias_name": ""}, (400, "M_INVALID_PARAM")),
        ({"room_alias_name": "x" * 255}, (400, "M_INVALID_PARAM")),
        ({"room_alias_name": "taken"}, (400, "M_ROOM_IN_USE")),
        ({"initial_state": [{"content": {}}]}, (400, "M_MISSING_PARAM")),
        ({"initial_state": [{"type": "a", "content": "b"}]}, (400, "M_BAD_JSON")),
        ({"initial_state": [{"type": "a", "content": {"b": 1.5}}]}, (400, "M_BAD_JSON")),
        ({"initial_state": [{"type": "a", "content": {"b": 2**60}}]}, (400, "M_BAD_JSON")),
        (
            {"initial_state": [{"type": "m.room.create", "content": {"room_version": "10"}}]},
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (
            {
                "initial_state": [
                    {"type": "m.room.canonical_alias", "content": {"alias": "#no:localhost"}}
                ]
            },
            (400, "M_BAD_ALIAS"),
        ),
        (
            {
                "initial_state": [
                    {"type": "x", "state_key": str(n), "content": {}} for n in range(501)
                ]
            },
            (400, "M_INVALID_PARAM"),
        ),
        (
            {"power_level_content_override": {"users": {}}, "name": "x"},
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (
            {"power_level_content_override": {"users": {ALICE: "100"}}},
            (400, "M_INVALID_ROOM_STATE"),
        ),
        ({"power_level_content_override": {"events": []}}, (400, "M_INVALID_ROOM_STATE")),
        (
            {"room_version": "12", "power_level_content_override": {"users": {ALICE: 100}}},
            (400, "M_INVALID_ROOM_STATE"),
        ),
        ({"creation_content": {"type": 5}}, (400, "M_BAD_JSON")),
        ({"creation_content": {"m.federate": "no"}}, (400, "M_BAD_JSON")),
        (
            {"room_version": "12", "creation_content": {"additional_creators": ["bob"]}},
            (400, "M_INVALID_ROOM_STATE"),
        ),
        (
            {
                "room_version": "12",
                "preset": "trusted_private_chat",
                "creation_content": {"additional_creators": "bob"},
            },
            (400, "M_BAD_JSON"),
        ),
    ],
)
def test_a_bad_wish_is_refused_and_leaves_nothing(
    app: Application, login: Login, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    alice = login("alice")
    alice.create_room(room_alias_name="taken")

    with unchanged(app):
        answer = alice.post("createRoom", json={"visibility": "public", **body})

    assert refusal(answer) == expected


def test_after_a_refusal_the_same_alias_is_free(login: Login) -> None:
    alice = login("alice")
    refused = alice.post("createRoom", json={"room_alias_name": "pub", "invite": ["nobody"]})
    assert refused.status_code == 400

    answer = alice.post("createRoom", json={"room_alias_name": "pub"})

    assert answer.get_json()["room_alias"] == "#pub:localhost"


def test_one_needs_a_token(app: Application) -> None:
    with unchanged(app):
        answer = app.test_client().post("/_matrix/client/v3/createRoom", json={})

    assert refusal(answer) == (401, "M_MISSING_TOKEN")
