"""What servers have in their databases, read beside them, to be compared with each other."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, select

from homebody.models.base import NOW_AND_LATER
from homebody.models.events import OUT_OF_BAND, OUTLIER, StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from tests.helpers.network import Homebody

State = dict[tuple[str, str], str]
"""{(type, state_key): event ID}"""

_STATE = (
    select(StateInterval.type, StateInterval.state_key, StoredEvent.event_id)
    .join(Room, Room.number == StateInterval.room_number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
)
_EVENTS = select(StoredEvent.event_id, StoredEvent.standing).where(
    StoredEvent.standing.not_in((OUTLIER, OUT_OF_BAND))
)


@contextmanager
def _reading(server: Homebody) -> Iterator[Connection]:
    uri = f"file:{server.data_dir / 'homebody.db'}?mode=ro"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True))
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def state(server: Homebody, room_id: str) -> State:
    """Return the current state of a room, as a server has it."""
    wanted = _STATE.where(Room.room_id == room_id, StateInterval.to_position == NOW_AND_LATER)
    with _reading(server) as connection:
        rows = connection.execute(wanted)
        return {(row.type, row.state_key): row.event_id for row in rows}


def members(server: Homebody, room_id: str) -> set[str]:
    """Return the servers with joined users in a room, as a server has it."""
    wanted = select(StateInterval.state_key).join(Room, Room.number == StateInterval.room_number)
    wanted = wanted.where(
        Room.room_id == room_id,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
    with _reading(server) as connection:
        return {user_id.partition(":")[2] for user_id in connection.execute(wanted).scalars()}


def events(server: Homebody, room_id: str) -> dict[str, str]:
    """Return {event ID: standing} of the events of a room, without those that are only cited."""
    with _reading(server) as connection:
        rows = connection.execute(_EVENTS.where(StoredEvent.room_id == room_id))
        return {row.event_id: row.standing for row in rows}
