"""Account moderation by administrators: whois, locks, suspensions, shadow bans, rights.

A locked user can only log out, but keeps their sessions; a suspended user can read, but not send;
a shadow-banned user gets the responses of one who sends, and reaches nobody. All of it takes effect
with the next request, as the user's tokens are dropped from the cache. The tokens by which a locked
or suspended administrator acts as other users end.

Functions that change an account take the administrator as `actor`, for the audit log.
Spec: client-server-api#server-administration, client-server-api#account-moderation
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, select

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import access_tokens, accounts
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.accounts.accounts import AccountInfo
from homebody.models.devices import Device
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

_DEVICES = select(
    Device.device_id, Device.last_seen_ts, Device.last_seen_ip, Device.last_seen_user_agent
).where(Device.user_id == bindparam("user_id"))


def whois(tx: Reader, user_id: str, seen: LastSeen) -> Json:
    """Return from where the user's devices were last used; nothing for an unknown user."""
    devices = {
        row.device_id: {"sessions": [{"connections": _connections(user_id, row, seen)}]}
        for row in tx.sql.execute(_DEVICES, {"user_id": user_id})
    }
    return {"user_id": user_id, "devices": devices}


def check_may_ask(requester: Requester, user_id: str) -> None:
    """Raise M_FORBIDDEN unless the requester is the user, or an administrator."""
    if user_id != requester.user_id:
        _check_admin(requester)


def find(tx: Reader, requester: Requester, user_id: str) -> AccountInfo:
    """Return the account that an administrator asks about.

    Raises M_FORBIDDEN for requesters who are not administrators, before the account is looked up,
    and for accounts of other administrators; M_INVALID_PARAM for users of other servers;
    M_NOT_FOUND.
    """
    _check_admin(requester)
    if not identifiers.is_user_id(user_id):
        raise errors.invalid_param("This is not a user ID")
    if not tx.server.is_local(user_id):
        raise errors.invalid_param("This is a user of another server")
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found("This server has no such user")
    if account.is_admin and user_id != requester.user_id:
        raise errors.forbidden("This user is an administrator, too")
    return account


def find_other(tx: Reader, requester: Requester, user_id: str) -> AccountInfo:
    """Return the account that an administrator restricts. Raises as `find`, also for their own."""
    _check_admin(requester)
    if user_id == requester.user_id:
        raise errors.forbidden("You can't do this to yourself")
    return find(tx, requester, user_id)


def set_locked(tx: Tx, actor: str, account: AccountInfo, *, is_locked: bool) -> None:
    """Lock or unlock an account."""
    if account.is_locked == is_locked:
        return
    accounts.set_locked(tx, account.user_id, is_locked=is_locked)
    audit.note(tx, actor, "user.lock" if is_locked else "user.unlock", account.user_id)
    if is_locked:
        access_tokens.revoke_issued(tx, to=account.user_id)
    _take_effect(tx, account.user_id)


def set_suspended(tx: Tx, actor: str, account: AccountInfo, *, is_suspended: bool) -> None:
    """Suspend or unsuspend an account."""
    if account.is_suspended == is_suspended:
        return
    accounts.set_suspended(tx, account.user_id, is_suspended=is_suspended)
    audit.note(tx, actor, "user.suspend" if is_suspended else "user.unsuspend", account.user_id)
    if is_suspended:
        access_tokens.revoke_issued(tx, to=account.user_id)
    _take_effect(tx, account.user_id)


def set_shadow_banned(tx: Tx, actor: str, account: AccountInfo, *, is_shadow_banned: bool) -> None:
    """Shadow-ban an account, or end that."""
    if account.is_shadow_banned == is_shadow_banned:
        return
    accounts.set_shadow_banned(tx, account.user_id, is_shadow_banned=is_shadow_banned)
    action = "user.shadow_ban" if is_shadow_banned else "user.unshadow_ban"
    audit.note(tx, actor, action, account.user_id)
    _take_effect(tx, account.user_id)


def set_admin(tx: Tx, actor: str, account: AccountInfo, *, is_admin: bool) -> None:
    """Make a user an administrator, or end that. Raises M_UNKNOWN for ending one's own rights.

    The tokens by which a former administrator acts as other users end.
    """
    if account.is_admin == is_admin:
        return
    if account.user_id == actor and not is_admin:
        raise errors.unknown("You can't take away your own rights: another administrator can")
    accounts.set_admin(tx, account.user_id, is_admin=is_admin)
    if not is_admin:
        access_tokens.revoke_issued(tx, to=account.user_id)
    audit.note(tx, actor, "user.admin", account.user_id, is_admin=is_admin)
    access_tokens.drop_cached(tx, account.user_id)


def set_expiry(tx: Tx, actor: str, account: AccountInfo, expires_ts: int | None) -> None:
    """Set from when on an account can't be used (ms), or let it be used without a limit."""
    if account.expires_ts == expires_ts:
        return
    accounts.set_expiry(tx, account.user_id, expires_ts)
    audit.note(tx, actor, "user.expiry", account.user_id, expires_ts=expires_ts)
    if expires_ts is not None:
        access_tokens.revoke_issued(tx, to=account.user_id)
    _take_effect(tx, account.user_id)


def _take_effect(tx: Tx, user_id: str) -> None:
    """Apply a change to the next request, and to those that are waiting."""
    access_tokens.drop_cached(tx, user_id)
    devices = tx.sql.execute(_DEVICES, {"user_id": user_id})
    tx.note_departure(user_id, device_ids={row.device_id for row in devices})  # ends their typing
    tx.wake(user_id)


def _check_admin(requester: Requester) -> None:
    if not requester.is_admin:
        raise errors.forbidden("Only administrators of the server may do this")


def _connections(user_id: str, row: Row[*tuple[Any, ...]], seen: LastSeen) -> list[Json]:
    """Return the last connection of a device, in a list that is empty if it was never used."""
    now = seen.of(user_id, row.device_id)
    found = {
        "ip": row.last_seen_ip if now is None else now.ip,
        "last_seen": row.last_seen_ts if now is None else now.ts,
        "user_agent": row.last_seen_user_agent if now is None else now.user_agent,
    }
    connection = {key: value for key, value in found.items() if value is not None}
    return [connection] if connection else []
