"""Other servers may ask for profiles, aliases and published rooms, as anyone may."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from homebody.spec.events import Json
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import refusal
from tests.helpers.signing_server import SigningServer

PROFILE, DIRECTORY, ROOMS = "v1/query/profile", "v1/query/directory", "v1/publicRooms"
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


def test_a_profile_is_returned_as_a_whole_or_by_field(peer: SigningServer, alice: Person) -> None:
    alice.put(f"profile/{alice.user_id}/displayname", json={"displayname": "Alice"})
    alice.put(f"profile/{alice.user_id}/avatar_url", json={"avatar_url": "mxc://a/b"})
    alice.put(f"profile/{alice.user_id}/org.example.x", json={"org.example.x": [1]})

    whole = peer.get(PROFILE, user_id=alice.user_id).get_json()
    name = peer.get(PROFILE, user_id=alice.user_id, field="displayname").get_json()

    assert whole == {"displayname": "Alice", "avatar_url": "mxc://a/b", "org.example.x": [1]}
    assert name == {"displayname": "Alice"}


def test_a_field_that_is_not_set_is_left_out(peer: SigningServer, alice: Person) -> None:
    response = peer.get(PROFILE, user_id=alice.user_id, field="avatar_url")

    assert (response.status_code, response.get_json()) == (200, {})


@pytest.mark.parametrize("user_id", ["@nobody:localhost", "@carol:peer.test"])
def test_only_users_of_this_server_have_a_profile_here(peer: SigningServer, user_id: str) -> None:
    assert refusal(peer.get(PROFILE, user_id=user_id)) == NOT_FOUND


@pytest.mark.parametrize("user_id", ["alice", "", "@alice", "@alice:localhost:http"])
def test_a_profile_is_one_of_a_user_id(peer: SigningServer, user_id: str) -> None:
    assert refusal(peer.get(PROFILE, user_id=user_id)) == (400, "M_INVALID_PARAM")


def test_the_user_is_required(peer: SigningServer) -> None:
    assert refusal(peer.get(PROFILE)) == (400, "M_MISSING_PARAM")


def test_an_alias_is_resolved_with_the_servers_in_the_room(
    app: Application, peer: SigningServer, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice, room_alias_name="cats")
    for user in ("carol", "dave"):
        SigningServer(app, "large.test").member(room_id, user=user)
    peer.member(room_id)

    body = peer.get(DIRECTORY, room_alias="#cats:localhost").get_json()

    assert body == {"room_id": room_id, "servers": ["localhost", "large.test", "peer.test"]}


@pytest.mark.parametrize(
    ("alias", "expected"),
    [
        ("#dogs:localhost", NOT_FOUND),
        ("#cats:peer.test", NOT_FOUND),
        ("cats", (400, "M_INVALID_PARAM")),
        ("!cats:localhost", (400, "M_INVALID_PARAM")),
    ],
)
def test_only_aliases_of_this_server_are_resolved(
    peer: SigningServer, alias: str, expected: tuple[int, str]
) -> None:
    assert refusal(peer.get(DIRECTORY, room_alias=alias)) == expected


def test_the_alias_is_required(peer: SigningServer) -> None:
    assert refusal(peer.get(DIRECTORY)) == (400, "M_MISSING_PARAM")


def test_other_queries_are_not_recognized(peer: SigningServer) -> None:
    assert refusal(peer.get("v1/query/weather")) == (404, "M_UNRECOGNIZED")


def published(alice: Person, name: str, **options: object) -> str:
    return alice.create_room(preset="public_chat", visibility="public", name=name, **options)


def names(body: Json) -> list[str]:
    return [it["name"] for it in body["chunk"]]


def test_published_rooms_are_listed_page_by_page(
    peer: SigningServer, alice: Person, login: Login
) -> None:
    large = published(alice, "large")
    login("bob").post(f"rooms/{quote(large)}/join")
    published(alice, "small")
    alice.create_room(preset="public_chat", name="not published")

    first = peer.get(ROOMS, limit=1).get_json()
    second = peer.get(ROOMS, limit=1, since=first["next_batch"]).get_json()

    assert names(first) + names(second) == ["large", "small"]
    assert first["total_room_count_estimate"] == 2
    assert "next_batch" not in second


def test_published_rooms_are_searched(peer: SigningServer, alice: Person) -> None:
    published(alice, "Cats of the world")
    published(alice, "Dogs")

    body = peer.post(ROOMS, {"filter": {"generic_search_term": "cats"}}).get_json()

    assert names(body) == ["Cats of the world"]


def test_rooms_that_others_cannot_join_are_not_listed_for_them(
    peer: SigningServer, alice: Person
) -> None:
    published(alice, "for us", creation_content={"m.federate": False})
    published(alice, "for all")

    assert names(peer.get(ROOMS).get_json()) == ["for all"]
    assert len(names(alice.get("publicRooms").get_json())) == 2


@pytest.mark.parametrize(
    "body", [{"limit": -1}, {"include_all_networks": True, "third_party_instance_id": "x"}]
)
def test_a_contradictory_search_is_refused(peer: SigningServer, body: Json) -> None:
    assert refusal(peer.post(ROOMS, body)) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("path", [PROFILE, DIRECTORY, ROOMS, "v1/query/weather"])
def test_a_signature_is_required(app: Application, path: str) -> None:
    response = app.test_client().get(f"/_matrix/federation/{path}?user_id=@alice:localhost")

    assert refusal(response) == (401, "M_UNAUTHORIZED")
