"""/sync over HTTP: what comes, once, in which section."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from tests.conftest import Login, Person
from tests.helpers.sliding import ask

MakeRoom = Callable[..., str]
Json = dict[str, Any]


def bodies(sync: Json, room_id: str, section: str = "join") -> list[str]:
    """The messages in a room's timeline."""
    room = sync["rooms"][section].get(room_id, {"timeline": {"events": []}})
    return [
        event["content"].get("body", "")
        for event in room["timeline"]["events"]
        if event["type"] == "m.room.message"
    ]


def kinds(events: list[Json]) -> list[tuple[str, str]]:
    return [(event["type"], event.get("state_key", "-")) for event in events]


def inline(**parts: Any) -> Json:
    """The query of a sync with a filter written out."""
    return {"filter": json.dumps(parts)}


def test_the_first_sync_shows_a_new_room_whole(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Garden")

    first = alice.sync()

    room = first["rooms"]["join"][room_id]
    assert kinds(room["timeline"]["events"])[:2] == [
        ("m.room.create", ""),
        ("m.room.member", "@alice:localhost"),
    ]
    assert room["timeline"]["limited"] is False
    assert room["state"]["events"] == []
    assert room["summary"]["m.joined_member_count"] == 1
    assert set(first["rooms"]) == {"join", "invite", "knock", "leave"}


def test_an_event_comes_once_and_only_to_its_room(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    busy, quiet = room(alice, bob), room(alice, bob)
    token = bob.sync()["next_batch"]
    alice.send(busy, "hello")

    news = bob.sync(token)
    later = bob.sync(news["next_batch"])

    assert bodies(news, busy) == ["hello"]
    assert quiet not in news["rooms"]["join"]
    assert later["rooms"]["join"] == {}


def test_an_old_token_is_served_again_with_the_same(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    token = alice.sync()["next_batch"]
    alice.send(room_id, "one")
    first = bodies(alice.sync(token), room_id)
    alice.send(room_id, "two")

    assert (first, bodies(alice.sync(token), room_id)) == (["one"], ["one", "two"])


def test_a_waiting_sync_answers_as_soon_as_something_comes(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    answers: list[tuple[float, Json]] = []

    def wait() -> None:
        began = time.monotonic()
        found = bob.sync(token, timeout=20_000)
        answers.append((time.monotonic() - began, found))

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    alice.send(room_id, "wake up")
    thread.join(10)

    seconds, news = answers[0]
    assert bodies(news, room_id) == ["wake up"]
    assert 0.2 < seconds < 5


def test_a_logout_ends_a_waiting_sync_at_once(login: Login) -> None:
    alice = login("alice")
    token = alice.sync(alice.sync()["next_batch"])["next_batch"]
    answers: list[int] = []

    def wait() -> None:
        query = {"since": token, "timeout": 20_000}
        answers.append(alice.get("sync", query_string=query).status_code)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.3)
    alice.post("logout")
    thread.join(5)

    assert answers == [401]


def test_a_waiting_sync_gives_up_after_its_timeout(login: Login) -> None:
    alice = login("alice")
    token = alice.sync()["next_batch"]
    token = alice.sync(token)["next_batch"]
    began = time.monotonic()

    news = alice.sync(token, timeout=300)

    assert 0.25 < time.monotonic() - began < 5
    assert news["next_batch"] == token
    assert not any(news["rooms"].values())


def test_a_gap_is_told_and_messages_fill_it(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    token = alice.sync()["next_batch"]
    sent = [alice.send(room_id, f"message {number}") for number in range(15)]

    news = alice.sync(token)
    timeline = news["rooms"]["join"][room_id]["timeline"]
    page = alice.get(
        f"rooms/{quote(room_id)}/messages",
        query_string={"dir": "b", "from": timeline["prev_batch"], "to": token, "limit": 50},
    ).get_json()

    assert timeline["limited"] is True
    assert [event["event_id"] for event in timeline["events"]] == sent[5:]
    assert [event["event_id"] for event in page["chunk"]] == sent[4::-1]


def test_state_that_changed_in_a_gap_comes_before_the_timeline(
    login: Login, room: MakeRoom
) -> None:
    alice = login("alice")
    room_id = room(alice)
    token = alice.sync()["next_batch"]
    alice.set_state(room_id, "m.room.topic", {"topic": "old"})
    alice.set_state(room_id, "m.room.topic", {"topic": "new"})
    for number in range(12):
        alice.send(room_id, f"message {number}")
    alice.set_state(room_id, "m.room.name", {"name": "in the timeline"})

    entry = alice.sync(token)["rooms"]["join"][room_id]

    assert kinds(entry["state"]["events"]) == [("m.room.topic", "")]
    assert entry["state"]["events"][0]["content"] == {"topic": "new"}
    assert entry["timeline"]["events"][-1]["type"] == "m.room.name"


def test_state_after_tells_the_state_at_the_end(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    token = alice.sync()["next_batch"]
    alice.set_state(room_id, "m.room.topic", {"topic": "old"})
    alice.set_state(room_id, "m.room.topic", {"topic": "new"})

    entry = alice.sync(token, use_state_after="true")["rooms"]["join"][room_id]
    first = alice.sync(use_state_after="true")["rooms"]["join"][room_id]

    assert "state" not in entry
    assert [event["content"] for event in entry["state_after"]["events"]] == [{"topic": "new"}]
    assert ("m.room.create", "") in kinds(first["state_after"]["events"])


def test_the_unstable_name_of_state_after_works_as_well(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)

    unstable: Json = {"org.matrix.msc4222.use_state_after": "true"}
    first = alice.sync(**unstable)

    section = first["rooms"]["join"][room_id]["org.matrix.msc4222.state_after"]
    assert ("m.room.create", "") in kinds(section["events"])


def test_full_state_tells_all_of_it_again(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    token = alice.sync()["next_batch"]

    entry = alice.sync(token, full_state="true")["rooms"]["join"][room_id]

    assert ("m.room.create", "") in kinds(entry["state"]["events"])
    assert entry["timeline"]["events"] == []


def test_a_room_just_joined_comes_with_its_state(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice)
    for number in range(12):
        alice.send(room_id, f"message {number}")
    token = bob.sync()["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/join")

    entry = bob.sync(token)["rooms"]["join"][room_id]

    assert ("m.room.create", "") in kinds(entry["state"]["events"])
    assert entry["timeline"]["limited"] is True
    assert len(entry["timeline"]["events"]) == 10
    assert entry["timeline"]["events"][-1]["state_key"] == "@bob:localhost"


def test_who_leaves_is_told_up_to_the_leave_and_no_further(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    token = bob.sync()["next_batch"]
    alice.send(room_id, "goodbye")
    bob.post(f"rooms/{quote(room_id)}/leave")
    alice.send(room_id, "bob is gone")

    news = bob.sync(token)
    later = bob.sync(news["next_batch"])
    at_first = bob.sync()

    assert bodies(news, room_id, "leave") == ["goodbye"]
    assert news["rooms"]["leave"][room_id]["timeline"]["events"][-1]["type"] == "m.room.member"
    assert news["rooms"]["join"] == {}
    assert not any(later["rooms"].values())
    assert at_first["rooms"]["leave"] == {}


def test_left_rooms_come_in_a_first_sync_when_asked_for(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id, forgotten = room(alice, bob), room(alice, bob)
    for one in (room_id, forgotten):
        alice.send(one, "before")
        bob.post(f"rooms/{quote(one)}/leave")
        alice.send(one, "after")
    bob.post(f"rooms/{quote(forgotten)}/forget")

    left = bob.sync(**inline(room={"include_leave": True}))["rooms"]["leave"]

    assert list(left) == [room_id]
    found = [event["content"].get("body") for event in left[room_id]["timeline"]["events"]]
    assert "before" in found
    assert "after" not in found


def test_a_kick_and_a_ban_are_leaves(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    kicked, banned = room(alice, bob), room(alice, bob)
    token = bob.sync()["next_batch"]
    alice.post(f"rooms/{quote(kicked)}/kick", json={"user_id": bob.user_id, "reason": "no"})
    alice.post(f"rooms/{quote(banned)}/ban", json={"user_id": bob.user_id})

    left = bob.sync(token)["rooms"]["leave"]

    assert left[kicked]["timeline"]["events"][-1]["content"]["reason"] == "no"
    assert left[banned]["timeline"]["events"][-1]["content"]["membership"] == "ban"


def test_an_invite_shows_what_the_room_is_called_and_who_invites(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    token = bob.sync()["next_batch"]
    room_id = alice.create_room(name="Secret", invite=[bob.user_id])

    invite = bob.sync(token)["rooms"]["invite"][room_id]["invite_state"]["events"]

    shown = {(event["type"], event["state_key"]): event for event in invite}
    assert shown["m.room.name", ""]["content"] == {"name": "Secret"}
    assert shown["m.room.member", bob.user_id]["sender"] == alice.user_id
    assert ("m.room.member", alice.user_id) in shown
    assert bob.sync()["rooms"]["invite"].keys() == {room_id}


def test_a_rejected_invite_is_a_leave_without_a_look_inside(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(name="Secret", invite=[bob.user_id])
    alice.send(room_id, "among us")
    token = bob.sync()["next_batch"]
    bob.post(f"rooms/{quote(room_id)}/leave")

    left = bob.sync(token)["rooms"]["leave"][room_id]

    assert kinds(left["timeline"]["events"]) == [("m.room.member", bob.user_id)]
    assert "among us" not in json.dumps(left)


def test_a_knock_has_a_section_of_its_own(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    rule = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}
    room_id = alice.create_room(name="Club", initial_state=[rule])
    token = bob.sync()["next_batch"]
    bob.post(f"knock/{quote(room_id)}", json={"reason": "please"})

    knock = bob.sync(token)["rooms"]["knock"][room_id]["knock_state"]["events"]

    assert ("m.room.name", "") in kinds(knock)
    assert kinds(knock).count(("m.room.member", bob.user_id)) == 1


def test_a_timeline_limit_leaves_the_newest(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.send(room_id, "one")
    alice.send(room_id, "two")

    entry = alice.sync(**inline(room={"timeline": {"limit": 1}}))["rooms"]["join"][room_id]

    assert [event["content"]["body"] for event in entry["timeline"]["events"]] == ["two"]
    assert entry["timeline"]["limited"] is True
    assert ("m.room.create", "") in kinds(entry["state"]["events"])


def test_a_filter_of_types_looks_past_what_it_leaves_out(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.send(room_id, "needle")
    for number in range(30):
        alice.set_state(room_id, "org.example.noise", {"n": number})
    wanted = inline(room={"timeline": {"types": ["m.room.message"], "limit": 5}})

    entry = alice.sync(**wanted)["rooms"]["join"][room_id]

    assert [event["content"]["body"] for event in entry["timeline"]["events"]] == ["needle"]
    assert entry["timeline"]["limited"] is False


def test_state_that_a_timeline_filter_hides_comes_as_state(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    wanted = inline(room={"timeline": {"types": ["m.room.message"]}})
    token = alice.sync(**wanted)["next_batch"]
    alice.send(room_id, "one")
    alice.set_state(room_id, "m.room.topic", {"topic": "hidden"})

    entry = alice.sync(token, **wanted)["rooms"]["join"][room_id]

    assert kinds(entry["timeline"]["events"]) == [("m.room.message", "-")]
    assert kinds(entry["state"]["events"]) == [("m.room.topic", "")]


def test_rooms_can_be_chosen_and_left_out(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    one, two = room(alice), room(alice)

    only = alice.sync(**inline(room={"rooms": [one]}))["rooms"]["join"]
    without = alice.sync(**inline(room={"not_rooms": [one]}))["rooms"]["join"]

    assert (set(only), set(without)) == ({one}, {two})


def test_fields_and_format_of_events_can_be_chosen(login: Login, room: MakeRoom) -> None:
    alice = login("alice")
    room_id = room(alice)
    alice.send(room_id, "hello")

    fields = alice.sync(**inline(event_fields=["content.body"]))
    federation = alice.sync(**inline(event_format="federation"))

    picked = fields["rooms"]["join"][room_id]["timeline"]["events"][-1]
    pdu = federation["rooms"]["join"][room_id]["timeline"]["events"][-1]
    assert picked == {"content": {"body": "hello"}}
    assert {"auth_events", "prev_events", "hashes", "signatures", "depth"} <= set(pdu)


def test_lazy_loading_tells_of_members_when_they_speak_and_once(
    login: Login, room: MakeRoom
) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id = room(alice, bob, carol, name="Garden")
    lazy = inline(room={"state": {"lazy_load_members": True}, "timeline": {"limit": 1}})
    bob.send(room_id, "from bob")

    def members(sync: Json) -> set[str]:
        events = sync["rooms"]["join"][room_id]["state"]["events"]
        return {event["state_key"] for event in events if event["type"] == "m.room.member"}

    first = alice.sync(**lazy)
    carol.send(room_id, "from carol")
    second = alice.sync(first["next_batch"], **lazy)
    carol.send(room_id, "again")
    third = alice.sync(second["next_batch"], **lazy)
    second_again = alice.sync(first["next_batch"], **lazy)

    assert members(first) == {alice.user_id, bob.user_id}
    assert members(second) == {carol.user_id}
    assert members(third) == set()
    assert members(second_again) == {carol.user_id}


def test_a_room_without_a_name_has_heroes(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    nameless = alice.create_room(invite=[bob.user_id])
    named = alice.create_room(name="Garden")

    rooms = alice.sync()["rooms"]["join"]

    assert rooms[nameless]["summary"] == {
        "m.heroes": [bob.user_id],
        "m.joined_member_count": 1,
        "m.invited_member_count": 1,
    }
    assert "m.heroes" not in rooms[named]["summary"]


@pytest.mark.parametrize("name", ["", None, 5, ["Garden"], {"name": "Garden"}, True])
def test_a_room_whose_name_is_no_text_has_heroes(
    login: Login, room: MakeRoom, name: object
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.name", {"name": name})

    summary = bob.sync()["rooms"]["join"][room_id]["summary"]

    assert summary["m.heroes"] == [alice.user_id]
    shown = ask(bob)["rooms"][room_id]
    assert [hero["user_id"] for hero in shown["heroes"]] == [alice.user_id]


def test_only_the_sending_device_sees_its_transaction_id(login: Login, room: MakeRoom) -> None:
    alice, other_device = login("alice"), login("alice")
    room_id = room(alice)
    path = f"rooms/{quote(room_id)}/send/m.room.message/my-own-id"
    alice.put(path, json={"msgtype": "m.text", "body": "hello"})

    def transaction(person: Person) -> Any:
        events = person.sync()["rooms"]["join"][room_id]["timeline"]["events"]
        return events[-1]["unsigned"].get("transaction_id")

    assert (transaction(alice), transaction(other_device)) == ("my-own-id", None)


@pytest.mark.parametrize("token", ["x", "s-1", "s99999999", "t12", "s1_2_3", "s" + "9" * 40, "%00"])
def test_a_token_that_is_none_is_refused(login: Login, token: str) -> None:
    answer = login("alice").get("sync", query_string={"since": token})

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    "query", [{"timeout": "soon"}, {"timeout": "-1"}, {"filter": "{"}, {"set_presence": "away"}]
)
def test_a_parameter_that_makes_no_sense_is_refused(login: Login, query: Json) -> None:
    answer = login("alice").get("sync", query_string=query)

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_INVALID_PARAM")


def test_sync_needs_a_token(client: FlaskClient) -> None:
    answer = client.get("/_matrix/client/v3/sync")

    assert (answer.status_code, answer.get_json()["errcode"]) == (401, "M_MISSING_TOKEN")


class Follower:
    """A client that knows rooms only from what /sync sent it."""

    def __init__(self, person: Person, **query: Any) -> None:
        self.person = person
        self.query = query
        self.token: str | None = None
        self.state: dict[str, dict[tuple[str, str], str]] = {}
        self.seen: dict[str, list[str]] = {}

    def follow(self) -> None:
        news = self.person.sync(self.token, **self.query)
        self.token = news["next_batch"]
        for room_id in news["rooms"]["leave"]:
            self.state.pop(room_id, None)
        for room_id, entry in news["rooms"]["join"].items():
            known = self.state.setdefault(room_id, {})
            timeline = entry["timeline"]["events"]
            for event in entry.get("state", entry.get("state_after"))["events"]:
                known[event["type"], event["state_key"]] = event["event_id"]
            if "state" in entry:
                for event in timeline:
                    if "state_key" in event:
                        known[event["type"], event["state_key"]] = event["event_id"]
            if entry["timeline"]["limited"]:  # there is a gap: what was known stands apart from it
                self.seen[room_id] = []
            self.seen.setdefault(room_id, []).extend(event["event_id"] for event in timeline)


def act(chance: random.Random, alice: Person, bob: Person, rooms: list[str], step: int) -> None:
    """Something that users do in rooms."""
    room_id = chance.choice(rooms)
    match chance.randrange(6):
        case 0:
            bob.post(f"rooms/{quote(room_id)}/join")
        case 1 if chance.random() < 0.4:
            bob.post(f"rooms/{quote(room_id)}/leave")
        case 2:
            alice.set_state(room_id, "m.room.topic", {"topic": str(step)})
        case 3:
            alice.set_state(room_id, "org.example.x", {"v": step}, str(chance.randrange(3)))
        case _:
            alice.send(room_id, str(step))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("query", [{}, {"use_state_after": "true"}])
def test_followers_of_any_pace_know_the_true_state(
    login: Login, room: MakeRoom, seed: int, query: Json
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    alice, bob = login("alice"), login("bob")
    rooms = [room(alice), room(alice)]
    eager, lazy = Follower(bob, **query), Follower(bob, **query)

    for step in range(60):
        act(chance, alice, bob, rooms, step)
        if chance.random() < 0.5:
            eager.follow()
        if chance.random() < 0.05:
            lazy.follow()
    eager.follow()
    lazy.follow()

    true = true_state(bob)
    for follower in (eager, lazy):
        assert follower.state == true
        for events in follower.seen.values():
            assert len(events) == len(set(events))


def true_state(person: Person) -> dict[str, dict[tuple[str, str], str]]:
    """{room_id: {(type, state_key): event ID}} of the rooms that the person is in."""
    found = {}
    for room_id in person.get("joined_rooms").get_json()["joined_rooms"]:
        now = person.get(f"rooms/{quote(room_id)}/state").get_json()
        found[room_id] = {(event["type"], event["state_key"]): event["event_id"] for event in now}
    return found
