"""The identity keys of devices.

The server stores the object as signed by the device. It does not verify the signature: clients do,
as they don't trust the server, and a device with an invalid signature only harms itself.

This module alone writes the table device_keys.
Spec: client-server-api#device-keys, client-server-api#key-management-api
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.encryption import (
    cross_signing,
    device_list_changes,
    device_updates,
    key_signatures,
    one_time_keys,
)
from homebody.models.accounts import Account
from homebody.models.device_keys import DeviceKeys
from homebody.models.devices import Device
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches

_USERS_AT_ONCE: Final = 100
_DEVICES_BETWEEN_PAUSES: Final = 100
"""The number of a user's devices is not limited, and each may have 64 KiB of keys."""

_UPSERT = insert(DeviceKeys)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "device_id"], set_={"device_keys": _UPSERT.excluded.device_keys}
)
_KEYS = select(DeviceKeys.device_keys).where(
    DeviceKeys.user_id == bindparam("user_id"), DeviceKeys.device_id == bindparam("device_id")
)
_DEVICE = select(Device.device_id).where(
    Device.user_id == bindparam("user_id"), Device.device_id == bindparam("device_id")
)
# Outer joins: the response includes users without devices, so that clients forget old ones.
_OF_USERS = (
    select(Account.user_id, DeviceKeys.device_id, DeviceKeys.device_keys, Device.display_name)
    .join(DeviceKeys, DeviceKeys.user_id == Account.user_id, isouter=True)
    .join(
        Device,
        (Device.user_id == DeviceKeys.user_id) & (Device.device_id == DeviceKeys.device_id),
        isouter=True,
    )
    .where(Account.user_id.in_(bindparam("user_ids", expanding=True)))
)


def put(tx: Tx, user_id: str, device_id: str, keys: Json) -> None:
    """Store the signed object with a device's keys and update the device lists.

    A device that uploads different keys has lost the old ones. Its one-time keys are useless then
    and are deleted, so that their ids can be used again, as are signatures of the old keys. Raises
    M_INVALID_PARAM for the keys of another device, M_FORBIDDEN for a device ID that equals a
    cross-signing key, M_BAD_JSON, M_TOO_LARGE.
    """
    keys = {name: value for name, value in keys.items() if name != "unsigned"}
    _check(user_id, device_id, keys)
    device = {"user_id": user_id, "device_id": device_id}
    if cross_signing.is_public_key(tx, user_id, device_id):
        raise errors.forbidden("The device ID equals one of your cross-signing keys")
    before = get(tx, user_id, device_id)
    if before == keys:
        return
    if before is not None and before["keys"] != keys["keys"]:
        one_time_keys.remove(tx, user_id, [device_id])
        key_signatures.remove(tx, user_id, [device_id])
    tx.sql.execute(_UPSERT, {**device, "device_keys": orjson.dumps(keys).decode()})
    device_list_changes.note_change(tx, user_id, [device_id])


def check_exists(tx: Reader, user_id: str, device_id: str) -> None:
    """Raise M_UNKNOWN_TOKEN for a device that was just removed, as it must not leave keys."""
    device = {"user_id": user_id, "device_id": device_id}
    if tx.sql.execute(_DEVICE, device).first() is None:
        raise errors.unknown_token("This session has ended")


def get(tx: Reader, user_id: str, device_id: str) -> Json | None:
    """Return the keys as signed by the device, or None."""
    found = tx.sql.execute(_KEYS, {"user_id": user_id, "device_id": device_id}).scalar()
    if found is None:
        return None
    keys: Json = orjson.loads(found)
    return keys


def query(tx: Reader, requester_id: str, wanted: Mapping[str, Collection[str]]) -> Json:
    """Return the response of /keys/query for {user_id: [device_id]}; an empty list means all.

    Unknown users are left out.
    """
    found: dict[str, dict[str, Json]] = {}
    signatures = cross_signing.signatures_on_devices(tx, wanted)
    for some in batches(wanted, _USERS_AT_ONCE):
        rows = tx.sql.execute(_OF_USERS, {"user_ids": some})
        for row in tx.pausing(rows, _DEVICES_BETWEEN_PAUSES):
            devices = found.setdefault(row.user_id, {})
            if row.device_id is not None and _is_wanted(wanted[row.user_id], row.device_id):
                added = signatures.get(row.user_id, {}).get(row.device_id, {})
                devices[row.device_id] = _shown(row, added)
        event_loop.pause()
    return {"failures": {}, "device_keys": found, **cross_signing.keys_of(tx, requester_id, wanted)}


def of_user(tx: Reader, user_id: str) -> Json:
    """Return a user's devices with keys, and the cross-signing keys, for another server."""
    found = query(tx, "", {user_id: []})
    devices = [
        {"device_id": device_id, "keys": keys, **keys.pop("unsigned")}
        for device_id, keys in found["device_keys"].get(user_id, {}).items()
    ]
    shown: Json = {
        "user_id": user_id,
        "stream_id": device_list_changes.stream_id(tx, user_id),
        "devices": devices,
    }
    for usage in ("master", "self_signing"):
        if user_id in found[f"{usage}_keys"]:
            shown[f"{usage}_key"] = found[f"{usage}_keys"][user_id]
    return shown


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete all keys of removed devices and update the device lists."""
    removed = tx.sql.execute(
        delete(DeviceKeys)
        .where(DeviceKeys.user_id == user_id, DeviceKeys.device_id.in_(device_ids))
        .returning(DeviceKeys.device_id)
    )
    had_keys = removed.scalars().all()
    one_time_keys.remove(tx, user_id, device_ids)
    if had_keys:
        device_list_changes.note_change(tx, user_id, had_keys)


def note_rename(tx: Tx, user_id: str, device_id: str) -> None:
    """Update the device lists after a device was renamed, as queries include its name."""
    if get(tx, user_id, device_id) is not None:
        device_list_changes.note_change(tx, user_id, [device_id])


def _check(user_id: str, device_id: str, keys: Json) -> None:
    if keys["user_id"] != user_id or keys["device_id"] != device_id:
        raise errors.invalid_param("These are the keys of another device")
    for name in keys["keys"]:
        algorithm, _, of_device = name.partition(":")
        if not algorithm or of_device != device_id:
            raise errors.invalid_param("The ids of the keys must be algorithm:device_id")
    key_signatures.check_form(keys)


def _is_wanted(device_ids: Collection[str], device_id: str) -> bool:
    return not device_ids or device_id in device_ids


def _shown(row: Any, added: dict[str, dict[str, str]]) -> Json:
    """Return the keys with the device's name and the signatures added by others."""
    keys = device_updates.with_signatures(orjson.loads(row.device_keys), added)
    named = {} if row.display_name is None else {"device_display_name": row.display_name}
    return keys | {"unsigned": named}
