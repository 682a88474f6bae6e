"""Other servers read spaces as far as their users could join or read the rooms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import Json, refusal
from tests.helpers.signing_server import SigningServer

NOT_FOUND = (404, "M_NOT_FOUND")
MakeRoom = Callable[..., str]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(federation="true")


@pytest.fixture
def peer(app: Application) -> SigningServer:
    return SigningServer(app).introduce()


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def make_space(person: Person, *children: str, **options: Any) -> str:
    options = {"preset": "public_chat", "creation_content": {"type": "m.space"}, **options}
    space = person.create_room(**options)
    for number, it in enumerate(children):
        content = {"via": ["localhost"], "order": str(number)}
        assert person.set_state(space, "m.space.child", content, it).status_code == 200
    return space


def read(peer: SigningServer, room_id: str, **query: str) -> Json:
    answer = peer.get(f"v1/hierarchy/{room_id}", **query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def children(body: Json) -> list[str]:
    return [it["room_id"] for it in body["children"]]


def test_a_space_is_returned_with_its_rooms(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    kitchen, secret = room(alice, name="Kitchen"), room(alice, preset="private_chat")
    house = make_space(alice, kitchen, secret, "!elsewhere:c.test", name="House")

    body = read(peer, house)

    assert (body["room"]["name"], body["room"]["room_type"]) == ("House", "m.space")
    named = [it["state_key"] for it in body["room"]["children_state"]]
    assert named == [kitchen, secret, "!elsewhere:c.test"]
    assert set(body["room"]["children_state"][0]) == {
        *("type", "state_key", "sender", "content", "origin_server_ts")
    }
    assert [(it["name"], it["join_rule"]) for it in body["children"]] == [("Kitchen", "public")]
    assert body["inaccessible_children"] == [secret]


def test_only_suggested_rooms_are_returned_on_request(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    one, two = room(alice), room(alice)
    house = make_space(alice, one)
    content = {"via": ["localhost"], "suggested": True}
    alice.set_state(house, "m.space.child", content, two)

    assert children(read(peer, house, suggested_only="true")) == [two]
    assert children(read(peer, house)) == [one, two]


def test_a_room_that_is_no_space_has_no_children(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    kitchen, other = room(alice), room(alice)
    alice.set_state(kitchen, "m.space.child", {"via": ["localhost"]}, other)

    body = read(peer, kitchen)

    assert (body["room"]["children_state"], body["children"]) == ([], [])


def test_a_private_room_is_shown_to_servers_of_members_and_invited_users(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    joined, invited, neither = (room(alice, preset="private_chat") for _ in range(3))
    peer.member(joined)
    peer.member(invited, "invite")
    house = make_space(alice, joined, invited, neither)

    body = read(peer, house)

    assert children(body) == [joined, invited]
    assert body["inaccessible_children"] == [neither]
    stranger = SigningServer(app, "xpeer.test").introduce()
    assert children(read(stranger, house)) == []


def test_a_restricted_room_is_shown_to_servers_in_an_allowed_room(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    club = room(alice)
    hall = room(alice)
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}
    assert alice.set_state(hall, "m.room.join_rules", rules).status_code == 200
    peer.member(club)

    assert read(peer, hall)["room"]["allowed_room_ids"] == [club]
    stranger = SigningServer(app, "other.test").introduce()
    assert refusal(stranger.get(f"v1/hierarchy/{hall}")) == NOT_FOUND


def test_rooms_for_users_of_this_server_alone_are_not_shown(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    ours = room(alice, creation_content={"m.federate": False})
    house = make_space(alice, ours)

    body = read(peer, house)

    assert (body["children"], body["inaccessible_children"]) == ([], [])
    assert refusal(peer.get(f"v1/hierarchy/{ours}")) == NOT_FOUND


def test_a_room_that_all_users_of_this_server_have_left_is_not_shown(
    peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    kitchen = room(alice)
    alice.post(f"rooms/{kitchen}/leave")

    assert refusal(peer.get(f"v1/hierarchy/{kitchen}")) == NOT_FOUND


@pytest.mark.parametrize("room_id", ["!nowhere:localhost", "nonsense"])
def test_an_unknown_room_is_not_found(peer: SigningServer, room_id: str) -> None:
    assert refusal(peer.get(f"v1/hierarchy/{room_id}")) == NOT_FOUND


def test_a_private_room_is_not_found(peer: SigningServer, alice: Person, room: MakeRoom) -> None:
    secret = room(alice, preset="private_chat")

    assert refusal(peer.get(f"v1/hierarchy/{secret}")) == NOT_FOUND


def test_a_flag_has_to_be_one(peer: SigningServer, alice: Person, room: MakeRoom) -> None:
    answer = peer.get(f"v1/hierarchy/{room(alice)}", suggested_only="maybe")

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_a_signature_is_required(app: Application, alice: Person, room: MakeRoom) -> None:
    answer = app.test_client().get(f"/_matrix/federation/v1/hierarchy/{room(alice)}")

    assert refusal(answer) == (401, "M_UNAUTHORIZED")
