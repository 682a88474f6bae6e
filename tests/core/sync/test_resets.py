"""State that changes without an event in the timeline, as clients see it.

A client that follows /sync, in each of its forms, knows the current state in the end.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers import sliding
from tests.helpers.large_room import store_event, store_member
from tests.helpers.resets import member, reset
from tests.helpers.rooms import act, state_of

Json = dict[str, Any]
TOPIC, NAME = ("m.room.topic", ""), ("m.room.name", "")
FORMS = ["state", "state_after", "sliding"]


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


@pytest.fixture
def room_id(alice: Person, bob: Person, room: Callable[..., str]) -> str:
    return room(alice, bob, name="Tea")


def topic(person: Person, room_id: str, text: str) -> str:
    """Set the topic and return the id of the event."""
    answer = person.set_state(room_id, "m.room.topic", {"topic": text})
    return str(answer.get_json()["event_id"])


class Client:
    """What a client knows of one room."""

    def __init__(self, person: Person, room_id: str, form: str, limit: int = 10) -> None:
        self.person, self.room_id, self.form, self.limit = person, room_id, form, limit
        self.token: str | None = None
        self.state: dict[tuple[str, str], Json] = {}
        self.entry: Json = {}
        """The last part of a response about the room."""
        self.body: Json = {}
        """The last response."""

    def follow(self) -> Json:
        """Make a request, take in what it says about the room, and return that."""
        self.entry = self._sliding() if self.form == "sliding" else self._sync()
        return self.entry

    def _sync(self) -> Json:
        query: Json = {"filter": f'{{"room":{{"timeline":{{"limit":{self.limit}}}}}}}'}
        if self.form == "state_after":
            query["use_state_after"] = "true"
        self.body = self.person.sync(self.token, **query)
        self.token = self.body["next_batch"]
        entry: Json = self.body["rooms"]["join"].get(self.room_id, {})
        events = [*entry.get(self.form, {}).get("events", [])]
        if self.form == "state":
            events += entry.get("timeline", {}).get("events", [])
        self._take(events)
        return entry

    def _sliding(self) -> Json:
        lists = sliding.window(9, limit=self.limit, required_state=[["*", "*"]])
        self.body = sliding.ask(self.person, self.token, lists=lists)
        self.token = self.body["pos"]
        entry: Json = self.body["rooms"].get(self.room_id, {})
        self._take(entry.get("required_state", []))
        return entry

    def _take(self, events: list[Json]) -> None:
        for event in events:
            if "state_key" in event:
                self.state[event["type"], event["state_key"]] = event["content"]


@pytest.mark.parametrize("form", FORMS)
def test_state_that_comes_back_is_sent_though_nothing_happened_in_the_timeline(
    app: Application, alice: Person, bob: Person, room_id: str, form: str
) -> None:
    first = topic(alice, room_id, "first")
    topic(alice, room_id, "second")
    client = Client(bob, room_id, form)
    client.follow()

    reset(app, room_id, {TOPIC: first})
    entry = client.follow()

    assert client.state[TOPIC] == {"topic": "first"}
    timeline = entry["timeline"] if form == "sliding" else entry["timeline"]["events"]
    assert timeline == []
    assert client.follow() == {}


@pytest.mark.parametrize("form", FORMS)
def test_a_device_that_comes_later_gets_it_as_well(
    app: Application, alice: Person, bob: Person, room_id: str, form: str
) -> None:
    first = topic(alice, room_id, "first")
    topic(alice, room_id, "second")
    alice.send(room_id)
    reset(app, room_id, {TOPIC: first})
    alice.send(room_id)
    client = Client(bob, room_id, form)

    client.follow()

    assert client.state[TOPIC] == {"topic": "first"}


def test_a_timeline_begins_after_an_event_that_is_not_the_state_any_more(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    first = topic(alice, room_id, "first")
    client = Client(bob, room_id, "state")
    client.follow()
    before = alice.send(room_id, "before")
    second = topic(alice, room_id, "second")
    after = alice.send(room_id, "after")
    reset(app, room_id, {TOPIC: first})

    timeline = client.follow()["timeline"]

    assert [event["event_id"] for event in timeline["events"]] == [after]
    assert timeline["limited"] is True
    path = f"rooms/{quote(room_id)}/messages"
    page = bob.get(path, query_string={"dir": "b", "from": timeline["prev_batch"]}).get_json()
    assert [event["event_id"] for event in page["chunk"]][:2] == [second, before]


def test_a_timeline_is_whole_though_a_member_has_an_earlier_name(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    def rename(name: str) -> str:
        content = {"membership": "join", "displayname": name}
        answer = bob.set_state(room_id, "m.room.member", content, bob.user_id)
        return str(answer.get_json()["event_id"])

    early = rename("Bobby")
    client = Client(alice, room_id, "state")
    client.follow()
    said, late = bob.send(room_id), rename("Bob")
    reset(app, room_id, {member(bob.user_id): early})

    timeline = client.follow()["timeline"]

    assert [it["event_id"] for it in timeline["events"]] == [said, late]
    assert timeline["limited"] is False


def test_a_timeline_is_whole_where_the_state_after_it_is_sent(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    first = topic(alice, room_id, "first")
    client = Client(bob, room_id, "state_after")
    client.follow()
    second = topic(alice, room_id, "second")
    reset(app, room_id, {TOPIC: first})

    timeline = client.follow()["timeline"]

    assert [event["event_id"] for event in timeline["events"]] == [second]
    assert timeline["limited"] is False
    assert client.state[TOPIC] == {"topic": "first"}


@pytest.mark.parametrize("form", FORMS)
def test_a_state_event_that_another_branch_has_beaten_is_not_taken_for_the_state(
    app: Application, alice: Person, bob: Person, room_id: str, form: str
) -> None:
    first = topic(alice, room_id, "first")
    topic(alice, room_id, "second")
    client = Client(bob, room_id, form)
    client.follow()
    with app.homeserver.database.write() as tx:
        content = {"topic": "from a branch where its sender may not"}
        store_event(tx, room_id, "@far:far.test", TOPIC[0], content, "", [first])
    last = alice.send(room_id)

    timeline = client.follow()["timeline"]

    events = timeline if form == "sliding" else timeline["events"]
    assert events[-1]["event_id"] == last
    assert client.state[TOPIC] == state_of(alice, room_id)[TOPIC] == {"topic": "second"}


@pytest.mark.parametrize("form", FORMS)
def test_an_invite_that_goes_is_taken_away(
    app: Application, login: Login, alice: Person, room_id: str, form: str
) -> None:
    carol = login("carol")
    assert act(alice, room_id, "invite", user_id=carol.user_id).status_code == 200
    client = Client(carol, room_id, form)
    client.follow()
    invited = client.body["rooms"] if form == "sliding" else client.body["rooms"]["invite"]

    reset(app, room_id, {member(carol.user_id): None})
    client.follow()

    rooms = client.body["rooms"]
    assert room_id in invited
    if form == "sliding":
        assert rooms[room_id]["membership"] == "leave"
    else:
        assert (room_id in rooms["leave"], rooms["invite"]) == (True, {})


def test_a_change_after_a_reset_is_the_state(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    first = topic(alice, room_id, "first")
    client = Client(bob, room_id, "state")
    client.follow()
    topic(alice, room_id, "second")
    reset(app, room_id, {TOPIC: first})
    topic(alice, room_id, "third")

    timeline = client.follow()["timeline"]

    assert client.state[TOPIC] == {"topic": "third"}
    assert (len(timeline["events"]), timeline["limited"]) == (2, False)


def test_a_name_that_goes_goes_from_a_sliding_list(
    app: Application, bob: Person, room_id: str
) -> None:
    client = Client(bob, room_id, "sliding")
    client.follow()

    reset(app, room_id, {NAME: None})
    entry = client.follow()

    assert entry["name"] is None
    assert [hero["user_id"] for hero in entry["heroes"]] == ["@alice:localhost"]


def test_a_removed_member_is_not_counted_and_their_devices_are_forgotten(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    far = "@far:far.test"
    with app.homeserver.database.write() as tx:
        store_member(tx, room_id, far, "join")
    since = alice.sync()["next_batch"]

    reset(app, room_id, {member(far): None, member(bob.user_id): None})
    body = alice.sync(since)

    assert body["rooms"]["join"][room_id]["summary"]["m.joined_member_count"] == 1
    assert body["device_lists"]["left"] == sorted([bob.user_id, far])


@pytest.mark.parametrize("query", [{}, {"use_state_after": "true"}])
def test_a_removed_user_sees_that_they_have_left(
    app: Application, alice: Person, bob: Person, room_id: str, query: Json
) -> None:
    since = bob.sync(**query)["next_batch"]
    last = alice.send(room_id, "before")
    reset(app, room_id, {member(bob.user_id): None})
    alice.send(room_id, "after")

    rooms = bob.sync(since, **query)["rooms"]

    assert rooms["join"] == {}
    events = rooms["leave"][room_id]["timeline"]["events"]
    assert [event["event_id"] for event in events] == [last]
    section = rooms["leave"][room_id]["state_after" if query else "state"]
    assert section["events"][-1]["content"] == {"membership": "leave"}
    assert room_id in bob.sync(filter='{"room":{"include_leave":true}}')["rooms"]["leave"]
    assert bob.sync()["rooms"]["leave"] == {}
    read = bob.get(f"rooms/{quote(room_id)}/messages?dir=b").get_json()["chunk"]
    assert [event["unsigned"]["membership"] for event in read[:2]] == ["join", "join"]


def test_a_removed_user_sees_it_by_sliding_sync(
    app: Application, alice: Person, bob: Person, room_id: str
) -> None:
    client = Client(bob, room_id, "sliding")
    client.follow()
    alice.send(room_id, "before")
    reset(app, room_id, {member(bob.user_id): None})

    entry = client.follow()

    assert entry["membership"] == "leave"
    assert client.state[member(bob.user_id)] == {"membership": "leave"}
    assert sliding.bodies(client.body, room_id) == ["before"]
    assert client.body["lists"]["all"]["count"] == 0
    assert client.follow() == {}


@pytest.mark.parametrize("form", FORMS)
def test_a_user_whose_join_comes_back_is_in_the_room_again(
    app: Application, alice: Person, bob: Person, room_id: str, form: str
) -> None:
    joined = next(
        event["event_id"]
        for event in alice.get(f"rooms/{quote(room_id)}/members").get_json()["chunk"]
        if event["state_key"] == bob.user_id
    )
    client = Client(bob, room_id, form)
    client.follow()
    bob.post(f"rooms/{quote(room_id)}/leave")
    client.follow()

    reset(app, room_id, {member(bob.user_id): joined})

    assert client.follow()
    assert client.state[member(bob.user_id)]["membership"] == "join"
    assert bob.put(f"rooms/{quote(room_id)}/send/m.room.message/1", json={}).status_code == 200


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(6))
def test_a_client_that_follows_knows_the_state(
    app: Application, alice: Person, bob: Person, room_id: str, form: str, seed: int
) -> None:
    choice = random.Random(seed)  # noqa: S311 - the same course in every run
    client = Client(bob, room_id, form, limit=choice.choice([1, 2, 10]))
    topics = [topic(alice, room_id, "0")]
    client.follow()

    for number in range(1, 60):
        what = choice.random()
        if what < 0.3:
            alice.send(room_id)
        elif what < 0.5:
            topics.append(topic(alice, room_id, str(number)))
        elif what < 0.6:
            alice.set_state(room_id, "m.room.name", {"name": str(number)})
        elif what < 0.75:
            reset(app, room_id, {TOPIC: choice.choice(topics)})
        else:
            client.follow()
            known = {key: client.state[key] for key in (TOPIC, NAME)}
            held = state_of(alice, room_id)
            assert known == {key: held[key] for key in (TOPIC, NAME)}
            fresh = Client(bob, room_id, form, limit=client.limit)
            fresh.follow()
            assert fresh.state[TOPIC] == held[TOPIC]
