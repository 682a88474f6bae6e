"""The stored states of sliding sync connections, which end with their device.

What is in them is known to core/sliding_sync/kept_states.py alone.

This module alone writes the table sync_connections.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.models.devices import Device
from homebody.models.sync_connections import SyncConnection
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import item, listed

Key = tuple[str, str, str]
"""(user_id, device_id, conn_id)"""

MAX_OF_DEVICE: Final = 10
KEPT_MS: Final = 30 * 86_400_000
"""How long a connection is kept that isn't used any more."""
_DELETED_AT_ONCE: Final = 100

_OF_DEVICE = (
    SyncConnection.user_id == bindparam("of_user"),
    SyncConnection.device_id == bindparam("of_device"),
)
_FIND = select(
    SyncConnection.secret, SyncConnection.number, SyncConnection.position, SyncConnection.state
).where(*_OF_DEVICE, SyncConnection.conn_id == bindparam("of_conn"))
_UPSERT = insert(SyncConnection)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "device_id", "conn_id"],
    set_={
        name: _UPSERT.excluded[name]
        for name in ("secret", "number", "position", "state", "written_ts")
    },
)
_OLDEST_OF_DEVICE = (
    select(SyncConnection.conn_id)
    .where(*_OF_DEVICE)
    .order_by(SyncConnection.written_ts.desc(), SyncConnection.number.desc())
    .offset(MAX_OF_DEVICE)
)
_DELETE_OLDEST = delete(SyncConnection).where(
    *_OF_DEVICE, SyncConnection.conn_id.in_(_OLDEST_OF_DEVICE)
)
_PAIRS = listed("devices")
_DEVICES = select(Device.user_id, Device.device_id).join(
    _PAIRS, (Device.user_id == item(_PAIRS, 0)) & (Device.device_id == item(_PAIRS, 1))
)
_IDLE = (
    select(SyncConnection.user_id, SyncConnection.device_id, SyncConnection.conn_id)
    .where(SyncConnection.written_ts < bindparam("before"))
    .limit(_DELETED_AT_ONCE)
)
_DELETE_ONE = delete(SyncConnection).where(
    *_OF_DEVICE, SyncConnection.conn_id == bindparam("of_conn")
)


@dataclass(frozen=True, slots=True)
class StoredConnection:
    """What is stored of a connection."""

    secret: bytes
    number: int
    position: int
    state: bytes


def find(tx: Reader, key: Key) -> StoredConnection | None:
    """Return what is stored of a connection."""
    row = tx.sql.execute(_FIND, _parameters(key)).first()
    return None if row is None else StoredConnection(*row)


def put(tx: Tx, connections: Collection[tuple[Key, StoredConnection]]) -> None:
    """Store connections in place of what was stored of them, but for devices that are gone.

    A device keeps those that were stored last.
    """
    devices = {key[:2] for key, _ in connections}
    known = {(row[0], row[1]) for row in tx.sql.execute(_DEVICES, {"devices": [*devices]})}
    rows = [
        {
            "user_id": key[0],
            "device_id": key[1],
            "conn_id": key[2],
            "secret": it.secret,
            "number": it.number,
            "position": it.position,
            "state": it.state,
            "written_ts": tx.now_ms,
        }
        for key, it in connections
        if key[:2] in known
    ]
    if rows:
        tx.sql.execute(_UPSERT, rows)
        tx.sql.execute(
            _DELETE_OLDEST, [{"of_user": user, "of_device": device} for user, device in known]
        )


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete the connections of these devices."""
    tx.sql.execute(
        delete(SyncConnection).where(
            SyncConnection.user_id == user_id, SyncConnection.device_id.in_(device_ids)
        )
    )


def remove_all(tx: Tx) -> None:
    """Delete all connections after a backup was restored.

    What clients have received since the backup is lost: they start over.
    """
    tx.sql.execute(delete(SyncConnection))


def sweep(db: Database) -> None:
    """Delete connections that have not been used for KEPT_MS."""
    while True:
        with db.read() as tx:
            idle = tx.sql.execute(_IDLE, {"before": tx.now_ms - KEPT_MS}).all()
        if not idle:
            return
        with db.write() as tx:
            keys = [(row.user_id, row.device_id, row.conn_id) for row in idle]
            tx.sql.execute(_DELETE_ONE, [_parameters(key) for key in keys])


def _parameters(key: Key) -> dict[str, str]:
    return {"of_user": key[0], "of_device": key[1], "of_conn": key[2]}
