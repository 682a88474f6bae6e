"""The state of a room, now and at a position.

The room's story: Alice makes it, Bob joins, its name changes, Bob leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Select

from homebody.core.events import state
from homebody.core.sync import device_lists
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.spec.events import StateKey
from homebody.spec.room_versions import VERSIONS
from homebody.storage.database import Database, Reader
from homebody.web import Application
from tests.helpers.rooms import state_at

ALICE, BOB = "@alice:localhost", "@bob:localhost"
ROOM = "!room:localhost"
NAME = ("m.room.name", "")
KEYS: list[StateKey] = [("m.room.create", ""), NAME, (state.MEMBER, BOB), ("m.room.name", BOB)]


def happens(db: Database, sender: str, kind: str, key: str, **content: Any) -> int:
    """Set an entry of the state; the position after it."""
    with db.write() as tx:
        sending.send(tx, Draft(ROOM, sender, kind, content, state_key=key))
        return tx.position


@pytest.fixture
def positions(app: Application) -> list[int]:
    """Where Bob has joined, the room has its second name, Bob has left."""
    db = app.homeserver.database
    with db.write() as tx:
        sending.create(tx, VERSIONS["11"], Draft(ROOM, ALICE, "m.room.create", {}, state_key=""))
    happens(db, ALICE, state.MEMBER, ALICE, membership="join")
    happens(db, ALICE, "m.room.join_rules", "", join_rule="public")
    happens(db, ALICE, *NAME, name="first")
    return [
        happens(db, BOB, state.MEMBER, BOB, membership="join"),
        happens(db, ALICE, *NAME, name="second"),
        happens(db, BOB, state.MEMBER, BOB, membership="leave"),
    ]


@pytest.fixture
def tx(app: Application, positions: list[int]) -> Iterator[Reader]:
    """A look at the room when all has happened, which finds nothing in the caches."""
    assert positions
    app.homeserver.database.caches.clear(app.homeserver.database.writer.last_position)
    with app.homeserver.database.read() as reader:
        yield reader


def test_asked_for_some_keys_it_gives_those_that_the_room_has_and_no_others(tx: Reader) -> None:
    found = state.current_many(tx, ROOM, KEYS)

    assert list(found) == KEYS[:3]
    assert found[NAME].content == {"name": "second"}
    assert found[state.MEMBER, BOB].content == {"membership": "leave"}


@pytest.mark.parametrize(
    ("after", "name", "membership"),
    [(0, "first", "join"), (1, "second", "join"), (2, "second", "leave")],
)
def test_the_state_at_a_position_is_what_it_was_then(
    tx: Reader, positions: list[int], after: int, name: str, membership: str
) -> None:
    whole = state_at(tx, ROOM, positions[after])

    assert len(whole) == 5
    assert whole[NAME].content == {"name": name}
    assert whole[state.MEMBER, BOB].content == {"membership": membership}


def test_an_entry_knows_since_when_it_is_in_force(tx: Reader, positions: list[int]) -> None:
    found = state.entries(tx, ROOM, [NAME, ("m.room.topic", "")])

    assert found[NAME].since == positions[1]
    named = found[NAME].event
    assert named is not None
    assert (state.find_event(tx, named.event_id) or (None,))[0] == found[NAME].number
    assert found["m.room.topic", ""].event is None


def test_cached_and_read_state_are_the_same(tx: Reader, app: Application) -> None:
    read = state.current_many(tx, ROOM, KEYS)
    with app.homeserver.database.read() as later:
        state.current_many(later, ROOM, KEYS)
        cached = state.current_many(later, ROOM, reversed(KEYS))

    assert {key: event.event_id for key, event in cached.items()} == {
        key: event.event_id for key, event in read.items()
    }
    assert app.homeserver.database.caches.by_kind[state.STATE].hits > 0


@pytest.mark.parametrize(
    ("statement", "values", "step"),
    [
        (state._LAST_RESET, {}, "ix_rooms_state_reset"),  # noqa: SLF001
        (state._RESETS, {"room_ids": [ROOM], "since": 1}, "(room_id=?)"),  # noqa: SLF001
        (
            state._NUMBERS_AT,  # noqa: SLF001
            {"room_id": ROOM, "keys": KEYS, "position": 1},
            "(room_number=? AND type=? AND state_key=? AND from_position<?)",
        ),
        (
            device_lists._SHARING,  # noqa: SLF001
            {"users": [BOB], "user_id": ALICE},
            "(state_key=? AND to_position=?)",
        ),
        (
            device_lists._JOINED_AT,  # noqa: SLF001
            {"moves": [(ROOM, BOB)], "position": 1},
            "(room_number=? AND type=? AND state_key=? AND from_position<?)",
        ),
        (
            device_lists._ENDED,  # noqa: SLF001
            {"room_ids": [ROOM], "since": 1},
            "(room_number=? AND to_position>? AND to_position<?)",
        ),
    ],
)
def test_changes_are_found_by_an_index(
    app: Application, statement: Select[Any], values: dict[str, Any], step: str
) -> None:
    with app.homeserver.database.read() as tx:
        query = tx.sql.compiled(statement)
        sql = f"EXPLAIN QUERY PLAN {query.sql}"
        plan = [row[3] for row in tx.sql.raw.execute(sql, query.bind(values))]

    assert [it for it in plan if step in it], plan
    assert not [it for it in plan if it.startswith("SCAN state_intervals")], plan


def test_an_entry_is_found_by_its_key_alone(app: Application) -> None:
    with app.homeserver.database.read() as tx:
        query = tx.sql.compiled(state._ENTRIES)  # noqa: SLF001 - its plan is the subject
        values = query.bind({"room_id": ROOM, "keys": KEYS})
        plan = [row[3] for row in tx.sql.raw.execute(f"EXPLAIN QUERY PLAN {query.sql}", values)]

    whole_key = "(room_number=? AND type=? AND state_key=? AND from_position=?)"
    assert plan[2] == f"SEARCH state_intervals USING PRIMARY KEY {whole_key}"
    assert not [step for step in plan if "ix_state_intervals_current" in step]
