"""What the members of a room are called, as messages may mention them by their names.

Asked for each message of a client that knows no `m.mentions`, so the names of a room's members are
kept in memory together. This module alone changes that cache.
Spec: client-server-api#push-rules
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import func, select

from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.state import StateInterval
from homebody.spec import identifiers
from homebody.spec.events import Event
from homebody.spec.push_conditions import MAX_NAME_LENGTH
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx


class Names(NamedTuple):
    """What a member may be called, in lower case."""

    display_name: str
    """"" where there is none."""
    localpart: str


NAMES: CacheKind[str, dict[str, Names]] = declare("member_names", 4, lambda names: 300 * len(names))
"""Of all joined members, by room_id."""

_JOINED: Final = (
    select(
        StateInterval.state_key,
        func.json_extract(StoredEvent.pdu, "$.content.displayname").label("display_name"),
    )
    .join(StoredEvent, StoredEvent.position == StateInterval.event_position)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)


def of(tx: Reader, room_id: str) -> Mapping[str, Names]:
    """Return {user_id: names} of the joined members."""
    known = tx.cached(NAMES, room_id)
    if known is None:
        found = tx.sql.execute(_JOINED, {"room_id": room_id})
        known = {row.state_key: _names(row.state_key, row.display_name) for row in found}
        tx.fill(NAMES, room_id, known)
    return known


def follow(tx: Tx, event: Event) -> None:
    """Note what a member is called now; called by timeline.store alone, for each m.room.member."""
    known = tx.cached(NAMES, event.room_id)
    if known is None:
        tx.forget(NAMES, event.room_id)
        return
    user_id = event.state_key or ""
    others = {other: names for other, names in known.items() if other != user_id}
    if event.content.get("membership") == "join":
        others[user_id] = _names(user_id, event.content.get("displayname"))
    tx.remember(NAMES, event.room_id, others)


def forget(tx: Tx, room_id: str) -> None:
    """Read the names anew when they are next asked for."""
    tx.forget(NAMES, room_id)


def remove_room(tx: Tx, room_id: str) -> None:
    """Let nothing of a room be left here; called by rooms/purge.py alone."""
    forget(tx, room_id)


def _names(user_id: str, display_name: object) -> Names:
    name = display_name.lower() if isinstance(display_name, str) else ""
    if len(name) > MAX_NAME_LENGTH:
        name = ""
    return Names(name, identifiers.localpart(user_id).lower())
