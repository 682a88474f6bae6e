"""Third-party identifiers: the e-mail addresses of accounts.

With one of them people log in, and get a new password when they have forgotten theirs. An address
belongs to one account at most. This module alone writes the table threepids.

Spec: client-server-api#adding-account-administrative-contact-information, appendices#3pid-types
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import validation
from homebody.models.sign_in import ThreePid
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

EMAIL: Final = "email"
MAX_ADDRESSES: Final = 20
"""Of one account."""

# What mail servers take everywhere. No quotes, comments or letters beyond ASCII; those few who have
# such an address can use another one, and nothing that looks like an address hides a second one.
_ADDRESS: Final = re.compile(
    r"[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*"
)
MAX_ADDRESS: Final = 254
MAX_LOCAL_PART: Final = 64

_OWNER = select(ThreePid.user_id).where(
    ThreePid.medium == EMAIL, ThreePid.address == bindparam("address")
)
_OF_USER = (
    select(ThreePid.medium, ThreePid.address, ThreePid.validated_ts, ThreePid.added_ts)
    .where(ThreePid.user_id == bindparam("user_id"))
    .order_by(ThreePid.added_ts, ThreePid.address)
)
_DELETE = delete(ThreePid).where(
    ThreePid.medium == EMAIL,
    ThreePid.address == bindparam("its_address"),
    ThreePid.user_id == bindparam("of_user"),
)
_DELETE_ALL = delete(ThreePid).where(ThreePid.user_id == bindparam("of_user"))


def canonical(address: str) -> str:
    """An e-mail address as it is kept: in small letters. Raises M_INVALID_PARAM for none.

    Spec: appendices#e-mail
    """
    # Deviates: "with the domain in lowercase", and what is before the @ as it was typed. Telephones
    # begin with a capital letter, and no mail server in use gives Bob@ and bob@ to two people.
    small = address.strip().lower()
    is_short = len(small) <= MAX_ADDRESS and small.find("@") <= MAX_LOCAL_PART
    if not is_short or not _ADDRESS.fullmatch(small):
        raise errors.invalid_param("This is no e-mail address that mail can be sent to")
    return small


def owner(tx: Reader, address: str) -> str | None:
    """The user whose address this is; in any spelling, and None for what is no address."""
    user_id: str | None
    user_id = tx.sql.execute(_OWNER, {"address": address.strip().lower()}).scalar()
    return user_id


def of_user(tx: Reader, user_id: str) -> list[Json]:
    """The addresses of a user, in the words of the answer to GET /account/3pid."""
    return [
        {
            "medium": row.medium,
            "address": row.address,
            "validated_at": row.validated_ts,
            "added_at": row.added_ts,
        }
        for row in tx.sql.execute(_OF_USER, {"user_id": user_id})
    ]


def add(tx: Tx, user_id: str, proof: validation.Validated) -> None:
    """Make a validated address one of the user's; its session is used up by that.

    Raises M_THREEPID_IN_USE when it is another user's, M_THREEPID_DENIED when they have too many,
    M_THREEPID_AUTH_FAILED when the session was used meanwhile.
    """
    validation.consume(tx, proof.sid)
    its_owner = owner(tx, proof.address)
    if its_owner == user_id:
        return
    if its_owner is not None:
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


def remove(tx: Tx, user_id: str, medium: str, address: str) -> None:
    """Take an address from the user. Raises M_THREEPID_NOT_FOUND when it is not theirs."""
    key = {"its_address": address.strip().lower(), "of_user": user_id}
    if medium != EMAIL or not tx.sql.execute(_DELETE, key).rowcount:
        raise errors.threepid_not_found("This is no address of your account")


def remove_all(tx: Tx, user_id: str) -> None:
    """Take all addresses from the user, so that somebody else can have them."""
    tx.sql.execute(_DELETE_ALL, {"of_user": user_id})
