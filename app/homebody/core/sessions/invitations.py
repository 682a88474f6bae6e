"""Links that let a person in once: to register an account, or to set a new password.

The database holds hashes of their tokens only. This module alone writes the table invitations.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update

from homebody import errors
from homebody.config.settings import Config
from homebody.core import audit
from homebody.core.accounts import access_tokens, accounts
from homebody.core.sessions import registration
from homebody.models.accounts import Invitation as Row
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

REGISTER: Final = "register"
PASSWORD: Final = "password"  # noqa: S105 - a purpose
KEPT_MS: Final = 30 * 24 * 3_600_000
"""How long the administrator sees invitations that have expired."""

MAX_LIFETIME_MS: Final = 366 * 24 * 3_600_000
DEFAULT_LIFETIMES_MS: Final = {REGISTER: 7 * 24 * 3_600_000, PASSWORD: 24 * 3_600_000}
ID_CHARACTERS: Final = 12
_PATHS: Final = {REGISTER: "/_homebody/invite/", PASSWORD: "/_homebody/reset/"}

_ALL = select(
    Row.token_hash,
    Row.purpose,
    Row.user_id,
    Row.rooms,
    Row.created_by,
    Row.created_ts,
    Row.expires_ts,
    Row.used_ts,
)
_FIND = _ALL.where(Row.token_hash == bindparam("token_hash"))


@dataclass(frozen=True, slots=True)
class Invitation:
    """A row of the table invitations."""

    token_hash: bytes
    purpose: str
    user_id: str | None
    rooms: list[str] | None
    created_by: str
    created_ts: int  # ms
    expires_ts: int  # ms
    used_ts: int | None  # ms

    @property
    def id(self) -> str:
        """What administrators call it by; it does not let anybody in."""
        return self.token_hash.hex()[:ID_CHARACTERS]


def create(
    tx: Tx,
    actor: str,
    purpose: str,
    user_id: str | None,
    lifetime_ms: int,
    rooms: list[str] | None = None,
) -> str:
    """Return the token of a new invitation.

    Args:
        tx: the transaction.
        actor: the administrator who invites.
        purpose: REGISTER or PASSWORD.
        user_id: the account that gets a new password, or the user ID kept for a new account.
        lifetime_ms: how long it can be used.
        rooms: the rooms to join, by ID or alias; by default those of the configuration.

    Raises M_INVALID_PARAM for a lifetime of more than a year.

    """
    if not 0 < lifetime_ms <= MAX_LIFETIME_MS:
        raise errors.invalid_param("A link can be valid for up to a year")
    tx.sql.execute(delete(Row).where(Row.expires_ts < tx.now_ms - KEPT_MS))
    token = secrets.token_urlsafe(24)
    row = {
        "token_hash": access_tokens.hash_of(token),
        "purpose": purpose,
        "user_id": user_id,
        "rooms": rooms,
        "created_by": actor,
        "created_ts": tx.now_ms,
        "expires_ts": tx.now_ms + lifetime_ms,
    }
    tx.sql.execute(insert(Row), row)
    audit.note(tx, actor, f"invitation.{purpose}", user_id, expires_ts=row["expires_ts"])
    return token


def invite(
    tx: Tx, actor: str, name: str | None, lifetime_ms: int, rooms: list[str] | None = None
) -> str:
    """Return a link by which a person can register, with this user name or one that they choose.

    Raises as `registration.free_user_id` and `create`.
    """
    user_id = None if name is None else registration.free_user_id(tx, name)
    return link(
        tx.server.config, REGISTER, create(tx, actor, REGISTER, user_id, lifetime_ms, rooms)
    )


def reset_link(tx: Tx, actor: str, user_id: str, lifetime_ms: int) -> str:
    """Return a link by which a user can set a new password; earlier ones end.

    Raises M_NOT_FOUND, M_USER_DEACTIVATED, M_USER_LOCKED, ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    account = accounts.find(tx, user_id)
    if account is None or account.is_guest:
        raise errors.not_found(f"There is no user {user_id}")
    accounts.check_active(tx, account)
    end_reset_links(tx, user_id)
    return link(tx.server.config, PASSWORD, create(tx, actor, PASSWORD, user_id, lifetime_ms))


def end_reset_links(tx: Tx, user_id: str) -> None:
    """End the links by which a user can set a new password, as they have one or no account."""
    unused = (Row.purpose == PASSWORD, Row.user_id == user_id, Row.used_ts.is_(None))
    tx.sql.execute(delete(Row).where(*unused))


def link(config: Config, purpose: str, token: str) -> str:
    """Return the link with this token."""
    return f"{config.public_url}{_PATHS[purpose]}{token}"


def find(tx: Reader, purpose: str, token: str) -> Invitation:
    """Return a valid invitation. Raises M_FORBIDDEN for one that was used, or has expired.

    A link for a new password is not valid any more if its creator is not an administrator any more:
    they could have made one of another administrator's account before, and take that over.
    """
    found = tx.sql.execute(_FIND, {"token_hash": access_tokens.hash_of(token)}).first()
    if (
        found is None
        or found.purpose != purpose
        or found.used_ts is not None
        or found.expires_ts <= tx.now_ms
        or (purpose == PASSWORD and not _may_still_reset(tx, found.created_by))
    ):
        raise errors.forbidden("This link is not valid: it was used before, or has expired")
    return Invitation(*found)


def _may_still_reset(tx: Reader, actor: str) -> bool:
    if not identifiers.is_user_id(actor):
        return True  # the command line
    account = accounts.find(tx, actor)
    if account is None or not account.is_admin or account.is_suspended:
        return False
    try:
        accounts.check_active(tx, account)
    except errors.MatrixError:
        return False
    return True


def use(tx: Tx, purpose: str, token: str) -> Invitation:
    """Consume an invitation and return it. Raises as `find` does."""
    found = find(tx, purpose, token)
    tx.sql.execute(update(Row).where(Row.token_hash == found.token_hash).values(used_ts=tx.now_ms))
    return found


def register(tx: Tx, token: str, name: str, password_hash: str) -> tuple[str, list[str] | None]:
    """Create an account for a person who has the link, also where registration is closed.

    Return the user ID, and the rooms to join. Raises as `find` and `registration.register` do.
    """
    found = use(tx, REGISTER, token)
    if found.user_id is not None:
        name = identifiers.localpart(found.user_id)
    user_id = registration.register(tx, name, password_hash, is_invited=found.user_id is not None)
    registration.accept_terms(tx, user_id)
    return user_id, found.rooms


def all_of(tx: Reader) -> list[Invitation]:
    """Return all invitations, also those that were used or expired in the last days."""
    return [Invitation(*row) for row in tx.sql.execute(_ALL.order_by(Row.created_ts))]


def described(invitation: Invitation) -> Json:
    """Return an invitation as JSON for administrators, without what lets somebody in."""
    return {
        "id": invitation.id,
        "purpose": invitation.purpose,
        "user_id": invitation.user_id,
        "rooms": invitation.rooms,
        "created_by": invitation.created_by,
        "created_ts": invitation.created_ts,
        "expires_ts": invitation.expires_ts,
        "used_ts": invitation.used_ts,
    }


def revoke(tx: Tx, actor: str, given: str) -> None:
    """Revoke an invitation, given by its id, its link or its token. Raises M_NOT_FOUND."""
    token_hash = access_tokens.hash_of(given.rpartition("/")[2])
    found = [it for it in all_of(tx) if it.id == given or it.token_hash == token_hash]
    if not found:
        raise errors.not_found("There is no such invitation")
    tx.sql.execute(delete(Row).where(Row.token_hash == found[0].token_hash))
    audit.note(tx, actor, "invitation.revoke", found[0].user_id, id=found[0].id)
