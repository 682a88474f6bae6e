"""Dehydrated devices: devices whose private keys are stored here, encrypted, until a login.

Other users encrypt for such a device as for any other, and their messages wait in its inbox. So a
user without any session still gets the keys of messages sent meanwhile. It has no access token, and
a user has at most one.

They are not part of the specification yet; clients use the proposal MSC3814.

This module alone writes the table dehydrated_devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.encryption import device_keys, one_time_keys, to_device
from homebody.core.encryption.to_device import Messages
from homebody.core.sessions import devices
from homebody.models.devices import DehydratedDevice, Device
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

MAX_DATA_BYTES: Final = 65536

_UPSERT = insert(DehydratedDevice)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id"],
    set_={name: _UPSERT.excluded[name] for name in ("device_id", "device_data")},
)
# the user may have removed the device from the list of sessions
_FIND = (
    select(DehydratedDevice.device_id, DehydratedDevice.device_data)
    .join(
        Device,
        (Device.user_id == DehydratedDevice.user_id)
        & (Device.device_id == DehydratedDevice.device_id),
    )
    .where(DehydratedDevice.user_id == bindparam("user_id"))
)


@dataclass(frozen=True, slots=True)
class Upload:
    """A dehydrated device as a client uploads it."""

    device_id: str
    device_data: Json
    device_keys: Json
    one_time_keys: dict[str, Json | str] = field(default_factory=dict)
    fallback_keys: dict[str, Json | str] = field(default_factory=dict)
    display_name: str | None = None


def put(tx: Tx, user_id: str, upload: Upload) -> None:
    """Store the user's dehydrated device, replacing the previous one.

    Raises M_INVALID_PARAM for the device ID of a session, M_TOO_LARGE, and as uploads of keys do.
    """
    data = orjson.dumps(upload.device_data)
    if len(data) > MAX_DATA_BYTES:
        raise errors.too_large(f"A dehydrated device has at most {MAX_DATA_BYTES} bytes")
    row = tx.sql.execute(_FIND, {"user_id": user_id}).first()
    is_repeated = row is not None and _is_same(tx, user_id, row.device_id, upload)
    if row is not None and not is_repeated:
        devices.remove(tx, user_id, [row.device_id])
    if not is_repeated:
        if upload.device_id in devices.ids(tx, user_id):
            raise errors.invalid_param("You have a session with this device ID")
        devices.start_session(tx, user_id, upload.device_id, upload.display_name)
    device_keys.put(tx, user_id, upload.device_id, upload.device_keys)
    one_time_keys.add(tx, user_id, upload.device_id, upload.one_time_keys)
    one_time_keys.set_fallbacks(tx, user_id, upload.device_id, upload.fallback_keys)
    values = {"user_id": user_id, "device_id": upload.device_id, "device_data": data.decode()}
    tx.sql.execute(_UPSERT, values)


def _is_same(tx: Reader, user_id: str, device_id: str, upload: Upload) -> bool:
    """Return whether a repeated upload has the device that the user has already.

    Then its inbox is kept, and one-time keys that were claimed meanwhile stay claimed.
    """
    if device_id != upload.device_id:
        return False
    known = device_keys.get(tx, user_id, device_id)
    return known is not None and known["keys"] == upload.device_keys["keys"]


def find_id(tx: Reader, user_id: str) -> str | None:
    """Return the id of the user's dehydrated device, or None."""
    row = tx.sql.execute(_FIND, {"user_id": user_id}).first()
    return None if row is None else str(row.device_id)


def get(tx: Reader, user_id: str) -> Json:
    """Return {device_id, device_data} of the user's dehydrated device. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_FIND, {"user_id": user_id}).first()
    if row is None:
        raise errors.not_found("You have no dehydrated device")
    return {"device_id": row.device_id, "device_data": orjson.loads(row.device_data)}


def remove(tx: Tx, user_id: str) -> str:
    """Remove the user's dehydrated device and return its id. Raises M_NOT_FOUND."""
    device_id: str = get(tx, user_id)["device_id"]
    devices.remove(tx, user_id, [device_id])
    erase(tx, user_id)
    return device_id


def messages(tx: Reader, user_id: str, device_id: str, position: int) -> Messages:
    """Return the next to-device messages of the dehydrated device after a position.

    They are kept until the device is removed, so that an interrupted login can begin again.
    Raises M_FORBIDDEN for any other device.
    """
    if get(tx, user_id)["device_id"] != device_id:
        raise errors.forbidden("This is not your dehydrated device")
    return to_device.after(tx, user_id, device_id, position)


def erase(tx: Tx, user_id: str) -> None:
    """Delete the record of a dehydrated device; devices.remove_all() removes the device itself."""
    tx.sql.execute(delete(DehydratedDevice).where(DehydratedDevice.user_id == user_id))
