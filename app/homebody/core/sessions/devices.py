"""Devices: the sessions of a user.

This module alone writes the table devices. `remove` is the one way in which a session ends: what
belongs to a device (its tokens, its keys, messages for it) goes with it there.

Spec: client-server-api#device-management,
client-server-api#relationship-between-access-tokens-and-devices
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, update

from homebody import errors
from homebody.core.accounts import access_tokens, login_tokens
from homebody.core.accounts.last_seen import LastSeen
from homebody.core.encryption import cross_signing, device_keys, key_signatures, to_device
from homebody.core.push import pushers
from homebody.models.devices import Device
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

MAX_NAME_CHARACTERS = 255
ENDED_AT_ONCE = 20
"""In one write; each may have 2,000 rows of one-time keys."""

_FIND = select(
    Device.device_id, Device.display_name, Device.last_seen_ts, Device.last_seen_ip
).where(Device.user_id == bindparam("user_id"), Device.device_id == bindparam("device_id"))
_ALL = (
    select(*_FIND.selected_columns)
    .where(Device.user_id == bindparam("user_id"))
    .order_by(Device.device_id)
)
_IDS = select(Device.device_id).where(Device.user_id == bindparam("user_id"))


def start_session(
    tx: Tx, user_id: str, device_id: str | None = None, display_name: str | None = None
) -> str:
    """The id of the device that a user logs in with: a new one, or the one that the client names.

    A device that exists keeps its name and loses its old tokens.
    Raises M_INVALID_PARAM for an id that is too long, or is a cross-signing key of the user.
    """
    if not device_id:  # some clients send an empty one for "none"
        device_id = "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))
    if not identifiers.has_at_most_255_bytes(device_id):
        raise errors.invalid_param("The device id is longer than 255 bytes")
    key = {"user_id": user_id, "device_id": device_id}
    if tx.sql.execute(_FIND, key).first() is not None:
        access_tokens.supersede(tx, user_id, device_id)
        tx.wake(user_id)  # a waiting /sync with one of the old tokens has to notice
        return device_id
    if cross_signing.is_public_key(tx, user_id, device_id):
        raise errors.invalid_param("One of your cross-signing keys is called like this device id")
    # Cut rather than refused: nobody should be unable to log in as the browser has a long name
    name = None if display_name is None else display_name[:MAX_NAME_CHARACTERS]
    tx.sql.execute(insert(Device), {**key, "display_name": name})
    return device_id


def ids(tx: Reader, user_id: str) -> list[str]:
    """The ids of all devices of a user."""
    return list(tx.sql.execute(_IDS, {"user_id": user_id}).scalars())


def all_of(tx: Reader, user_id: str, seen: LastSeen) -> list[Json]:
    """All devices of a user, in the words of the answer to GET /devices."""
    rows = tx.sql.execute(_ALL, {"user_id": user_id})
    return [_described(user_id, row, seen) for row in rows]


def get(tx: Reader, user_id: str, device_id: str, seen: LastSeen) -> Json:
    """One device of a user, likewise. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_FIND, {"user_id": user_id, "device_id": device_id}).first()
    if row is None:
        raise errors.not_found("You have no such device")
    return _described(user_id, row, seen)


def rename(tx: Tx, user_id: str, device_id: str, display_name: str | None) -> None:
    """Give a device another name; None changes nothing.

    Raises M_NOT_FOUND for an unknown device, M_INVALID_PARAM for a name that is too long.
    """
    if tx.sql.execute(_FIND, {"user_id": user_id, "device_id": device_id}).first() is None:
        raise errors.not_found("You have no such device")
    if display_name is None:
        return
    if len(display_name) > MAX_NAME_CHARACTERS:
        raise errors.invalid_param(f"The name has more than {MAX_NAME_CHARACTERS} characters")
    device = (Device.user_id == user_id, Device.device_id == device_id)
    tx.sql.execute(update(Device).where(*device).values(display_name=display_name))
    device_keys.note_rename(tx, user_id, device_id)


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """End these sessions of a user; ids that are unknown (any more) change nothing."""
    known = set(device_ids).intersection(ids(tx, user_id))
    access_tokens.revoke(tx, user_id, known)
    pushers.remove_of_devices(tx, user_id, known)
    tx.sql.execute(delete(Device).where(Device.user_id == user_id, Device.device_id.in_(known)))
    device_keys.remove(tx, user_id, known)
    key_signatures.forget(tx, user_id, known)
    to_device.remove(tx, user_id, known)
    tx.wake(user_id)  # a waiting /sync of such a device has to notice


def end_most(
    db: Database,
    user_id: str,
    device_ids: Collection[str] | None = None,
    *,
    but: str | None = None,
    last: str | None = None,
) -> None:
    """End most of these sessions of a user, some in each write, before a write that ends the rest.

    Without ids: all, except that of the device `but`. Thousands of sessions, with the keys and the
    messages of each, would keep others from writing for seconds. `last` is the device that asks for
    it, as the request may write no longer than its session lasts.
    """
    with db.read() as reading:
        known = [it for it in ids(reading, user_id) if it != but]
    chosen = set(known) if device_ids is None else set(device_ids)
    ending = sorted((it for it in known if it in chosen), key=lambda it: it == last)
    for at in range(0, len(ending), ENDED_AT_ONCE):
        some = ending[at : at + ENDED_AT_ONCE]
        to_device.empty(db, user_id, some)
        if at + ENDED_AT_ONCE < len(ending):
            with db.write() as tx:
                remove(tx, user_id, some)


def remove_all(tx: Tx, user_id: str, *, but: str | None = None) -> None:
    """End all sessions of a user, except that of the device `but`.

    Login tokens end as well: one of the sessions may have made one, to begin the next with it.
    """
    login_tokens.revoke_all(tx, user_id)
    remove(tx, user_id, [device_id for device_id in ids(tx, user_id) if device_id != but])


def _described(user_id: str, row: Row[*tuple[Any, ...]], seen: LastSeen) -> Json:
    now = seen.of(user_id, row.device_id)
    # Deviates: what is not known is null, where the specification leaves the key out. matrix-nio
    # (0.26) refuses the whole list if a key is missing; clients take null, as Synapse sends it.
    return {
        "device_id": row.device_id,
        "display_name": row.display_name,
        "last_seen_ip": row.last_seen_ip if now is None else now.ip,
        "last_seen_ts": row.last_seen_ts if now is None else now.ts,
    }
