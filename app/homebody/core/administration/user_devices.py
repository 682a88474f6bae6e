"""The devices of a user, as administrators see and change them."""

from __future__ import annotations

from collections.abc import Collection

from homebody.core import audit
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.administration import users
from homebody.core.sessions import dehydrated_devices, devices
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx


def all_of(tx: Reader, user_id: str, seen: LastSeen) -> list[Json]:
    """Return all devices of a user; if one is dehydrated, each says whether it is. M_NOT_FOUND."""
    users.find(tx, user_id)
    found = devices.described_for_admin(tx, user_id, seen)
    dehydrated = dehydrated_devices.find_id(tx, user_id)
    if dehydrated is None:
        return found
    return [{**device, "dehydrated": device["device_id"] == dehydrated} for device in found]


def create(
    tx: Tx, actor: str, user_id: str, device_id: str, display_name: str | None = None
) -> None:
    """Create a device without a token, unless there is one. Raises M_NOT_FOUND."""
    users.find(tx, user_id)
    if not devices.exists(tx, user_id, device_id):
        devices.start_session(tx, user_id, device_id, display_name)
        audit.note(tx, actor, "device.create", user_id, device_id=device_id)


def rename(tx: Tx, actor: str, user_id: str, device_id: str, display_name: str | None) -> None:
    """Rename a device; None keeps its name. Raises M_NOT_FOUND, and as devices.rename() does."""
    users.find(tx, user_id)
    devices.rename(tx, user_id, device_id, display_name)
    if display_name is not None:
        audit.note(tx, actor, "device.rename", user_id, device_id=device_id)


def delete(db: Database, actor: str, user_id: str, device_ids: Collection[str]) -> None:
    """End sessions of a user, and ignore those that there are not. Raises M_NOT_FOUND."""
    with db.read() as reading:
        users.find(reading, user_id)
        ending = sorted(set(device_ids).intersection(devices.ids(reading, user_id)))
    devices.remove_most(db, user_id, device_ids)
    with db.write() as tx:
        devices.remove(tx, user_id, device_ids)
        if ending:
            audit.note(tx, actor, "device.delete", user_id, device_ids=ending)


def delete_all(db: Database, actor: str, user_id: str) -> None:
    """End all sessions of a user, also those of browsers, and what could begin another one.

    Raises M_NOT_FOUND.
    """
    with db.read() as reading:
        users.find(reading, user_id)
        ending = devices.ids(reading, user_id)
    devices.remove_most(db, user_id)
    with db.write() as tx:
        devices.remove_all(tx, user_id)
        audit.note(tx, actor, "device.delete", user_id, device_ids=sorted(ending))
