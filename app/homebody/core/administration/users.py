"""Accounts as administrators see them, in the form of Synapse's admin API."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, bindparam, select

from homebody import errors
from homebody.core.accounts import accounts, external_ids, threepids
from homebody.core.accounts.access_tokens import LastSeen
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.profiles import profiles
from homebody.models.accounts import AcceptedTerms
from homebody.models.appservices import AppserviceUser
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader, Server

_SERVICE = select(AppserviceUser.service_id).where(AppserviceUser.user_id == bindparam("user_id"))
_TERMS = (
    select(AcceptedTerms.version, AcceptedTerms.accepted_ts)
    .where(AcceptedTerms.user_id == bindparam("user_id"))
    .order_by(AcceptedTerms.accepted_ts.desc())
    .limit(1)
)


def check_local(server: Server, user_id: str) -> None:
    """Raise M_INVALID_PARAM for what is not a user id, M_UNKNOWN (400) for another server's."""
    if not identifiers.is_user_id(user_id):
        raise errors.invalid_param("This is not a user id")
    if not server.is_local(user_id):
        raise errors.unknown("This is a user of another server")


def find(tx: Reader, user_id: str) -> AccountInfo:
    """Return an account, also one that is deactivated. Raises as `check_local`, M_NOT_FOUND."""
    check_local(tx.server, user_id)
    account = accounts.find(tx, user_id)
    if account is None:
        raise errors.not_found("This server has no such user")
    return account


def described(tx: Reader, user_id: str, seen: LastSeen) -> Json:
    """Return all about an account. Raises as `find` does.

    `creation_ts` is in seconds here, where the list of all accounts has milliseconds.
    """
    account = find(tx, user_id)
    profile = profiles.of(tx, user_id)
    terms: Row[Any] | None = tx.sql.execute(_TERMS, {"user_id": user_id}).first()
    return {
        "name": user_id,
        "displayname": profile.get("displayname"),
        "avatar_url": profile.get("avatar_url"),
        "threepids": threepids.of_user(tx, user_id),
        "external_ids": [
            {"auth_provider": provider, "external_id": external_id}
            for provider, external_id in external_ids.of_user(tx, user_id)
        ],
        "is_guest": account.is_guest,
        "admin": account.is_admin,
        "deactivated": account.deactivated_ts is not None,
        "erased": account.erased_position is not None,
        "shadow_banned": account.is_shadow_banned,
        "locked": account.is_locked,
        "suspended": account.is_suspended,
        "user_type": account.user_type,
        "creation_ts": account.created_ts // 1000,
        "last_seen_ts": seen.latest(user_id) or account.last_seen_ts,
        "appservice_id": tx.sql.execute(_SERVICE, {"user_id": user_id}).scalar(),
        "consent_version": None if terms is None else terms.version,
        "consent_ts": None if terms is None else terms.accepted_ts,
        "consent_server_notice_sent": None,
    }
