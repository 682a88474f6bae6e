"""The device lists of users of other servers, kept while a local user shares a room with them.

Servers send the changes of their users' devices to those servers that share a room with them. So a
list that was fetched stays complete: each change names the one before it, by which a lost one is
noticed. The list is stale then, and so are lists of which a change came while they were fetched.

When no room is shared any more, no changes come, and the list is deleted.

This module alone writes the tables remote_users and remote_devices.
Spec: server-server-api#device-management
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.core import partial_rooms
from homebody.core.encryption import device_list_changes, key_signatures
from homebody.core.events import state
from homebody.core.events.state import AnyRow
from homebody.core.events.state_changes import MemberChange
from homebody.models.base import NOW_AND_LATER
from homebody.models.remote_users import RemoteDevice as StoredDevice
from homebody.models.remote_users import RemoteUser
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import device_lists, edus
from homebody.spec.device_lists import DeviceList, RemoteDevice
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

_BETWEEN_PAUSES: Final = 100
"""Users or devices, of which a query may have thousands."""

_USERS = listed("user_ids")
_THESE = select(_USERS.c.value)
_LISTS = select(
    RemoteUser.user_id,
    RemoteUser.devices_stream_id,
    RemoteUser.is_stale,
    RemoteUser.master_key,
    RemoteUser.self_signing_key,
).where(RemoteUser.user_id.in_(_THESE))
_DEVICES = select(
    StoredDevice.user_id, StoredDevice.device_id, StoredDevice.keys, StoredDevice.display_name
).where(StoredDevice.user_id.in_(_THESE))
_STALE = select(RemoteUser.user_id).where(RemoteUser.is_stale)
_UPSERT_USER = insert(RemoteUser)
_KEEP_USER = _UPSERT_USER.on_conflict_do_update(
    index_elements=["user_id"],
    set_={
        name: _UPSERT_USER.excluded[name]
        for name in ("devices_stream_id", "is_stale", "master_key", "self_signing_key")
    },
)
_SET_STALE = (
    update(RemoteUser).where(RemoteUser.user_id == bindparam("of_user")).values(is_stale=True)
)
_SET_STREAM_ID = (
    update(RemoteUser)
    .where(RemoteUser.user_id == bindparam("of_user"))
    .values(devices_stream_id=bindparam("stream_id"))
)
_SET_KEYS = (
    update(RemoteUser)
    .where(RemoteUser.user_id == bindparam("of_user"))
    .values(master_key=bindparam("master"), self_signing_key=bindparam("self_signing"))
)
_UPSERT_DEVICE = insert(StoredDevice)
_PUT_DEVICE = _UPSERT_DEVICE.on_conflict_do_update(
    index_elements=["user_id", "device_id"],
    set_={name: _UPSERT_DEVICE.excluded[name] for name in ("keys", "display_name")},
)
_DROP_DEVICE = delete(StoredDevice).where(
    StoredDevice.user_id == bindparam("of_user"), StoredDevice.device_id == bindparam("of_device")
)
_DROP_DEVICES = delete(StoredDevice).where(StoredDevice.user_id.in_(_THESE))
_DROP_USERS = delete(RemoteUser).where(RemoteUser.user_id.in_(_THESE))
_JOINED_ROOMS = (
    select(StateInterval.state_key, Room.room_id)
    .join(Room, Room.number == StateInterval.room_number)
    .where(
        StateInterval.state_key.in_(_THESE),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)
_KEPT_IN_ROOM = (
    select(RemoteUser.user_id)
    .join(StateInterval, StateInterval.state_key == RemoteUser.user_id)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)


def sharing(tx: Reader, user_ids: Collection[str]) -> set[str]:
    """Return those of these remote users who share a room with a local user."""
    found: set[str] = set()
    has_local: dict[str, bool] = {}
    for user_id, room_id in tx.sql.execute(_JOINED_ROOMS, {"user_ids": list(user_ids)}):
        if room_id not in has_local:
            has_local[room_id] = bool(state.joined(tx, room_id).local)
        if has_local[room_id]:
            found.add(user_id)
    return found


def kept(
    tx: Reader, user_ids: Collection[str]
) -> tuple[dict[str, DeviceList], dict[str, DeviceList]]:
    """Return the lists of these users that are kept: those that are up to date, and stale ones."""
    fresh: dict[str, DeviceList] = {}
    stale: dict[str, DeviceList] = {}
    for row in tx.sql.execute(_LISTS, {"user_ids": list(user_ids)}).all():
        (stale if row.is_stale else fresh)[row.user_id] = DeviceList(
            {}, _decoded(row.master_key), _decoded(row.self_signing_key), row.devices_stream_id
        )
    every = fresh | stale
    rows = tx.sql.execute(_DEVICES, {"user_ids": list(every)})
    for row in tx.pausing(rows, _BETWEEN_PAUSES):
        device = RemoteDevice(orjson.loads(row.keys), row.display_name)
        every[row.user_id].devices[row.device_id] = device
    return fresh, stale


def stale_users(tx: Reader) -> list[str]:
    """Return the users whose lists have to be fetched again."""
    return list(tx.sql.execute(_STALE).scalars())


def is_stale(tx: Reader, user_id: str) -> bool:
    """Return whether the list of a user is kept, but misses changes."""
    row = _list_of(tx, user_id)
    return row is not None and bool(row.is_stale)


def keep(tx: Tx, lists: Mapping[str, DeviceList], since: int) -> set[str]:
    """Keep lists that were requested at the position `since`; return the users whose lists are not.

    A list without `stream_id` contains the last change that had come before it was requested.
    Not kept are those of users who share no room, and of whom changes have come meanwhile.
    """
    changes = device_list_changes.last_changes(tx, lists)
    kept = {user_id for user_id in sharing(tx, lists) if changes.get(user_id, 0) <= since}
    if kept:
        tx.sql.execute(_DROP_DEVICES, {"user_ids": list(kept)})
        last = device_list_changes.last_stream_ids(tx, kept)
        rows = [_user_row(user_id, lists[user_id], last.get(user_id)) for user_id in kept]
        tx.sql.execute(_KEEP_USER, rows)
        devices = [_device_row(it, *one) for it in kept for one in lists[it].devices.items()]
        if devices:
            tx.sql.execute(_PUT_DEVICE, devices)
    return set(lists) - kept


def update_device(tx: Tx, change: edus.DeviceListUpdate) -> bool:
    """Apply a change of a device; return whether the list has to be fetched again."""
    if not sharing(tx, [change.user_id]):
        _note_if_possible(tx, change.user_id, change.stream_id)
        return False
    row = _list_of(tx, change.user_id)
    if row is not None and not row.is_stale and row.devices_stream_id == change.stream_id:
        return False  # sent again
    device_list_changes.note_remote_change(tx, change.user_id, change.stream_id)
    if row is None:
        return False
    if row.is_stale or change.prev_ids != [row.devices_stream_id]:
        tx.sql.execute(_SET_STALE, {"of_user": change.user_id})
        return True
    keys = device_lists.device_keys(change.keys, change.user_id, change.device_id)
    if change.is_deleted or keys is None:
        of_device = {"of_user": change.user_id, "of_device": change.device_id}
        tx.sql.execute(_DROP_DEVICE, of_device)
    else:
        device = RemoteDevice(keys, change.display_name)
        tx.sql.execute(_PUT_DEVICE, _device_row(change.user_id, change.device_id, device))
    stream = {"of_user": change.user_id, "stream_id": change.stream_id}
    tx.sql.execute(_SET_STREAM_ID, stream)
    return False


def update_signing_keys(tx: Tx, change: edus.SigningKeyUpdate) -> None:
    """Apply a change of cross-signing keys. Those that it does not contain stay as they are."""
    user_id = change.user_id
    if not sharing(tx, [user_id]):
        _note_if_possible(tx, user_id)
        return
    device_list_changes.note_remote_change(tx, user_id)
    row = _list_of(tx, user_id)
    if row is None or row.is_stale:
        return
    master = device_lists.cross_signing_key(change.master_key, user_id, "master")
    self_signing = device_lists.cross_signing_key(change.self_signing_key, user_id, "self_signing")
    values = {
        "of_user": user_id,
        "master": row.master_key if master is None else _encoded(master),
        "self_signing": row.self_signing_key if self_signing is None else _encoded(self_signing),
    }
    tx.sql.execute(_SET_KEYS, values)


def follow_member(tx: Tx, room_id: str, change: MemberChange) -> None:
    """Delete lists of which no changes come any more, as a user has left a room.

    When it was the last local user, also lists of members who share another room: which these are
    would take long to find out, and they are fetched again when they are needed.
    """
    if change.by >= 0:
        return
    if not tx.server.is_local(change.user_id):
        if _list_of(tx, change.user_id) and not sharing(tx, [change.user_id]):
            _forget(tx, [change.user_id])
    elif not state.joined(tx, room_id).local:
        _forget(tx, list(tx.sql.execute(_KEPT_IN_ROOM, {"room_id": room_id}).scalars()))


def forget_unshared(tx: Tx, user_ids: Collection[str]) -> None:
    """Delete the lists of those of these users who share no room: they were taken for members."""
    _forget(tx, list(set(user_ids) - sharing(tx, user_ids)))


def remove_all(tx: Tx) -> None:
    """Delete all lists after a backup was restored, as changes may have come since it was made."""
    tx.sql.execute(delete(StoredDevice))
    tx.sql.execute(delete(RemoteUser))


def response(
    tx: Reader,
    requester_id: str,
    lists: Mapping[str, DeviceList],
    wanted: Mapping[str, Collection[str]],
) -> dict[str, Json]:
    """Return these lists as in the response to a query for {user_id: [device_id]}.

    With the requester's signatures of other users' keys.
    """
    signatures = key_signatures.visible(tx, requester_id, lists)
    found: dict[str, Json] = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
    for user_id, known in tx.pausing(lists.items(), _BETWEEN_PAUSES):
        device_ids = wanted[user_id]
        found["device_keys"][user_id] = {
            device_id: _shown(device)
            for device_id, device in known.devices.items()
            if not device_ids or device_id in device_ids
        }
        for usage, key in (("master", known.master_key), ("self_signing", known.self_signing_key)):
            if key is not None:
                added = signatures.get(user_id, {})
                found[f"{usage}_keys"][user_id] = _with_signatures(key, added)
    return found


def master_keys(tx: Reader, user_ids: Collection[str]) -> dict[str, Json]:
    """Return {user_id: master key} of those users whose keys are kept."""
    rows = tx.sql.execute(_LISTS, {"user_ids": list(user_ids)})
    return {row.user_id: orjson.loads(row.master_key) for row in rows if row.master_key}


def _note_if_possible(tx: Tx, user_id: str, stream_id: int | None = None) -> None:
    """Note the change of a user who may turn out to share a room.

    Else a list that is being fetched would be kept though it lacks the change.
    """
    if partial_rooms.may_have_member(tx, user_id):
        device_list_changes.note_remote_change(tx, user_id, stream_id)


def _list_of(tx: Reader, user_id: str) -> AnyRow | None:
    found: AnyRow | None = tx.sql.execute(_LISTS, {"user_ids": [user_id]}).first()
    return found


def _forget(tx: Tx, user_ids: list[str]) -> None:
    if user_ids:
        tx.sql.execute(_DROP_DEVICES, {"user_ids": list(user_ids)})
        tx.sql.execute(_DROP_USERS, {"user_ids": list(user_ids)})


def _user_row(
    user_id: str, known: DeviceList, last_stream_id: int | None
) -> dict[str, str | int | None]:
    return {
        "user_id": user_id,
        "devices_stream_id": last_stream_id if known.stream_id is None else known.stream_id,
        "is_stale": False,
        "master_key": _encoded(known.master_key),
        "self_signing_key": _encoded(known.self_signing_key),
    }


def _device_row(user_id: str, device_id: str, device: RemoteDevice) -> dict[str, str | None]:
    return {
        "user_id": user_id,
        "device_id": device_id,
        "keys": _encoded(device.keys),
        "display_name": device.display_name,
    }


def _shown(device: RemoteDevice) -> Json:
    name = device.display_name
    return device.keys | {"unsigned": {} if name is None else {"device_display_name": name}}


def _with_signatures(key: Json, added: Mapping[str, key_signatures.Signatures]) -> Json:
    """Return a key with the signatures that local users have added."""
    signatures = dict(key["signatures"])
    for public_key in key["keys"].values():
        for signer, by_key in added.get(public_key, {}).items():
            signatures[signer] = signatures.get(signer, {}) | by_key
    return key | {"signatures": signatures}


def _encoded(value: Json | None) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


def _decoded(text: str | None) -> Json | None:
    if text is None:
        return None
    key: Json = orjson.loads(text)
    return key
