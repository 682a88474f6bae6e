"""How a room of other servers becomes one of this server's: by the state before a user's join.

The events of that state are stored as outliers before. What this server knows of the room from
earlier, by an invite or as it was in the room before, is compared: it stays for its time, and what
differs changes at the join.

Spec: server-server-api#joining-rooms
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import select

from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.partial_rooms import PartialRoom
from homebody.core.timeline import current_state, forks, partial_state, store
from homebody.models.base import NOW_AND_LATER
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

ENTRIES_PER_WRITE: Final = 500
"""Other writers wait for some 5 ms."""
Entries = Mapping[StateKey, tuple[int, str | None]]
"""{(type, state_key): (number of the event, membership if it is of a member)}"""

_KNOWN = select(
    StateInterval.type,
    StateInterval.state_key,
    StateInterval.event_number,
    StateInterval.from_position,
    StateInterval.to_position,
).where(StateInterval.room_number == state.ROOM_NUMBER)


def is_resident(tx: Reader, room_id: str) -> bool:
    """Return whether a user of this server is in the room, so that others send it its events."""
    return tx.server.name in state.joined(tx, room_id).servers


def is_known(tx: Reader, room_id: str) -> bool:
    """Return whether this server is in the room, or knows its state from an earlier stay."""
    if is_resident(tx, room_id):
        return True
    known, _ = _known(tx, room_id)
    return any(key[0] != state.MEMBER for key in known)


def may_join_here(tx: Reader, room_id: str, user_id: str) -> bool:
    """Return whether this server knows enough of the room to decide whether a local user may join.

    In a partial room it does not know whom others have invited or banned before.
    """
    if not is_resident(tx, room_id):
        return False
    own = (state.MEMBER, user_id)
    is_known = state.entries(tx, room_id, [own])[own].is_there
    return is_known or not partial_rooms.is_partial(tx, room_id)


def begin_state(db: Database, room_id: str, entries: Entries) -> None:
    """Store the state of a room of which nothing is known yet, in several writes.

    Nobody sees it until a user of this server is in the room. If the process ends before, the next
    join finds it.
    """
    with db.read() as tx:
        known, _ = _known(tx, room_id)
        new = {
            key: it
            for key, it in entries.items()
            if not (key[0] == state.MEMBER and tx.server.is_local(key[1]))
        }
    if any(key[0] != state.MEMBER for key in known):
        return
    for some in batches(list(new.items()), ENTRIES_PER_WRITE):
        with db.write() as writing:
            current_state.begin_many(
                writing, room_id, {key: it for key, it in some if key not in known}, 0
            )
        event_loop.pause()


def enter(
    tx: Tx,
    room_id: str,
    version: str,
    entries: Entries,
    join: Event,
    encoded: bytes,
    partial: PartialRoom | None = None,
) -> None:
    """Make this the state of a room, and the join of a local user its only newest event.

    `encoded` is the join's PDU in canonical JSON. The room must have its row. `partial`: the
    entries lack members, and the room is not known.
    """
    if partial is not None:
        partial_state.begin(tx, partial)
    known, has_changed = _known(tx, room_id)
    changes: dict[StateKey, int | None] = {
        key: None
        for key, number in known.items()
        if number is not None
        and key not in entries
        and not (partial is not None and key[0] == state.MEMBER)
    }
    new: dict[StateKey, tuple[int, str | None]] = {}
    for key, (number, membership) in entries.items():
        is_local = key[0] == state.MEMBER and tx.server.is_local(key[1])
        if key not in known and not is_local:
            new[key] = (number, membership)
        elif known.get(key) != number:
            changes[key] = number
    position = tx.next_position()
    # "since ever, as far as known", unless this server knows the room without them
    current_state.begin_many(tx, room_id, new, position if has_changed else 0)
    store.begin_anew(tx, room_id, version)
    current_state.apply(tx, room_id, forks.numbered(tx, room_id, changes), position)
    store.store(tx, join, encoded, is_after_gap=True)


def _known(tx: Reader, room_id: str) -> tuple[dict[StateKey, int | None], bool]:
    """Return the entries that the room has ever had, and whether this server saw them change.

    {key: number of its current event, or None}. Invites of local users don't count as changes.
    """
    found: dict[StateKey, int | None] = {}
    has_changed = False
    for row in tx.sql.execute(_KNOWN, {"room_id": room_id}):
        has_changed |= row.type != state.MEMBER and row.from_position > 0
        key = (row.type, row.state_key)
        if row.to_position == NOW_AND_LATER:
            found[key] = row.event_number
        else:
            found.setdefault(key, None)
    return found, has_changed
