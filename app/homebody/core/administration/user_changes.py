"""Creating and changing accounts, as administrators do: by Synapse's admin API and by commands.

Whatever a request changes is written in one transaction, so a request that is refused has changed
nothing. What takes long follows it: new names are sent to the user's rooms, a deactivated user
leaves them. A request that was interrupted there can be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import access_tokens, accounts, external_ids, moderation, threepids
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.administration import users
from homebody.core.encryption import cross_signing
from homebody.core.profiles import profiles
from homebody.core.push import pushers
from homebody.core.sessions import (
    deactivation,
    devices,
    login,
    registration,
    sign_on_sessions,
)
from homebody.spec import identifiers
from homebody.storage.database import Database, Reader, Tx

REPLACEABLE_MS: Final = 600_000
"""How long a user may replace cross-signing keys without a password."""
KEEP: Final = UNSET
"""The value of what is not changed."""


class ThreePid(msgspec.Struct):
    """A third-party identifier of an account."""

    medium: str
    address: str


class ExternalId(msgspec.Struct):
    """An id of an account at an identity provider."""

    auth_provider: str
    external_id: str


class Changes(msgspec.Struct):
    """What to change of an account, or what a new one has. Other fields stay as they are."""

    password: str | None = None
    logout_devices: bool = True
    displayname: str | UnsetType | None = KEEP
    avatar_url: str | UnsetType | None = KEEP
    threepids: list[ThreePid] | None = None
    external_ids: list[ExternalId] | None = None
    admin: bool | UnsetType = KEEP
    deactivated: bool | UnsetType = KEEP
    locked: bool | UnsetType = KEEP
    user_type: str | UnsetType | None = KEEP


def put(
    db: Database, actor: str, user_id: str, changes: Changes, own_device: str | None = None
) -> bool:
    """Change an account, or create it, and return whether it was created.

    `own_device`: the administrator's, which stays logged in when the own password is changed.
    Raises M_UNKNOWN for another server's user, an unknown type, ending one's own rights, what is
    contradictory, and an external id of another account (409); M_INVALID_USERNAME, M_WEAK_PASSWORD,
    M_THREEPID_IN_USE, and as profiles.put() does.
    """
    users.check_local(db.server, user_id)
    _check(changes)
    password_hash = None
    if changes.password is not None:
        password_hash = accounts.hash_password(db.server, changes.password)
    with db.write() as tx:
        account = accounts.find(tx, user_id)
        is_new = account is None
        if account is None:
            account = _create(tx, actor, user_id, changes, password_hash)
        elif password_hash is not None:
            but = own_device if user_id == actor else None
            _set_password(
                tx, actor, user_id, password_hash, but, logout_devices=changes.logout_devices
            )
        _apply(tx, actor, account, changes)
    if password_hash is not None and changes.logout_devices and not is_new:
        _end_sessions(db, user_id, own_device if user_id == actor else None)
    for name in profiles.IN_ROOMS:
        if getattr(changes, name) is not KEEP:
            profiles.update_rooms(db, user_id, name)
    if changes.deactivated is True:
        deactivate(db, actor, user_id)
    return is_new


def with_emails(tx: Reader, user_id: str, emails: Iterable[str]) -> list[ThreePid]:
    """Return the third-party identifiers of an account, with these e-mail addresses and no others.

    Telephone numbers stay: only the admin API changes them.
    """
    numbers = [it for it in threepids.of_user(tx, user_id) if it["medium"] != threepids.EMAIL]
    kept = [ThreePid(it["medium"], it["address"]) for it in numbers]
    return [*(ThreePid(threepids.EMAIL, it) for it in emails), *kept]


def deactivate(
    db: Database,
    actor: str,
    user_id: str,
    *,
    erase: bool = False,
    own_device: str | None = None,
    progress: deactivation.Progress = lambda _done, _total: None,
) -> None:
    """Deactivate an account, if it is not; erase its user if wanted. Raises M_NOT_FOUND.

    `own_device`: the administrator's, in case they deactivate themselves. `progress`: as of
    deactivation.deactivate().
    """
    with db.read() as tx:
        account = users.find(tx, user_id)
    if account.deactivated_ts is not None and (account.erased_position is not None or not erase):
        return
    devices.remove_most(db, user_id, last=own_device)
    deactivation.deactivate(db, user_id, erase=erase, actor=actor, progress=progress)


def reset_password(
    db: Database,
    actor: str,
    user_id: str,
    password: str,
    *,
    logout_devices: bool = True,
    own_device: str | None = None,
) -> None:
    """Set a password, and end the user's sessions. Raises M_NOT_FOUND, M_WEAK_PASSWORD."""
    with db.read() as reading:
        users.find(reading, user_id)
    password_hash = accounts.hash_password(db.server, password)
    but = own_device if user_id == actor else None
    with db.write() as tx:
        users.find(tx, user_id)
        _set_password(tx, actor, user_id, password_hash, but, logout_devices=logout_devices)
    if logout_devices:
        _end_sessions(db, user_id, but)


def log_in_as(tx: Tx, actor: str, user_id: str, expires_ts: int | None) -> str:
    """Return a token by which an administrator acts as a user. Raises M_NOT_FOUND.

    M_UNKNOWN for oneself, M_USER_DEACTIVATED for an account that is not in use.
    """
    account = users.find(tx, user_id)
    if user_id == actor:
        raise errors.unknown("You can't log in as yourself")
    if account.deactivated_ts is not None:
        raise errors.user_deactivated()
    audit.note(tx, actor, "user.log_in_as", user_id, expires_ts=expires_ts)
    return access_tokens.issue_to(tx, actor, user_id, expires_ts)


def unlink(tx: Tx, actor: str, user_id: str, auth_provider: str, external_id: str) -> None:
    """Remove the link of an account to a login at a provider. Raises M_NOT_FOUND."""
    users.find(tx, user_id)
    if (auth_provider, external_id) not in external_ids.of_user(tx, user_id):
        raise errors.not_found("The account has no such link")
    sign_on_sessions.unlink(tx, user_id, auth_provider, external_id)
    link = {"auth_provider": auth_provider, "external_id": external_id}
    audit.note(tx, actor, "user.unlink", user_id, **link)


def allow_key_replacement(tx: Tx, actor: str, user_id: str) -> int:
    """Let a user replace the cross-signing keys once without a password; return until when (ms).

    For users who have lost their password and devices. Raises M_NOT_FOUND without a master key.
    """
    if cross_signing.MASTER not in cross_signing.all_of(tx, [user_id]).get(user_id, {}):
        raise errors.not_found("The user has no master cross-signing key")
    until_ts = tx.now_ms + REPLACEABLE_MS
    accounts.allow_key_replacement(tx, user_id, until_ts)
    audit.note(tx, actor, "user.replace_keys", user_id)
    return until_ts


def _check(changes: Changes) -> None:
    if changes.user_type not in {KEEP, None, *accounts.USER_TYPES}:
        raise errors.unknown(f"user_type must be one of {', '.join(accounts.USER_TYPES)}, or null")
    if changes.deactivated is True and changes.locked is True:
        raise errors.unknown("An account can't be deactivated and locked at once")


def _create(
    tx: Tx, actor: str, user_id: str, changes: Changes, password_hash: str | None
) -> AccountInfo:
    name = identifiers.localpart(user_id)
    if name != name.lower():
        raise errors.invalid_username("A user name has no capital letters")
    registration.register(tx, name, password_hash)
    audit.note(tx, actor, "user.create", user_id)
    return users.find(tx, user_id)


def _set_password(
    tx: Tx, actor: str, user_id: str, password_hash: str, but: str | None, *, logout_devices: bool
) -> None:
    """Set a password and end all sessions, except that of the device `but`."""
    login.change_password(tx, user_id, password_hash)
    if logout_devices:
        ending = [it for it in devices.ids(tx, user_id) if it != but]
        access_tokens.revoke(tx, user_id, ending)
        access_tokens.revoke_issued(tx, to=user_id)
        tx.wake(user_id)
    audit.note(tx, actor, "user.password", user_id, logout_devices=logout_devices)


def _end_sessions(db: Database, user_id: str, but: str | None) -> None:
    """Remove the devices whose tokens were revoked."""
    devices.remove_most(db, user_id, but=but)
    with db.write() as tx:
        devices.remove_all(tx, user_id, but=but)


def _apply(tx: Tx, actor: str, account: AccountInfo, changes: Changes) -> None:
    """Make the changes that one transaction can make, apart from the password."""
    user_id = account.user_id
    if changes.admin is not KEEP:
        moderation.set_admin(tx, actor, account, is_admin=changes.admin)
    if changes.deactivated is False and account.deactivated_ts is not None:
        deactivation.reactivate(tx, actor, user_id)
    if changes.locked is not KEEP:
        moderation.set_locked(tx, actor, account, is_locked=changes.locked)
    if changes.user_type is not KEEP and changes.user_type != account.user_type:
        accounts.set_user_type(tx, user_id, changes.user_type)
        audit.note(tx, actor, "user.type", user_id, user_type=changes.user_type)
    if changes.threepids is not None:
        _change_addresses(tx, actor, user_id, changes.threepids)
    if changes.external_ids is not None:
        _change_links(tx, actor, user_id, changes.external_ids)
    _change_profile(tx, actor, user_id, changes)


def _change_links(tx: Tx, actor: str, user_id: str, wanted: list[ExternalId]) -> None:
    before = set(external_ids.of_user(tx, user_id))
    after = {(it.auth_provider, it.external_id) for it in wanted}
    for pair in before - after:
        sign_on_sessions.unlink(tx, user_id, *pair)
    for pair in after - before:
        external_ids.add(tx, user_id, *pair)
    if before != after:
        audit.note(tx, actor, "user.external_ids", user_id)


def _change_addresses(tx: Tx, actor: str, user_id: str, wanted: list[ThreePid]) -> None:
    before = threepids.of_user(tx, user_id)
    if not threepids.replace_all(tx, user_id, [(it.medium, it.address) for it in wanted]):
        return
    kept = [it["address"] for it in threepids.of_user(tx, user_id)]
    for address in (it["address"] for it in before if it["address"] not in kept):
        pushers.remove_mailbox(tx, user_id, address)
    audit.note(tx, actor, "user.addresses", user_id)


def _change_profile(tx: Tx, actor: str, user_id: str, changes: Changes) -> None:
    before = profiles.of(tx, user_id)
    for name in profiles.IN_ROOMS:
        value: str | UnsetType | None = getattr(changes, name)
        if value is KEEP or (value or None) == before.get(name):
            continue
        profiles.put(tx, user_id, name, value or "")  # which removes it
        audit.note(tx, actor, "user.profile", user_id, field=name)
