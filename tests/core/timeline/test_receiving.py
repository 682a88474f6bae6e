"""Events of other servers in rooms that fork, in the real tables, against whole states."""

from __future__ import annotations

import random

import pytest

from homebody.core.events import state
from homebody.core.timeline import sending
from homebody.spec.events import Event
from homebody.spec.room_versions import V1, V2, V11, V12, RoomVersion
from homebody.storage.database import Database
from tests.helpers.forked_rooms import Copy
from tests.spec.dag import ALICE, BOB, CAROL, Room
from tests.spec.test_state_resolution_properties import PEOPLE, Act, play

always = pytest.mark.parametrize("version", [V1, V2, V11, V12], ids=["v1", "v2", "v11", "v12"])
ACTS = ("join", "join", "leave", "kick", "ban", "invite", "topic", "topic", "levels", "rule")
EXAMPLES = 12


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
