"""What homebody and Synapse say about users, rooms and files that the other one names."""

from __future__ import annotations

import json
import time
from urllib.parse import quote

from tests.federation.users import User

V1 = "/_matrix/client/v1"


def test_a_profile_needs_no_room_in_common(alice: User, bob: User) -> None:
    alice.ask("PUT", f"/profile/{alice.user_id}/displayname", {"displayname": "Alice"})
    nobody = f"@nobody-{time.time_ns()}:{alice.home.name}"

    profile = bob.ask("GET", f"/profile/{alice.user_id}")
    name = bob.ask("GET", f"/profile/{alice.user_id}/displayname")
    status, answer = bob.raw("GET", f"/profile/{nobody}")

    assert profile["displayname"] == name["displayname"] == "Alice"
    assert (status, json.loads(answer)["errcode"]) == (404, "M_NOT_FOUND")


def test_an_alias_is_resolved_by_its_server(alice: User, bob: User) -> None:
    localpart = f"tea-{time.time_ns()}"
    room_id = alice.create_room(preset="public_chat", room_alias_name=localpart)
    path = "/directory/room/" + quote(f"#{localpart}:{alice.home.name}")

    found = bob.ask("GET", path)
    status, answer = bob.raw("GET", path.replace("tea", "no"))

    assert found == {"room_id": room_id, "servers": [alice.home.name]}
    assert (status, json.loads(answer)["errcode"]) == (404, "M_NOT_FOUND")


def test_a_directory_is_searched(alice: User, bob: User) -> None:
    name = f"Coffee {time.time_ns()}"
    room_id = alice.create_room(preset="public_chat", visibility="public", name=name)
    wanted = {"filter": {"generic_search_term": name}, "limit": 5}

    found = bob.ask("POST", f"/publicRooms?server={alice.home.name}", wanted)

    assert [it["room_id"] for it in found["chunk"]] == [room_id]


def test_a_space_is_shown_with_the_rooms_that_may_be_joined(alice: User, bob: User) -> None:
    kitchen = alice.create_room(preset="public_chat", name="Kitchen")
    secret = alice.create_room(preset="private_chat", name="Secret")
    inner = alice.create_room(preset="public_chat", creation_content={"type": "m.space"})
    garden = alice.create_room(preset="public_chat", name="Garden")
    house = bob.create_room(preset="public_chat", creation_content={"type": "m.space"})
    via = {"via": [alice.home.name]}
    for space, child, user in (
        (inner, garden, alice),
        *((house, it, bob) for it in (kitchen, secret, inner)),
    ):
        path = f"/rooms/{quote(space)}/state/m.space.child/{quote(child)}"
        user.ask("PUT", path, via)

    found = bob.ask("GET", f"{V1}/rooms/{quote(house)}/hierarchy")

    shown = {it["room_id"]: it.get("name") for it in found["rooms"]}
    assert shown == {house: None, kitchen: "Kitchen", inner: None, garden: "Garden"}


def test_a_room_is_summarized(alice: User, bob: User) -> None:
    room_id = alice.create_room(preset="public_chat", name="Tea", topic="Green")

    found = bob.ask("GET", f"{V1}/room_summary/{quote(room_id)}?via={alice.home.name}")

    assert (found["name"], found["topic"], found["join_rule"]) == ("Tea", "Green", "public")


def test_a_large_file_arrives(alice: User, bob: User) -> None:
    content = bytes(range(256)) * 80_000

    status, answer = alice.raw("POST", "/_matrix/media/v3/upload?filename=a.bin", content)
    assert status == 200, answer
    uri = json.loads(answer)["content_uri"].removeprefix("mxc://")
    received = [bob.raw("GET", f"{V1}/media/download/{uri}") for _ in range(2)]

    assert received == [(200, content)] * 2
