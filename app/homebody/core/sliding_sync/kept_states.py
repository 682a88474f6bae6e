"""States of connections in the database, by which clients go on after a restart.

To write each state would be a write for each response. So now and then that of the last `pos` that
the client has received is written: when ten rooms or more were sent since, once a day, and when the
server stops. After a restart the client's `pos` usually is a later one. It proves that the client
has received what the state says, and perhaps more up to the position of the `pos`. So rooms without
events between the two positions go on as if nothing had happened. Those with some, and those of
which the client lacked something before, are sent in full when they come into a window: nothing is
lost, and nothing is sent twice in part. How many these are is bounded, as a state is written before
many rooms have been sent.

A state is written without what can be read again (properties of rooms), and without the lazily
loaded members: they are sent once more. A restart ends all typing. A `pos` says whether the
client may show somebody: only then it is sent the users who type in all rooms, mostly nobody.

Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
import hmac
import logging
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec
from sqlalchemy import bindparam, select

from homebody.core.accounts import sync_connections
from homebody.core.accounts.sync_connections import Key, StoredConnection
from homebody.core.events import state as room_state
from homebody.core.sliding_sync import connections
from homebody.core.sliding_sync.connections import Connections, Due
from homebody.core.sliding_sync.order import NO_ROOMS, OwnMembership, RoomOrder
from homebody.core.sliding_sync.requests import RoomConfig, Selection
from homebody.core.sliding_sync.states import ConnectionState, SentRoom
from homebody.errors import MatrixError
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import listed

LOG = logging.getLogger(__name__)

MAX_BYTES: Final = 2**20
"""The size of a state before it is compressed: some 10,000 rooms. Larger ones are not written."""
_VERSION: Final = 1
_LEVEL: Final = 1
_WRITTEN_AT_ONCE: Final = 10

_ROOMS = listed("rooms")
_BETWEEN = (
    select(StoredEvent.room_id)
    .where(
        StoredEvent.room_id == Room.room_id,
        StoredEvent.position > bindparam("since"),
        StoredEvent.position <= bindparam("upto"),
    )
    .correlate(Room)
    .exists()
)
_CHANGED = (
    select(Room.room_id)
    .join(_ROOMS, Room.room_id == _ROOMS.c.value)
    .where(Room.last_position > bindparam("since"), _BETWEEN)
)


class _Sent(msgspec.Struct, array_like=True):
    """A SentRoom without its members."""

    room: int
    config: int
    membership: str
    bump_stamp: int
    stale_since: int | None


class _Kept(msgspec.Struct, array_like=True, kw_only=True):
    """A ConnectionState; rooms and configs are numbers."""

    version: int
    position: int
    ephemeral: int
    request_digest: bytes
    rooms: list[str]
    has_order: bool
    own: list[tuple[str, int]]
    """(membership, position) of the first rooms, in their order."""
    sent: list[_Sent]
    configs: list[tuple[int, frozenset[StateKey], frozenset[Selection]]]
    direct: frozenset[str]
    lists: Mapping[str, Json]
    extension_rooms: Mapping[str, list[int]]
    is_resumed: bool


def write(db: Database, kept: Connections, *, is_last: bool = False) -> None:
    """Write what is due; the last time before the server stops, all that has changed."""
    due = kept.due(is_last=is_last)
    for at in range(0, len(due), _WRITTEN_AT_ONCE):
        some = due[at : at + _WRITTEN_AT_ONCE]
        rows = [(it.key, stored) for it in some if (stored := _encoded(it)) is not None]
        try:
            with db.write() as tx:
                sync_connections.put(tx, rows)
        except MatrixError as error:  # a full disk: what the clients have is not lost
            LOG.warning("could not write the connections of sliding sync: %s", error)
            kept.note_unwritten(it.key for it in due[at:])
            return


def resume(tx: Reader, key: Key, pos: str) -> ConnectionState | None:
    """Return the state with which a connection goes on at this `pos`, if it is known."""
    place = connections.parse(pos)
    stored = None if place is None else sync_connections.find(tx, key)
    if place is None or stored is None:
        return None
    if not hmac.compare_digest(connections.make_pos(stored.secret, place), pos):
        return None
    if place.number < stored.number or not stored.position <= place.position <= tx.position:
        return None
    state = decode(zlib.decompress(stored.state))
    if state is None:
        return None
    state = dataclasses.replace(
        state, secret=stored.secret, ephemeral=0 if place.is_quiet else state.ephemeral
    )
    return state if place.number == stored.number else _older(tx, state, place.position)


def _older(tx: Reader, state: ConnectionState, received: int) -> ConnectionState:
    """Return the state for a client that has received more, up to this position."""
    values = {"rooms": state.rooms.keys(), "since": state.position, "upto": received}
    unsure = set(tx.sql.execute(_CHANGED, values).scalars())
    unsure |= {room_id for room_id, it in state.rooms.items() if it.stale_since is not None}
    unsure |= room_state.resets(tx, state.rooms.keys(), state.position).keys()
    rooms = dict(state.rooms)
    for room_id in unsure & rooms.keys():
        before = rooms[room_id]
        rooms[room_id] = SentRoom(before.config, before.membership, before.bump_stamp, 0)
    return dataclasses.replace(state, rooms=rooms, received=received)


def _encoded(due: Due) -> StoredConnection | None:
    state = due.state
    content = encode(state)
    if len(content) > MAX_BYTES:
        return None
    compressed = zlib.compress(content, _LEVEL)
    return StoredConnection(state.secret, due.number, state.position, compressed)


def encode(state: ConnectionState) -> bytes:
    """Return a state as bytes."""
    own = state.order.rooms
    ids = [*state.order.ids, *(room_id for room_id in state.rooms if room_id not in own)]
    index = {room_id: number for number, room_id in enumerate(ids)}
    configs: dict[RoomConfig, int] = {}
    kept = _Kept(
        version=_VERSION,
        position=state.position,
        ephemeral=state.ephemeral,
        request_digest=state.request_digest,
        rooms=ids,
        has_order=state.order is not NO_ROOMS,
        own=[(own[room_id].membership, own[room_id].since) for room_id in state.order.ids],
        sent=[
            _Sent(
                index[room_id],
                configs.setdefault(it.config, len(configs)),
                it.membership,
                it.bump_stamp,
                it.stale_since,
            )
            for room_id, it in state.rooms.items()
        ],
        configs=[(it.limit, it.required, it.selections) for it in configs],
        direct=state.direct,
        lists=state.lists,
        extension_rooms={
            name: [index[room_id] for room_id in room_ids if room_id in index]
            for name, room_ids in state.extension_rooms.items()
        },
        is_resumed=state.is_resumed,
    )
    return msgspec.msgpack.encode(kept)


def decode(content: bytes) -> ConnectionState | None:
    """Return a state without its secret, or None if it was written by another version."""
    try:
        kept = msgspec.msgpack.decode(content, type=_Kept)
    except msgspec.DecodeError:
        return None
    if kept.version != _VERSION:
        return None
    own = {
        room_id: OwnMembership(membership, since)
        for room_id, (membership, since) in zip(kept.rooms, kept.own, strict=False)
    }
    joined = {room_id for room_id, it in own.items() if it.membership == "join"}
    configs = [RoomConfig(*it) for it in kept.configs]
    rooms = {
        kept.rooms[it.room]: SentRoom(
            configs[it.config], it.membership, it.bump_stamp, it.stale_since
        )
        for it in kept.sent
    }
    return ConnectionState(
        position=kept.position,
        ephemeral=kept.ephemeral,
        request_digest=kept.request_digest,
        order=RoomOrder(own, [*own], joined) if kept.has_order else NO_ROOMS,
        rooms=rooms,
        direct=kept.direct,
        lists=kept.lists,
        extension_rooms={
            name: frozenset(kept.rooms[number] for number in numbers)
            for name, numbers in kept.extension_rooms.items()
        },
        is_resumed=kept.is_resumed,
    )
