"""Shadow bans: what such a user sends is answered as if it was sent, and reaches nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import TestResponse

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import act, membership, refusal, state_of, unchanged

Room = Callable[..., str]
SAID = {"msgtype": "m.text", "body": "spam"}


@pytest.fixture
def admin(login: Login) -> Person:
    return login("owner")


@pytest.fixture
def bob(admin: Person, login: Login) -> Person:
    """A user who is not shadow-banned."""
    return login("bob")


@pytest.fixture
def mallory(admin: Person, login: Login) -> Person:
    """A user who is about to be shadow-banned."""
    return login("mallory")


def path_of(person: Person) -> str:
    return f"/_synapse/admin/v1/users/{person.user_id}/shadow_ban"


def ban(admin: Person, person: Person) -> None:
    answer = admin.post(path_of(person))
    assert (answer.status_code, answer.get_json()) == (200, {})


def event_id(answer: TestResponse) -> str:
    assert answer.status_code == 200, answer.get_json()
    assert list(answer.get_json()) == ["event_id"]
    return str(answer.get_json()["event_id"])


def test_what_is_sent_gets_the_responses_of_what_was_stored(
    app: Application, admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id = room(mallory, bob)
    real, room_id = mallory.send(room_id), quote(room_id)
    ban(admin, mallory)

    with unchanged(app):
        answers = [
            mallory.put(f"rooms/{room_id}/send/m.room.message/1", json=SAID),
            mallory.post(f"rooms/{room_id}/send/m.room.message", json=SAID),
            mallory.put(f"rooms/{room_id}/redact/{quote(real)}/2", json={"reason": "spam"}),
            mallory.put(f"rooms/{room_id}/state/m.room.topic", json={"topic": "spam"}),
            mallory.put(
                f"rooms/{room_id}/state/m.room.member/@eve:localhost",
                json={"membership": "invite"},
            ),
        ]
        again = mallory.put(f"rooms/{room_id}/send/m.room.message/1", json=SAID)
        legacy = mallory.put(
            f"/matrix/client/api/v1/rooms/{room_id}/messages/{mallory.user_id}/3", json=SAID
        )

    ids = [event_id(answer) for answer in answers]
    assert len(set(ids)) == len(ids)
    assert {len(it) for it in ids} == {len(real)}
    assert event_id(again) == ids[0]
    assert (legacy.status_code, legacy.get_json()) == (200, {})
    assert refusal(bob.get(f"rooms/{room_id}/event/{quote(ids[0])}"))[0] == 404


def test_nobody_sees_what_was_sent(admin: Person, bob: Person, mallory: Person, room: Room) -> None:
    room_id = room(mallory, bob)
    since = bob.sync()["next_batch"]
    ban(admin, mallory)

    mallory.send(room_id, "spam")
    mallory.put(f"rooms/{room_id}/typing/{mallory.user_id}", json={"typing": True})

    assert room_id not in bob.sync(since).get("rooms", {}).get("join", {})


def test_a_room_in_which_the_user_is_not_refuses_as_usual(
    admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id = room(bob)
    ban(admin, mallory)
    path = f"rooms/{quote(room_id)}"

    answers = [
        mallory.put(f"{path}/send/m.room.message/1", json=SAID),
        mallory.put(f"{path}/state/m.room.topic", json={"topic": "spam"}),
        act(mallory, room_id, "invite", user_id="@eve:localhost"),
        act(mallory, room_id, "upgrade", new_version="11"),
    ]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 4


def test_invites_are_dropped(
    app: Application, admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id = room(mallory)
    ban(admin, mallory)
    member = {
        "type": "m.room.member",
        "state_key": bob.user_id,
        "content": {"membership": "invite"},
    }

    with unchanged(app):
        invited = act(mallory, room_id, "invite", user_id=bob.user_id)
    mallory.create_room(invite=[bob.user_id], initial_state=[member])

    assert (invited.status_code, invited.get_json()) == (200, {})
    assert "rooms" not in bob.sync() or not bob.sync()["rooms"].get("invite")


def test_rooms_are_made_and_upgraded_for_nobody_else(
    app: Application, client: Any, admin: Person, mallory: Person
) -> None:
    ban(admin, mallory)
    room_id = mallory.create_room(visibility="public", name="spam")
    mallory.put(f"directory/list/room/{quote(room_id)}", json={"visibility": "public"})

    with unchanged(app):
        upgraded = act(mallory, room_id, "upgrade", new_version="11")

    assert state_of(mallory, room_id)["m.room.name", ""] == {"name": "spam"}
    assert admin.get("publicRooms").get_json()["chunk"] == []
    replacement = upgraded.get_json()["replacement_room"]
    assert replacement.startswith("!")
    assert replacement != room_id


def test_names_are_changed_but_not_in_rooms(
    admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id = room(bob, mallory)
    ban(admin, mallory)
    own = f"rooms/{quote(room_id)}/state/m.room.member/{mallory.user_id}"

    by_profile = mallory.put(f"profile/{mallory.user_id}/displayname", json={"displayname": "spam"})
    by_state = mallory.put(own, json={"membership": "join", "displayname": "spam"})

    assert (by_profile.status_code, by_profile.get_json()) == (200, {})
    assert event_id(by_state)
    assert mallory.get(f"profile/{mallory.user_id}/displayname").get_json() == {
        "displayname": "spam"
    }
    assert membership(bob, room_id, mallory.user_id)["displayname"] == "mallory"


def test_joins_and_leaves_happen_without_a_word(
    admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id, other = room(bob), room(bob)
    ban(admin, mallory)

    joined = act(mallory, room_id, "join", reason="spam", **{"org.example.text": "spam"})
    after_join = membership(bob, room_id, mallory.user_id)
    act(mallory, room_id, "leave", reason="spam")
    path = f"rooms/{quote(other)}/state/m.room.member/{mallory.user_id}"
    mallory.put(path, json={"membership": "join", "reason": "spam"})

    assert joined.get_json() == {"room_id": room_id}
    assert after_join == {"membership": "join", "displayname": "mallory"}
    assert membership(bob, room_id, mallory.user_id) == {"membership": "leave"}
    assert membership(bob, other, mallory.user_id)["membership"] == "join"
    assert "spam" not in str(membership(bob, other, mallory.user_id))


def test_a_shadow_ban_ends(
    app: Application, admin: Person, bob: Person, mallory: Person, room: Room
) -> None:
    room_id = room(mallory, bob)
    ban(admin, mallory)
    ban(admin, mallory)
    shown = admin.get(f"/_synapse/admin/v2/users/{mallory.user_id}").get_json()["shadow_banned"]
    hidden = mallory.send(room_id, "spam")

    ended = admin.delete(path_of(mallory))
    sent = mallory.send(room_id, "sorry")

    assert shown is True
    assert ended.get_json() == {}
    assert refusal(bob.get(f"rooms/{room_id}/event/{quote(hidden)}"))[0] == 404
    assert bob.get(f"rooms/{room_id}/event/{quote(sent)}").status_code == 200
    with app.homeserver.database.read() as tx:
        entries = audit.latest(tx, 10, subject=mallory.user_id)
    assert [it["action"] for it in entries] == ["user.unshadow_ban", "user.shadow_ban"]
