"""Change the state of a room as state resolution does: without an event in the timeline."""

from __future__ import annotations

from collections.abc import Mapping

from homebody.core.events import state
from homebody.core.events.state_changes import Numbered
from homebody.core.timeline import current_state
from homebody.spec.events import StateKey
from homebody.storage.database import Tx
from homebody.web import Application


def apply(
    tx: Tx, room_id: str, wanted: Mapping[StateKey, str | None], position: int | None = None
) -> None:
    """Make the events with these ids the room's current state; None: there is no such entry."""
    changes: dict[StateKey, Numbered | None] = {}
    for key, event_id in wanted.items():
        changes[key] = None if event_id is None else state.find_event(tx, event_id)
        assert event_id is None or changes[key] is not None
    at = tx.next_position() if position is None else position
    current_state.apply(tx, room_id, changes, at)


def reset(app: Application, room_id: str, wanted: Mapping[StateKey, str | None]) -> None:
    """Do so in a write of its own."""
    with app.homeserver.database.write() as tx:
        apply(tx, room_id, wanted)


def member(user_id: str) -> StateKey:
    """Return the key of a user's member event."""
    return state.MEMBER, user_id
