"""Account moderation by administrators: whois, locking, suspending.

A locked user can only log out, but keeps their sessions; a suspended user can read, but not send.
Both take effect with the next request, as the user's tokens are dropped from the cache.
Spec: client-server-api#server-administration, client-server-api#account-moderation
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, select

from homebody import errors
from homebody.core.accounts import access_tokens, accounts
from homebody.core.accounts.access_tokens import LastSeen
from homebody.models.devices import Device
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

_DEVICES = select(
    Device.device_id, Device.last_seen_ts, Device.last_seen_ip, Device.last_seen_user_agent
).where(Device.user_id == bindparam("user_id"))


def whois(tx: Reader, requester: Requester, user_id: str, seen: LastSeen) -> Json:
    """Return from where the user's devices were last used.

    Users may ask about themselves, administrators about everybody. Raises M_FORBIDDEN, M_NOT_FOUND.
    """
    if user_id != requester.user_id:
        _check_admin(requester)
    if accounts.find(tx, user_id) is None:
        raise errors.not_found("This server has no such user")
    devices = {
        row.device_id: {"sessions": [{"connections": [_connection(user_id, row, seen)]}]}
        for row in tx.sql.execute(_DEVICES, {"user_id": user_id})
    }
    return {"user_id": user_id, "devices": devices}


def find(tx: Reader, requester: Requester, user_id: str) -> accounts.AccountInfo:
    """Return the account that an administrator asks about.

    Raises M_FORBIDDEN for requesters who are not administrators, before the account is looked up,
    and for accounts of other administrators; M_INVALID_PARAM for users of other servers;
    M_NOT_FOUND.
    """
    _check_admin(requester)
    if not identifiers.is_user_id(user_id):
        raise errors.invalid_param("This is not a user id")
    if not tx.server.is_local(user_id):
        raise errors.invalid_param("This is a user of another server")
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found("This server has no such user")
    if account.is_admin and user_id != requester.user_id:
        raise errors.forbidden("This user is an administrator, too")
    return account


def set_locked(tx: Tx, requester: Requester, user_id: str, *, is_locked: bool) -> None:
    """Lock or unlock an account. Raises as `find` does; M_FORBIDDEN for one's own."""
    _check_not_self(requester, user_id)
    find(tx, requester, user_id)
    accounts.set_locked(tx, user_id, is_locked=is_locked)
    _take_effect(tx, user_id)


def set_suspended(tx: Tx, requester: Requester, user_id: str, *, is_suspended: bool) -> None:
    """Suspend or unsuspend an account. Raises as `set_locked` does."""
    _check_not_self(requester, user_id)
    find(tx, requester, user_id)
    accounts.set_suspended(tx, user_id, is_suspended=is_suspended)
    _take_effect(tx, user_id)


def _take_effect(tx: Tx, user_id: str) -> None:
    """Apply a change to the next request, and to those that are waiting."""
    access_tokens.drop_cached(tx, user_id)
    devices = tx.sql.execute(_DEVICES, {"user_id": user_id})
    tx.note_departure(user_id, device_ids={row.device_id for row in devices})  # ends their typing
    tx.wake(user_id)


def _check_admin(requester: Requester) -> None:
    if not requester.is_admin:
        raise errors.forbidden("Only administrators of the server may do this")


def _check_not_self(requester: Requester, user_id: str) -> None:
    _check_admin(requester)
    if user_id == requester.user_id:
        raise errors.forbidden("You can't do this to yourself")


def _connection(user_id: str, row: Row[*tuple[Any, ...]], seen: LastSeen) -> Json:
    now = seen.of(user_id, row.device_id)
    found = {
        "ip": row.last_seen_ip if now is None else now.ip,
        "last_seen": row.last_seen_ts if now is None else now.ts,
        "user_agent": row.last_seen_user_agent if now is None else now.user_agent,
    }
    return {key: value for key, value in found.items() if value is not None}
