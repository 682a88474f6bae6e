"""How long the states of forks are kept."""

from __future__ import annotations

import pytest

from homebody.core.timeline import differences, forks
from homebody.spec.room_versions import V11
from homebody.storage.database import Database
from tests.helpers.forked_rooms import Copy
from tests.spec.dag import ALICE, BOB, Room


def forked(database: Database) -> tuple[Copy, list[str]]:
    """A room with two branches of topics and names, merged; the ids of the second branch."""
    room = Room(V11)
    room.start({"users": {ALICE: 100, BOB: 100}})
    room.member(BOB, "join")
    base = list(room.events.values())[-1]
    first = second = base
    branch = []
    for number in range(12):
        first = room.topic(ALICE, f"first {number}", after=[first])
        second = room.send(BOB, f"m.test{number}", {"n": number}, "", after=[second])
        branch.append(second.event_id)
    room.topic(ALICE, "merged", after=[first, second])
    copy = Copy(database, room)
    for event in room.events.values():
        copy.receive(event)
    return copy, branch


def rows(database: Database) -> int:
    with database.read() as tx:
        count: int = tx.sql.raw.execute("SELECT count(*) FROM differing_entries").fetchone()[0]
    return count


def test_the_states_of_a_branch_take_few_rows(database: Database) -> None:
    copy, branch = forked(database)

    assert 0 < rows(database) < 60
    for event_id in branch:
        assert copy.stored_state(event_id) == copy.room.states[event_id]


def test_new_events_keep_their_states(database: Database) -> None:
    copy, branch = forked(database)
    before = rows(database)

    assert differences.sweep(database) == 0

    assert rows(database) == before
    assert copy.stored_state(branch[-1]) == copy.room.states[branch[-1]]


def test_states_of_old_events_are_deleted_but_for_those_that_newer_ones_need(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copy, branch = forked(database)
    monkeypatch.setattr(differences, "MIN_KEPT_DAYS", 0)
    with database.read() as tx:
        known = forks.after_events(tx, copy.ends)
    monkeypatch.setattr(differences, "MIN_KEPT_EVENTS", 5)

    deleted = differences.sweep(database)

    assert deleted > 0
    with database.read() as tx:
        assert forks.after_events(tx, copy.ends) == known
        assert forks.after_events(tx, branch[:1]) == {}
    assert copy.stored_state() == copy.state_now()
    assert differences.sweep(database) == 0
