"""Devices: the sessions of a user.

This module alone writes the table devices. Every session ends in `remove`, which also removes what
belongs to a device: its tokens, its keys, messages to it.

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
from homebody.core.accounts import (
    access_tokens,
    login_tokens,
    oauth_sessions,
    sync_connections,
)
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.encryption import cross_signing, device_keys, key_signatures, to_device
from homebody.core.push import pushers
from homebody.core.sessions import browser_sessions, sign_on_sessions
from homebody.core.sessions.browser_sessions import BrowserSession
from homebody.core.user_data import account_data
from homebody.models.devices import Device
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

MAX_NAME_CHARACTERS = 255
LOCAL_NOTIFICATIONS = (
    "m.local_notification_settings",
    "org.matrix.msc3890.local_notification_settings",
)
"""The beginnings of types of account data about a device, whose ID follows (MSC3890)."""
REMOVED_AT_ONCE = 20
"""Removed in one transaction; each may have 2,000 rows of one-time keys."""

_FIND = select(
    Device.device_id,
    Device.display_name,
    Device.last_seen_ts,
    Device.last_seen_ip,
    Device.last_seen_user_agent,
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
    """Create a device, or reuse the one that the client names, and return its id.

    An existing device keeps its name; its old tokens are revoked.
    Raises M_INVALID_PARAM for an id that is too long, or equals a cross-signing key of the user.
    """
    if not device_id:  # some clients send an empty one
        device_id = "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))
    if not identifiers.has_at_most_255_bytes(device_id):
        raise errors.invalid_param("The device ID is longer than 255 bytes")
    if exists(tx, user_id, device_id):
        access_tokens.supersede(tx, user_id, device_id)
        oauth_sessions.remove(tx, user_id, [device_id])
        sign_on_sessions.forget(tx, user_id, [device_id])
        tx.wake(user_id)  # a waiting /sync with one of the old tokens must end
        return device_id
    if cross_signing.is_public_key(tx, user_id, device_id):
        raise errors.invalid_param("One of your cross-signing keys has this id")
    # Cut rather than refused: a browser with a long name must not prevent a login
    name = None if display_name is None else display_name[:MAX_NAME_CHARACTERS]
    row = {"user_id": user_id, "device_id": device_id, "display_name": name}
    tx.sql.execute(insert(Device), row)
    return device_id


def exists(tx: Reader, user_id: str, device_id: str) -> bool:
    """Return whether the user has this device."""
    return tx.sql.execute(_FIND, {"user_id": user_id, "device_id": device_id}).first() is not None


def ids(tx: Reader, user_id: str) -> list[str]:
    """Return the ids of all devices of a user."""
    return list(tx.sql.execute(_IDS, {"user_id": user_id}).scalars())


def all_of(tx: Reader, user_id: str, seen: LastSeen) -> list[Json]:
    """Return all devices of a user, as in the response to GET /devices."""
    rows = tx.sql.execute(_ALL, {"user_id": user_id})
    return [_described(user_id, row, seen) for row in rows]


def described_for_admin(tx: Reader, user_id: str, seen: LastSeen) -> list[Json]:
    """Return all devices of a user, with the programs that used them last."""
    found = []
    for row in tx.sql.execute(_ALL, {"user_id": user_id}):
        now = seen.of(user_id, row.device_id)
        agent = row.last_seen_user_agent if now is None else now.user_agent
        device = {**_described(user_id, row, seen), "last_seen_user_agent": agent}
        found.append({**device, "user_id": user_id})
    return found


def get(tx: Reader, user_id: str, device_id: str, seen: LastSeen) -> Json:
    """Return one device of a user, as in the response to GET /devices. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_FIND, {"user_id": user_id, "device_id": device_id}).first()
    if row is None:
        raise errors.not_found("You have no such device")
    return _described(user_id, row, seen)


def rename(tx: Tx, user_id: str, device_id: str, display_name: str | None) -> None:
    """Rename a device; None keeps its name.

    Raises M_NOT_FOUND for an unknown device, M_INVALID_PARAM for a name that is too long.
    """
    if not exists(tx, user_id, device_id):
        raise errors.not_found("You have no such device")
    if display_name is None:
        return
    if len(display_name) > MAX_NAME_CHARACTERS:
        raise errors.invalid_param(f"The name has more than {MAX_NAME_CHARACTERS} characters")
    device = (Device.user_id == user_id, Device.device_id == device_id)
    tx.sql.execute(update(Device).where(*device).values(display_name=display_name))
    device_keys.note_rename(tx, user_id, device_id)


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Remove these devices of a user, with all that belongs to them; ignore unknown ids."""
    known = set(device_ids).intersection(ids(tx, user_id))
    access_tokens.revoke(tx, user_id, known)
    oauth_sessions.remove(tx, user_id, known)
    pushers.remove_of_devices(tx, user_id, known)
    tx.sql.execute(delete(Device).where(Device.user_id == user_id, Device.device_id.in_(known)))
    device_keys.remove(tx, user_id, known)
    key_signatures.remove(tx, user_id, known)
    to_device.remove(tx, user_id, known)
    sync_connections.remove(tx, user_id, known)
    for device_id in known:
        for prefix in LOCAL_NOTIFICATIONS:
            account_data.remove(tx, user_id, f"{prefix}.{device_id}")
    sign_on_sessions.forget(tx, user_id, known)
    tx.wake(user_id)  # a waiting /sync of such a device must end


def remove_most(
    db: Database,
    user_id: str,
    device_ids: Collection[str] | None = None,
    *,
    but: str | None = None,
    last: str | None = None,
) -> None:
    """Remove most of these devices in several transactions, before the caller removes the rest.

    Without ids: all devices except `but`. Removing thousands of devices, with the keys and messages
    of each, in one transaction would block other writers for seconds. `last` is the requesting
    device, as a request can only write while its session exists.
    """
    with db.read() as reading:
        known = [it for it in ids(reading, user_id) if it != but]
    chosen = set(known) if device_ids is None else set(device_ids)
    ending = sorted((it for it in known if it in chosen), key=lambda it: it == last)
    for at in range(0, len(ending), REMOVED_AT_ONCE):
        some = ending[at : at + REMOVED_AT_ONCE]
        to_device.empty(db, user_id, some)
        if at + REMOVED_AT_ONCE < len(ending):
            with db.write() as tx:
                remove(tx, user_id, some)


def remove_all(
    tx: Tx, user_id: str, *, but: str | None = None, but_browser: BrowserSession | None = None
) -> None:
    """Remove all devices of a user except `but`, and revoke the user's login tokens.

    Otherwise a session that ends here could have issued a login token for a new one. The tokens by
    which an administrator acts as other users end with the administrator's sessions, as do those of
    browsers, except `but_browser`.
    """
    browser_sessions.end_all(tx, user_id, but=but_browser)
    login_tokens.revoke_all(tx, user_id)
    oauth_sessions.forget_consents(tx, user_id)
    access_tokens.revoke_issued(tx, to=user_id)
    remove(tx, user_id, [device_id for device_id in ids(tx, user_id) if device_id != but])


def _described(user_id: str, row: Row[*tuple[Any, ...]], seen: LastSeen) -> Json:
    now = seen.of(user_id, row.device_id)
    # Deviates: an unknown value is null, where the specification omits the key. matrix-nio (0.26)
    # rejects the whole list if a key is missing; clients accept null, as Synapse sends it.
    return {
        "device_id": row.device_id,
        "display_name": row.display_name,
        "last_seen_ip": row.last_seen_ip if now is None else now.ip,
        "last_seen_ts": row.last_seen_ts if now is None else now.ts,
    }
