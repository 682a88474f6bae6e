"""Sliding sync over a long course of events: nothing is missing or sent twice.

Bob's client uses windows of all sizes, loses some responses and repeats the requests, and stores
what it receives. Some servers are stopped or killed now and then. In the end the client must have
the data of the server.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from homebody.core.sliding_sync import kept_states
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.sliding import Json, request, window

MakeRoom = Callable[..., str]
STEPS = 70
REQUIRED = [["m.room.topic", ""], ["m.room.member", "$ME"]]


@dataclass
class Known:
    """The client's data about a room."""

    timeline: list[str] = field(default_factory=list)
    """Ids of events without a gap between them."""
    state: dict[str, Json] = field(default_factory=dict)
    """By type."""
    rest: Json = field(default_factory=dict)

    def hear(self, entry: Json) -> None:
        """Store the part of a response about the room."""
        if entry.get("initial"):
            self.timeline, self.state, self.rest = [], {}, {}
        said = [event["event_id"] for event in entry.get("timeline", ())]
        assert len(set(said)) == len(said)
        if entry.get("limited"):
            self.timeline = []
        assert not set(said) & set(self.timeline)
        self.timeline += said
        for event in entry.get("required_state", ()):
            self.state[event["type"]] = event["content"]
        names = ("name", "joined_count", "membership", "notification_count", "bump_stamp")
        before = self.rest.get("bump_stamp", 0)
        self.rest |= {name: entry[name] for name in names if name in entry}
        if self.rest["membership"] == "join":
            assert self.rest["bump_stamp"] >= before


class Client:
    """Bob's client."""

    def __init__(self, person: Person, chance: random.Random) -> None:
        self.person = person
        self.chance = chance
        self.pos: str | None = None
        self.rooms: dict[str, Known] = {}
        self.starts = 0

    def look(self, last: int, limit: int) -> None:
        """Send a request, and store the response unless it gets lost."""
        lists = window(last, limit=limit, required_state=REQUIRED)
        answer = request(self.person, self.pos, lists=lists).get_json()
        if answer.get("errcode") == "M_UNKNOWN_POS":
            self.pos, self.starts = None, self.starts + 1
            return
        if self.chance.random() < 0.2:
            return
        self.pos = answer["pos"]
        for room_id, entry in answer["rooms"].items():
            self.rooms.setdefault(room_id, Known()).hear(entry)


def act(chance: random.Random, alice: Person, bob: Person, room_id: str) -> None:
    """Run one step in a room."""
    path = f"rooms/{quote(room_id)}"
    what = chance.choice(["say"] * 4 + ["answer", "topic", "name", "kick", "leave", "join", "read"])
    if what == "say":
        alice.send(room_id)
    elif what == "answer":
        bob.put(f"{path}/send/m.room.message/{chance.random()}", json={"body": "yes"})
    elif what in {"topic", "name"}:
        alice.set_state(room_id, f"m.room.{what}", {what: str(chance.random())})
    elif what == "kick":
        alice.post(f"{path}/kick", json={"user_id": bob.user_id})
    elif what == "read":
        events = visible(bob, room_id)
        bob.post(f"{path}/receipt/m.read/{quote(events[-1])}" if events else "sync")
    else:
        bob.post(f"{path}/{what}")


def visible(person: Person, room_id: str) -> list[str]:
    """Return the ids of all events visible to the person, oldest first; none if not joined."""
    query = {"dir": "b", "limit": 500}
    answer = person.get(f"rooms/{quote(room_id)}/messages", query_string=query)
    chunk = answer.get_json()["chunk"] if answer.status_code == 200 else []
    return [event["event_id"] for event in reversed(chunk)]


@dataclass
class Servers:
    """Servers on the same database, of which the last one runs."""

    make_app: MakeApp
    app: Application
    chance: random.Random

    def disturb(self, *people: Person) -> None:
        """Write the connections, or stop or kill the server; or do nothing."""
        kept, database = self.app.homeserver.sliding_connections, self.app.homeserver.database
        what = self.chance.random()
        if what < 0.2:
            kept_states.write(database, kept, is_last=what < 0.1)
        if 0.05 < what < 0.15 or 0.2 < what < 0.25:
            self.app = self.make_app()
            for person in people:
                person.client = self.app.test_client()


@pytest.mark.parametrize("has_restarts", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_client_knows_in_the_end_what_the_server_knows(
    app: Application, make_app: MakeApp, login: Login, room: MakeRoom, seed: int, has_restarts: bool
) -> None:
    chance = random.Random(seed)  # noqa: S311 - the same course in every run
    alice, bob = login("alice"), login("bob")
    rooms = [room(alice, bob, name=f"Room {number}") for number in range(5)]
    client, servers = Client(bob, chance), Servers(make_app, app, chance)
    for _ in range(STEPS):
        act(chance, alice, bob, chance.choice(rooms))
        if chance.random() < 0.5:
            client.look(chance.randrange(5), chance.choice([1, 2, 5]))
        if has_restarts:
            servers.disturb(alice, bob)
    for room_id in rooms:
        bob.post(f"rooms/{quote(room_id)}/join")
    for _ in range(12):  # some of them get lost
        client.look(9, 5)

    assert has_restarts or client.starts == 0
    first = bob.sync()["rooms"]["join"]
    for room_id in rooms:
        known, events = client.rooms[room_id], visible(bob, room_id)
        assert known.timeline == events[-len(known.timeline) :]
        assert len(known.timeline) >= min(5, len(events))
        state = {
            it["type"]: it["content"] for it in bob.get(f"rooms/{quote(room_id)}/state").get_json()
        }
        assert known.state.get("m.room.topic") == state.get("m.room.topic")
        assert known.state["m.room.member"]["membership"] == known.rest["membership"] == "join"
        assert known.rest["name"] == state["m.room.name"]["name"]
        assert known.rest["joined_count"] == 2
        unread = first[room_id]["unread_notifications"]["notification_count"]
        assert known.rest["notification_count"] == unread
