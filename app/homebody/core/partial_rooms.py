"""Rooms that a user has joined before this server knows their members: *partial* rooms.

The server by which a user joins may leave the members out of its response, so that the user need
not wait until thousands of events are checked. The rest of the state is known; the members follow
in the background (federation/partial_joins.py). Until then this server takes the servers that the
response names for those in the room, and code that needs all members has to ask `is_partial`.

This module alone writes the table partial_rooms, and changes the cache.
Spec: server-server-api#put_matrixfederationv2send_joinroomideventid
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence, Set
from typing import Final, NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.models.federation import PartialRoom as Row
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Database, Reader, Tx

WAIT_SECONDS: Final = 10.0
"""For the members of a room, by a client that asks for them."""
LOOK_SECONDS: Final = 0.1


class PartialRoom(NamedTuple):
    """A room whose members are not known yet."""

    room_id: str
    event_id: str
    """The join, before which the state is wanted."""
    servers_in_room: frozenset[str]
    """The servers that are said to be in the room, without this one."""
    servers: Sequence[str]
    """Servers to ask for the state, the best ones first."""


class Known(NamedTuple):
    """What the cache has of all rooms."""

    partial: Mapping[str, frozenset[str]]
    """{room_id: its servers} of the partial rooms."""
    last_full: int
    """The last position at which a room became full; 0: none."""


ONLY_ONE: Final = "all"
"""The only key of the cache."""
KNOWN: CacheKind[str, Known] = declare(
    "partial_rooms", 1, lambda it: 200 + sum(200 + 100 * len(some) for some in it.partial.values())
)

_BEGIN = insert(Row)
_BEGIN = _BEGIN.on_conflict_do_update(
    index_elements=["room_id"],
    set_={
        name: _BEGIN.excluded[name]
        for name in ("event_id", "servers_in_room", "servers", "full_position")
    },
)
_PARTIAL = select(Row.room_id, Row.event_id, Row.servers_in_room, Row.servers).where(
    Row.full_position.is_(None)
)
_FIND = _PARTIAL.where(Row.room_id == bindparam("in_room"))
_LAST_FULL = select(func.coalesce(func.max(Row.full_position), 0))
_FULL_SINCE = select(Row.room_id).where(Row.full_position > bindparam("since"))
_MAKE_FULL = (
    update(Row)
    .where(Row.room_id == bindparam("in_room"))
    .values(full_position=bindparam("position"))
)
_REMOVE = delete(Row).where(Row.room_id == bindparam("the_room"))


def begin(tx: Tx, room: PartialRoom) -> None:
    """Note that a room is joined without its members."""
    row = {**room._asdict(), "servers_in_room": sorted(room.servers_in_room)}
    tx.sql.execute(_BEGIN, {**row, "servers": list(room.servers), "full_position": None})
    known = _known(tx)
    partial = {**known.partial, room.room_id: room.servers_in_room}
    tx.remember(KNOWN, ONLY_ONE, Known(partial, known.last_full))


def is_partial(tx: Reader, room_id: str) -> bool:
    """Return whether some members of a room are not known yet."""
    return room_id in _known(tx).partial


def rooms(tx: Reader) -> Set[str]:
    """Return the partial rooms."""
    return _known(tx).partial.keys()


def servers_in_room(tx: Reader, room_id: str) -> frozenset[str]:
    """Return the servers that are taken for those in a partial room; of another room none."""
    return _known(tx).partial.get(room_id, frozenset())


def may_have_member(tx: Reader, user_id: str) -> bool:
    """Return whether a user of another server may be in a partial room."""
    server = user_id.partition(":")[2]
    return any(server in servers for servers in _known(tx).partial.values())


def find(tx: Reader, room_id: str) -> PartialRoom | None:
    """Return what is known of a partial room, or None if it is not one."""
    row = tx.sql.execute(_FIND, {"in_room": room_id}).first()
    return None if row is None else _room(*row)


def every(tx: Reader) -> list[PartialRoom]:
    """Return all partial rooms."""
    return [_room(*row) for row in tx.sql.execute(_PARTIAL)]


def full_since(tx: Reader, position: int) -> set[str]:
    """Return the rooms whose members are known since a time after `position`."""
    if _known(tx).last_full <= position:
        return set()
    return set(tx.sql.execute(_FULL_SINCE, {"since": position}).scalars())


def make_full(tx: Tx, room_id: str, position: int) -> None:
    """Note that the members of a room are known from a position on."""
    tx.sql.execute(_MAKE_FULL, {"in_room": room_id, "position": position})
    _forget(tx, room_id, position)


def end(tx: Tx, room_id: str) -> None:
    """Forget a partial room which all users of this server have left."""
    tx.sql.execute(_REMOVE, {"the_room": room_id})
    _forget(tx, room_id, 0)


def remove_room(tx: Tx, room_id: str) -> None:
    """Forget a room; called by rooms/purge.py alone."""
    end(tx, room_id)


def wait_until_full(db: Database, room_id: str) -> None:
    """Wait until the members of a room are known. Never within a transaction.

    Raises M_UNKNOWN (504) if that takes long.
    """
    until = time.monotonic() + WAIT_SECONDS
    while True:
        with db.read() as tx:
            if not is_partial(tx, room_id):
                return
        if time.monotonic() > until:
            raise errors.unknown("The members of the room are not known yet; ask again later", 504)
        time.sleep(LOOK_SECONDS)


def _room(
    room_id: str, event_id: str, servers_in_room: list[str], servers: list[str]
) -> PartialRoom:
    return PartialRoom(room_id, event_id, frozenset(servers_in_room), servers)


def _known(tx: Reader) -> Known:
    found = tx.cached(KNOWN, ONLY_ONE)
    if found is None:
        partial = {room.room_id: room.servers_in_room for room in every(tx)}
        found = Known(partial, int(tx.sql.execute(_LAST_FULL).scalar_one()))
        tx.fill(KNOWN, ONLY_ONE, found)
    return found


def _forget(tx: Tx, room_id: str, full_position: int) -> None:
    known = _known(tx)
    partial = {other: it for other, it in known.partial.items() if other != room_id}
    tx.remember(KNOWN, ONLY_ONE, Known(partial, max(known.last_full, full_position)))
