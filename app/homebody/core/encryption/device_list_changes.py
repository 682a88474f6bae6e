"""Which users' device lists have changed, so that clients query their keys again.

The table has the position of each user's last change of identity keys, cross-signing keys or
devices with keys. Users who share a room with them are notified. As every /sync checks this and
usually nothing has changed, the position of the last change of any user is cached.

This module alone writes the table device_list_changes.
Spec: client-server-api#tracking-the-device-list-for-a-user
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from homebody.core.appservices import bridged_devices
from homebody.core.encryption import device_updates, key_signatures
from homebody.core.encryption.device_updates import DeviceChange
from homebody.core.events import state
from homebody.core.events.state_changes import MemberChange
from homebody.models.base import NOW_AND_LATER
from homebody.models.device_keys import DeviceListChange
from homebody.models.state import StateInterval
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

LAST: Final = "last"
"""The only key of the cache."""
LAST_CHANGE: CacheKind[str, int] = declare("device_lists", 1, lambda _: 0)
"""The position of the last change of any user's keys."""

_UPSERT = insert(DeviceListChange)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id"],
    set_={name: _UPSERT.excluded[name] for name in ("position", "stream_id")},
)
_LAST = select(func.coalesce(func.max(DeviceListChange.position), 0))
_JOINED = select(StateInterval.room_number).where(
    StateInterval.to_position == NOW_AND_LATER, StateInterval.membership == "join"
)
_CHANGED = select(DeviceListChange.user_id).where(
    DeviceListChange.position > bindparam("since"),
    or_(
        DeviceListChange.user_id == bindparam("user_id"),
        _JOINED.where(
            StateInterval.state_key == DeviceListChange.user_id,
            StateInterval.room_number.in_(
                _JOINED.where(StateInterval.state_key == bindparam("user_id"))
            ),
        ).exists(),
    ),
)
_STREAM_ID = select(DeviceListChange.stream_id).where(
    DeviceListChange.user_id == bindparam("user_id")
)
_OF_USERS = select(
    DeviceListChange.user_id, DeviceListChange.position, DeviceListChange.stream_id
).where(DeviceListChange.user_id.in_(select(listed("user_ids").c.value)))


def note_change(tx: Tx, user_id: str, device_ids: Collection[str] = ()) -> None:
    """Record a change for the user's own devices and all users who share a room.

    `device_ids` are the devices that have changed, of which other servers are notified.
    """
    prev_id = tx.sql.execute(_STREAM_ID, {"user_id": user_id}).scalar()
    changes: list[DeviceChange] = []
    for device_id in sorted(device_ids):
        changes.append(DeviceChange(device_id, tx.next_position(), prev_id))
        prev_id = changes[-1].stream_id
    _note(tx, user_id, prev_id)
    if changes and tx.server.config.federation:
        device_updates.send_devices(tx, user_id, changes)


def note_remote_change(tx: Tx, user_id: str, stream_id: int | None = None) -> None:
    """Record a change of a user of another server for all local users who share a room.

    `stream_id` is that of the change; None if it is not of a device.
    """
    if stream_id is None:
        stream_id = tx.sql.execute(_STREAM_ID, {"user_id": user_id}).scalar()
    _note(tx, user_id, stream_id)


def follow_member(tx: Tx, room_id: str, change: MemberChange) -> None:
    """Notify other servers of the devices of a local user who has joined a room with them."""
    if change.by > 0 and tx.server.is_local(change.user_id):
        device_updates.send_to_new_servers(
            tx, change.user_id, room_id, stream_id(tx, change.user_id)
        )


def follow_full_room(tx: Tx, room_id: str, user_id: str, known: Collection[str]) -> None:
    """Notify servers that turn out to be in a room of a local user, besides those in `known`."""
    device_updates.send_to_new_servers(tx, user_id, room_id, stream_id(tx, user_id), known)


def last_changes(tx: Reader, user_ids: Collection[str]) -> dict[str, int]:
    """Return {user_id: position of the last change} of these users, if there was one."""
    rows = tx.sql.execute(_OF_USERS, {"user_ids": list(user_ids)})
    return {row.user_id: row.position for row in rows}


def last_stream_ids(tx: Reader, user_ids: Collection[str]) -> dict[str, int]:
    """Return {user_id: stream ID of the last change of a device}, if there was one."""
    rows = tx.sql.execute(_OF_USERS, {"user_ids": list(user_ids)})
    return {row.user_id: row.stream_id for row in rows if row.stream_id is not None}


def stream_id(tx: Reader, user_id: str) -> int:
    """Return the last change of a local user's devices of which other servers were notified."""
    return tx.sql.execute(_STREAM_ID, {"user_id": user_id}).scalar() or 0


def note_signature(tx: Tx, user_id: str) -> None:
    """Record that the user signed another user's keys, which only their own devices see."""
    tx.remember(LAST_CHANGE, LAST, tx.next_position())
    tx.wake(user_id)


def since(tx: Reader, user_id: str, position: int) -> set[str]:
    """Return the users whose keys have changed: the user and users who share a room.

    This includes users whose keys the user has signed since `position`.
    """
    last = tx.cached(LAST_CHANGE, LAST)
    if last is None:
        last = max(tx.sql.execute(_LAST).scalar_one(), key_signatures.last_position(tx))
        tx.fill(LAST_CHANGE, LAST, last)
    if last <= position:
        return set()
    changed = tx.sql.execute(_CHANGED, {"user_id": user_id, "since": position}).scalars()
    return set(changed) | key_signatures.signed_since(tx, user_id, position)


def _note(tx: Tx, user_id: str, stream_id: int | None) -> None:
    position = tx.next_position()
    row = {"user_id": user_id, "position": position, "stream_id": stream_id}
    tx.sql.execute(_UPSERT, row)
    tx.remember(LAST_CHANGE, LAST, position)
    bridged_devices.note_device_list(tx, user_id)
    tx.wake(user_id)
    for room_id in state.joined_rooms(tx, user_id):
        tx.wake_all(state.joined(tx, room_id).local)
