"""The ids of accounts at identity providers, as users link them or administrators record them.

This module alone writes the table external_ids.
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.models.accounts import ExternalId
from homebody.storage.database import Reader, Tx

_OF_USER = (
    select(ExternalId.auth_provider, ExternalId.external_id)
    .where(ExternalId.user_id == bindparam("user_id"))
    .order_by(ExternalId.auth_provider, ExternalId.external_id)
)
_OWNER = select(ExternalId.user_id).where(
    ExternalId.auth_provider == bindparam("auth_provider"),
    ExternalId.external_id == bindparam("external_id"),
)


def of_user(tx: Reader, user_id: str) -> list[tuple[str, str]]:
    """Return the (provider, id) pairs of an account."""
    return [(row[0], row[1]) for row in tx.sql.execute(_OF_USER, {"user_id": user_id})]


def owner(tx: Reader, auth_provider: str, external_id: str) -> str | None:
    """Return the user who has an id at a provider."""
    pair = {"auth_provider": auth_provider, "external_id": external_id}
    found: str | None = tx.sql.execute(_OWNER, pair).scalar()
    return found


def add(tx: Tx, user_id: str, auth_provider: str, external_id: str) -> None:
    """Add an id to an account. Raises M_UNKNOWN (409) for one that an account has already."""
    if owner(tx, auth_provider, external_id) is not None:
        raise errors.MatrixError(409, "M_UNKNOWN", "The external ID is in use")
    row = {"auth_provider": auth_provider, "external_id": external_id, "user_id": user_id}
    tx.sql.execute(insert(ExternalId), row)


def remove(tx: Tx, user_id: str, auth_provider: str, external_id: str) -> None:
    """Remove an id from an account."""
    pair = (ExternalId.auth_provider == auth_provider, ExternalId.external_id == external_id)
    tx.sql.execute(delete(ExternalId).where(ExternalId.user_id == user_id, *pair))
