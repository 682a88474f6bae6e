"""Events of other servers in rooms that fork, in the real tables, against whole states."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.core.events import state
from homebody.core.timeline import forks, receiving, sending, store
from homebody.models.events import ACCEPTED, SOFT_FAILED
from homebody.spec import canonical_json, event_auth
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, StateKey
from homebody.spec.room_versions import V1, V2, V11, V12, RoomVersion
from homebody.spec.signing import SigningKey
from homebody.storage.caches import Caches
from homebody.storage.database import Database, Server
from tests.spec.dag import ALICE, BOB, CAROL, Room, room_id
from tests.spec.test_state_resolution_properties import PEOPLE, Act, play

always = pytest.mark.parametrize("version", [V1, V2, V11, V12], ids=["v1", "v2", "v11", "v12"])
ACTS = ("join", "join", "leave", "kick", "ban", "invite", "topic", "topic", "levels", "rule")
EXAMPLES = 12


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Iterator[Database]:
    path = tmp_path / "homebody.db"
    shutil.copy(empty_database, path)
    settings = config.load(None, {}, {"data_dir": str(tmp_path), "server_name": "one.example"})
    server = Server("one.example", SigningKey.from_seed("a_1", bytes(32)), settings)
    db = Database(f"sqlite:///{path}", server, Caches(2**24), lambda _users: None)
    db.writer.raw.execute("PRAGMA synchronous = OFF")
    yield db
    db.close()


class Copy:
    """A room in the database, which gets its events one by one, and what it should be."""

    def __init__(self, database: Database, room: Room) -> None:
        self.database = database
        self.room = room
        self.room_id = room_id(room.version)
        self.ends: list[str] = []
        self.standings: dict[str, str] = {}
        with database.write() as tx:
            store.add_room(tx, self.room_id, state.RoomHead(room.version.name, [], 0))

    def receive(self, event: Event) -> str:
        """Give an event to the server, and say what should become of it."""
        with self.database.write() as tx:
            standing = receiving.receive(tx, event, canonical_json.encode(event.pdu))
        expected = ACCEPTED if self.is_allowed_now(event) else SOFT_FAILED
        assert standing == expected, event
        self.standings[event.event_id] = standing
        if standing == ACCEPTED:
            cited = event.prev_event_ids
            self.ends = [it for it in self.ends if it not in cited] + [event.event_id]
        return standing

    def is_allowed_now(self, event: Event) -> bool:
        if not self.ends:
            return True
        try:
            event_auth.check(event, self.room.as_events(self.state_now()))
        except AuthError:
            return False
        return True

    def state_now(self) -> dict[StateKey, str]:
        return self.room.state_after(*(self.room.events[it] for it in self.ends))

    def stored_state(self, after: str | None = None) -> dict[StateKey, str]:
        """Return what the server has as the current state, or as the state after an event."""
        with self.database.read() as tx:
            point = forks.current(tx)
            if after is not None:
                point = forks.after_events(tx, [after])[after]
            numbers = forks.whole(tx, self.room_id, point)
            ids = forks.ids(tx, self.room_id, numbers.values())
            return {key: ids[number] for key, number in numbers.items()}

    def check(self) -> None:
        assert self.stored_state() == self.state_now()
        with self.database.read() as tx:
            assert sorted(state.head(tx, self.room_id).forward_extremities) == sorted(self.ends)
            keys = list(self.room.states[next(iter(reversed(self.room.states)))])
            cached = state.current_many(tx, self.room_id, keys)
        now = self.state_now()
        assert {key: it.event_id for key, it in cached.items()} == {
            key: now[key] for key in keys if key in now
        }


def script(chance: random.Random, length: int) -> list[Act]:
    return [
        Act(
            name=chance.choice(ACTS),
            sender=chance.choice(PEOPLE),
            target=chance.choice(PEOPLE),
            level=chance.choice([0, 49, 50, 51, 99]),
            back=(chance.randint(0, 4), chance.randint(0, 4)),
            ts=chance.randint(1, 5),
        )
        for _ in range(length)
    ]


def in_some_order(room: Room, chance: random.Random) -> list[Event]:
    """Return the room's events in an order in which each follows its predecessors."""
    left, done, ordered = list(room.events.values()), set[str](), []
    while left:
        ready = [it for it in left if done.issuperset(it.prev_event_ids)]
        event = chance.choice(ready[:3])
        left.remove(event)
        done.add(event.event_id)
        ordered.append(event)
    return ordered


def test_a_redaction_that_comes_first_applies_when_its_target_comes(database: Database) -> None:
    room = Room(V11)
    room.start({"users": {ALICE: 100}})
    room.member(BOB, "join")
    room.member(CAROL, "join")
    copy = Copy(database, room)
    for event in list(room.events.values()):
        copy.receive(event)
    fork = list(room.events.values())[-1]
    said = room.send(BOB, "m.room.message", {"body": "oops"}, after=[fork])
    redaction = room.send(BOB, "m.room.redaction", {"redacts": said.event_id}, after=[fork])
    other = room.send(ALICE, "m.room.message", {"body": "fine"}, after=[fork])
    powerless = room.send(CAROL, "m.room.redaction", {"redacts": other.event_id}, after=[fork])

    for event in (redaction, powerless, said, other):
        copy.receive(event)

    with database.read() as tx:
        found = state.find_many(tx, [said.event_id, other.event_id])
        waiting = tx.sql.raw.execute("SELECT * FROM pending_redactions").fetchall()
    assert found[said.event_id].event.content == {}
    assert found[other.event_id].event.content == {"body": "fine"}
    assert waiting == []


def test_an_event_of_a_local_user_follows_a_part_of_many_ends(database: Database) -> None:
    room = Room(V11)
    room.start({"users": {ALICE: 100}, "state_default": 0})
    copy = Copy(database, room)
    for event in list(room.events.values()):
        copy.receive(event)
    fork = list(room.events.values())[-1]
    for number in range(25):
        topic = room.topic(ALICE, f"topic {number}", after=[fork], ts=2000 + number)
        copy.receive(topic)
    assert len(copy.ends) == 25

    with database.write() as tx:
        sending.send(tx, sending.Draft(copy.room_id, ALICE, "m.room.name", {"name": "tea"}, ""))

    with database.read() as tx:
        head = state.head(tx, copy.room_id)
        sent = state.current(tx, copy.room_id, "m.room.name")
        topic_now = state.current(tx, copy.room_id, "m.room.topic")
    assert sent is not None
    assert topic_now is not None
    assert sent.prev_event_ids == copy.ends[-10:]
    assert head.forward_extremities == [*copy.ends[:-10], sent.event_id]
    assert topic_now.content == {"topic": "topic 24"}


@always
@pytest.mark.parametrize("seed", range(EXAMPLES))
def test_each_state_is_that_of_whole_states_whatever_the_order_of_arrival(
    database: Database, version: RoomVersion, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    room = play(version, script(chance, 40))
    copy = Copy(database, room)

    for event in in_some_order(room, chance):
        copy.receive(event)
        assert copy.stored_state(event.event_id) == room.states[event.event_id], event
        copy.check()
