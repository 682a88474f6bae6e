"""Third-party identifiers: the e-mail addresses of accounts.

Users log in with them, and reset a forgotten password. An address belongs to one account at most.
This module alone writes the table threepids.

Spec: client-server-api#adding-account-administrative-contact-information, appendices#3pid-types
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import validation
from homebody.models.sign_in import ThreePid
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

EMAIL: Final = "email"
MAX_ADDRESSES: Final = 20
"""Per account."""

# What all mail servers accept: no quotes, comments or letters beyond ASCII. The few users with such
# an address can use another one, and nothing that looks like one address hides a second one.
_ADDRESS: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
_NUMBER: Final = re.compile(r"[0-9]{4,15}")
MAX_ADDRESS: Final = 254
MAX_LOCAL_PART: Final = 64

PHONE: Final = "msisdn"
"""Telephone numbers: administrators may record them, but nobody can log in with one."""

_OF_USER = (
    select(ThreePid.medium, ThreePid.address, ThreePid.validated_ts, ThreePid.added_ts)
    .where(ThreePid.user_id == bindparam("user_id"))
    .order_by(ThreePid.added_ts, ThreePid.address)
)


def canonical(address: str) -> str:
    """Return an e-mail address in lowercase. Raises M_INVALID_PARAM for an invalid one.

    Spec: appendices#e-mail
    """
    # Deviates: "with the domain in lowercase", and the local part as typed. Phones capitalize the
    # first letter, and no mail server in use gives Bob@ and bob@ to two users.
    small = address.strip().lower()
    is_short = len(small) <= MAX_ADDRESS and small.find("@") <= MAX_LOCAL_PART
    if not is_short or not _ADDRESS.fullmatch(small):
        raise errors.invalid_param("This is not an e-mail address that mail can be sent to")
    return small


def owner(tx: Reader, address: str) -> str | None:
    """Return the user with this address in any capitalization, or None."""
    return find(tx, EMAIL, address)


def of_user(tx: Reader, user_id: str) -> list[Json]:
    """Return the addresses of a user, as in the response to GET /account/3pid."""
    return [
        {
            "medium": row.medium,
            "address": row.address,
            "validated_at": row.validated_ts,
            "added_at": row.added_ts,
        }
        for row in tx.sql.execute(_OF_USER, {"user_id": user_id})
    ]


def find(tx: Reader, medium: str, address: str) -> str | None:
    """Return the user with an address of this medium, or None."""
    key = (ThreePid.medium == medium, ThreePid.address == address.strip().lower())
    user_id: str | None = tx.sql.execute(select(ThreePid.user_id).where(*key)).scalar()
    return user_id


def replace_all(tx: Tx, user_id: str, pairs: Iterable[tuple[str, str]]) -> bool:
    """Set all (medium, address) pairs of an account, as an administrator says, without validation.

    Returns whether that has changed anything.
    Raises M_INVALID_PARAM for what is not an address, M_THREEPID_IN_USE for another account's.
    """
    wanted = dict.fromkeys((medium, _canonical(medium, address)) for medium, address in pairs)
    known = {(it["medium"], it["address"]) for it in of_user(tx, user_id)}
    for medium, address in known - wanted.keys():
        remove(tx, user_id, medium, address)
    for medium, address in wanted:
        if (medium, address) in known:
            continue
        if find(tx, medium, address) is not None:
            raise errors.threepid_in_use()
        row = {"medium": medium, "address": address, "user_id": user_id}
        times = {"validated_ts": tx.now_ms, "added_ts": tx.now_ms}
        tx.sql.execute(insert(ThreePid), {**row, **times})
    return known != wanted.keys()


def _canonical(medium: str, address: str) -> str:
    if medium == EMAIL:
        return canonical(address)
    if medium != PHONE:
        raise errors.invalid_param(f"medium must be {EMAIL} or {PHONE}")
    if not _NUMBER.fullmatch(address):
        raise errors.invalid_param("A telephone number has up to 15 digits, and nothing else")
    return address


def add(tx: Tx, user_id: str, proof: validation.Validated) -> None:
    """Add a validated address to the account, and consume its validation session.

    Raises M_THREEPID_IN_USE when it is another user's, M_THREEPID_DENIED when the account has too
    many, M_THREEPID_AUTH_FAILED when the session was used meanwhile.
    """
    validation.consume(tx, proof.sid)
    current_owner = owner(tx, proof.address)
    if current_owner == user_id:
        return
    if current_owner is not None:
        raise errors.threepid_in_use()
    if len(of_user(tx, user_id)) >= MAX_ADDRESSES:
        raise errors.threepid_denied(f"An account has at most {MAX_ADDRESSES} addresses")
    tx.sql.execute(
        insert(ThreePid),
        {
            "medium": EMAIL,
            "address": proof.address,
            "user_id": user_id,
            "validated_ts": proof.validated_ts,
            "added_ts": tx.now_ms,
        },
    )


def add_vouched(tx: Tx, user_id: str, address: str) -> bool:
    """Add an e-mail address that somebody else has validated, and return whether it was added.

    It is not if it is another account's, or one that mail can't be sent to.
    """
    try:
        small = canonical(address)
    except errors.MatrixError:
        return False
    if owner(tx, small) is not None:
        return False
    row = {"medium": EMAIL, "address": small, "user_id": user_id}
    tx.sql.execute(insert(ThreePid), {**row, "validated_ts": tx.now_ms, "added_ts": tx.now_ms})
    return True


def remove(tx: Tx, user_id: str, medium: str, address: str) -> None:
    """Remove an address of the user. Raises M_THREEPID_NOT_FOUND when it is not theirs."""
    key = (ThreePid.medium == medium, ThreePid.address == address.strip().lower())
    theirs = delete(ThreePid).where(*key, ThreePid.user_id == user_id)
    if not tx.sql.execute(theirs).rowcount:
        raise errors.threepid_not_found("Your account does not have this address")


def remove_all(tx: Tx, user_id: str) -> None:
    """Remove all addresses of the user, so that other accounts can have them."""
    tx.sql.execute(delete(ThreePid).where(ThreePid.user_id == user_id))
