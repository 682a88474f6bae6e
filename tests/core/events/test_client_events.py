"""What an event says of other events: of each reader's own making, on every way of reading."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from homebody.core.events import client_events
from tests.conftest import PASSWORD, Login, Person
from tests.helpers import reading
from tests.helpers.rooms import Json, act

Room = Callable[..., str]
APP = Path(client_events.__file__).parents[2]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def members_only(setting: str) -> Json:
    """The option of a room whose history is for members, or for those invited."""
    content = {"history_visibility": setting}
    return {"initial_state": [{"type": "m.room.history_visibility", "content": content}]}


def rename(person: Person, name: str) -> None:
    answer = person.put(f"profile/{person.user_id}/displayname", json={"displayname": name})
    assert answer.status_code == 200


def redact(person: Person, room_id: str, event_id: str, reason: str) -> str:
    path = f"rooms/{quote(room_id)}/redact/{quote(event_id)}/{reason.replace(' ', '-')}"
    answer = person.put(path, json={"reason": reason})
    assert answer.status_code == 200, answer.get_json()
    return str(answer.get_json()["event_id"])


def event(person: Person, room_id: str, event_id: str) -> Json:
    answer = person.get(f"rooms/{quote(room_id)}/event/{quote(event_id)}")
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def state_event(person: Person, room_id: str, key: str) -> Json:
    answer = person.get(f"rooms/{quote(room_id)}/state/{key}?format=event")
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


@pytest.mark.parametrize("setting", ["joined", "invited"])
def test_no_way_of_reading_tells_newcomers_what_a_state_event_replaced(
    alice: Person, bob: Person, room: Room, setting: str
) -> None:
    room_id = room(alice, **members_only(setting))
    alice.set_state(room_id, "m.room.topic", {"topic": "SECRET topic"})
    alice.set_state(room_id, "m.room.topic", {"topic": "nothing to see"})
    rename(alice, "SECRET name")
    rename(alice, "Alice")
    act(bob, room_id, "join")
    root = alice.send(room_id, "really")
    alice.send(room_id, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})

    told_bob = reading.everywhere(bob, room_id, root, root)
    told_alice = reading.everywhere(alice, room_id, root, root)

    assert [name for name, text in told_bob.items() if "SECRET" in text] == []
    for name in ("sync", "sliding", "messages", "context", "state", "members", "search"):
        assert "SECRET" in told_alice[name], name
    topic = state_event(bob, room_id, "m.room.topic/")
    assert topic["content"] == {"topic": "nothing to see"}
    assert "replaces_state" in topic["unsigned"]


def test_what_was_state_when_a_reader_came_is_told_as_previous_content(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, **members_only("joined"))
    alice.set_state(room_id, "m.room.topic", {"topic": "found"})
    act(bob, room_id, "join")
    since = bob.sync()["next_batch"]

    alice.set_state(room_id, "m.room.topic", {"topic": "new"})

    (told,) = bob.sync(since)["rooms"]["join"][room_id]["timeline"]["events"]
    assert told["unsigned"]["prev_content"] == {"topic": "found"}
    assert told["unsigned"]["prev_sender"] == alice.user_id


def test_users_are_told_what_their_own_membership_was_before(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, preset="private_chat", **members_only("joined"))
    act(alice, room_id, "invite", user_id=bob.user_id)
    act(bob, room_id, "join")

    own = state_event(bob, room_id, f"m.room.member/{bob.user_id}")

    assert own["unsigned"]["prev_content"]["membership"] == "invite"


def test_a_member_from_before_who_comes_back_is_not_told_what_was_set_meanwhile(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob, **members_only("joined"))
    alice.set_state(room_id, "m.room.name", {"name": "known"})
    act(bob, room_id, "leave")
    alice.set_state(room_id, "m.room.name", {"name": "newer"})
    alice.set_state(room_id, "m.room.topic", {"topic": "SECRET"})
    alice.set_state(room_id, "m.room.topic", {"topic": "nothing to see"})
    act(bob, room_id, "join")

    name = state_event(bob, room_id, "m.room.name/")
    topic = state_event(bob, room_id, "m.room.topic/")

    assert name["unsigned"]["prev_content"] == {"name": "known"}
    assert "prev_content" not in topic["unsigned"]


def test_newcomers_are_not_told_the_earlier_name_of_an_erased_user(
    login: Login, alice: Person, bob: Person, room: Room
) -> None:
    rename(alice, "SECRET name")
    room_id = room(bob, alice)
    rename(alice, "Alice")
    act(bob, room_id, "kick", user_id=alice.user_id)
    auth = {"type": "m.login.password", "password": PASSWORD}
    assert alice.post("account/deactivate", json={"auth": auth, "erase": True}).status_code == 200
    late = login("late")
    act(late, room_id, "join")
    key = f"m.room.member/{alice.user_id}"

    told = [state_event(person, room_id, key)["unsigned"] for person in (bob, late)]

    assert told[0]["prev_content"]["displayname"] == "Alice"
    assert "prev_content" not in told[1]


def test_a_redaction_says_why_only_to_those_who_may_see_it(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob, **members_only("joined"))
    said = alice.send(room_id, "oops")
    act(bob, room_id, "leave")
    redaction = redact(alice, room_id, said, "SECRET reason")

    told = [event(person, room_id, said) for person in (alice, bob)]

    because = [it["unsigned"]["redacted_because"] for it in told]
    assert [it["event_id"] for it in because] == [redaction] * 2
    assert because[0]["content"]["reason"] == "SECRET reason"
    assert "SECRET" not in str(told[1])
    assert told[1]["content"] == {}


def test_the_reason_that_an_ignored_user_gave_is_not_told(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    said = bob.send(room_id, "oops")
    redact(alice, room_id, said, "ANNOYING reason")
    ignored: Json = {"ignored_users": {alice.user_id: {}}}
    bob.put(f"user/{bob.user_id}/account_data/m.ignored_user_list", json=ignored)

    told = event(bob, room_id, said)

    assert "ANNOYING" not in str(told)
    assert told["unsigned"]["redacted_because"]["sender"] == alice.user_id


def test_a_reason_that_was_redacted_itself_is_gone_everywhere(alice: Person, room: Room) -> None:
    room_id = room(alice)
    said = alice.send(room_id, "oops")
    redaction = redact(alice, room_id, said, "SECRET reason")
    before = event(alice, room_id, said)["unsigned"]["redacted_because"]["content"]

    redact(alice, room_id, redaction, "better not")

    told = event(alice, room_id, said)
    assert before["reason"] == "SECRET reason"
    assert told["unsigned"]["redacted_because"]["event_id"] == redaction
    assert "SECRET" not in str(told)


def test_a_long_chain_of_redactions_can_be_read(alice: Person, room: Room) -> None:
    room_id = room(alice)
    last = first = alice.send(room_id, "oops")
    for number in range(300):
        last = redact(alice, room_id, last, f"reason {number}")

    told = alice.get(f"rooms/{quote(room_id)}/messages?dir=b&limit=500")

    assert told.status_code == 200
    assert len(told.get_data()) < 1_000_000
    assert event(alice, room_id, first)["unsigned"]["redacted_because"]["redacts"] == first


def reads(tree: ast.AST, name: str) -> bool:
    """Whether a module takes an attribute of this name."""
    return any(isinstance(node, ast.Attribute) and node.attr == name for node in ast.walk(tree))


def test_events_are_rendered_for_readers_at_one_door() -> None:
    modules = sorted(APP.rglob("*.py"))

    found = [it.name for it in modules if reads(ast.parse(it.read_text("utf-8")), "unsigned")]

    assert len(modules) > 80
    assert found == ["client_events.py", "caches.py"]  # the latter has the class
