"""Devices: the sessions of a user.

This module alone writes the table devices. `remove` is the one way in which a session ends: what
belongs to a device (its tokens; later its keys and its messages) goes with it there.

Spec: client-server-api#device-management,
client-server-api#relationship-between-access-tokens-and-devices
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection

from sqlalchemy import bindparam, delete, insert, select

from app import errors
from app.core.people import access_tokens
from app.db import Reader, Tx
from app.models.devices import Device
from app.spec import identifiers

_EXISTS = select(Device.device_id).where(
    Device.user_id == bindparam("user_id"), Device.device_id == bindparam("device_id")
)
_IDS = select(Device.device_id).where(Device.user_id == bindparam("user_id"))


def start_session(
    tx: Tx, user_id: str, device_id: str | None = None, display_name: str | None = None
) -> str:
    """The id of the device that a user logs in with: a new one, or the one that the client names.

    A device that exists keeps its name and loses its old tokens.
    Raises M_INVALID_PARAM for an id that is too long.
    """
    if not device_id:  # some clients send an empty one for "none"
        device_id = "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))
    if not identifiers.has_at_most_255_bytes(device_id):
        raise errors.invalid_param("The device id is longer than 255 bytes")
    key = {"user_id": user_id, "device_id": device_id}
    if tx.sql.execute(_EXISTS, key).first() is None:
        tx.sql.execute(insert(Device), {**key, "display_name": display_name})
    else:
        access_tokens.revoke(tx, user_id, [device_id])
    return device_id


def ids(tx: Reader, user_id: str) -> list[str]:
    """The ids of all devices of a user."""
    return list(tx.sql.execute(_IDS, {"user_id": user_id}).scalars())


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """End these sessions of a user; ids that are unknown (any more) change nothing."""
    access_tokens.revoke(tx, user_id, device_ids)
    tx.sql.execute(
        delete(Device).where(Device.user_id == user_id, Device.device_id.in_(device_ids))
    )
    tx.wake(user_id)
