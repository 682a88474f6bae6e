"""Accounts as some views look them up: unknown ones with the errcode that Synapse has there."""

from __future__ import annotations

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.administration import users
from homebody.storage.database import Reader


def account(tx: Reader, user_id: str) -> AccountInfo:
    """Return an account. Raises M_UNKNOWN: 404 for an unknown one, 400 for another server's."""
    users.check_local(tx.server, user_id)
    found = accounts.find(tx, user_id)
    if found is None:
        raise errors.unknown("This server has no such user", 404)
    return found
