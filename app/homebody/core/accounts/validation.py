"""Validation of e-mail addresses: a mail is sent to the address, and the link in it is opened.

A client begins a session with a secret of its own (`client_secret`); the mail contains a second one
(`token`), which only its reader knows. A session whose link was opened proves the address to the
client that has the secret, once, and only for the purpose that it was begun for: a mail about a new
account must not allow resetting the password of an existing one.

This module alone writes the table validation_sessions.
Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from sqlalchemy import Update, bindparam, delete, insert, select, update

from homebody import errors
from homebody.core.accounts import access_tokens
from homebody.models.sign_in import ValidationSession
from homebody.outside import mail
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

Purpose = Literal["register", "add", "reset"]

LIFETIME_MS: Final = 24 * 3_600_000
MAX_LINK: Final = 2048

_CLIENT_SECRET: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}")

_BY_SID = select(
    ValidationSession.sid,
    ValidationSession.purpose,
    ValidationSession.address,
    ValidationSession.client_secret_hash,
    ValidationSession.token_hash,
    ValidationSession.next_link,
    ValidationSession.validated_ts,
).where(
    ValidationSession.sid == bindparam("sid"),
    ValidationSession.created_ts > bindparam("born_after"),
)
_BY_ADDRESS = select(
    ValidationSession.sid,
    ValidationSession.send_attempt,
    ValidationSession.validated_ts,
    ValidationSession.token_hash,
).where(
    ValidationSession.purpose == bindparam("purpose"),
    ValidationSession.address == bindparam("address"),
    ValidationSession.client_secret_hash == bindparam("client_secret_hash"),
)


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A client's request for a validation mail; `checked` verifies it."""

    purpose: Purpose
    address: str  # as threepids.canonical() returns it
    client_secret: str
    send_attempt: int
    next_link: str | None = None


@dataclass(frozen=True, slots=True)
class Validated:
    """An address that was validated."""

    sid: str
    address: str
    validated_ts: int  # ms


@dataclass(frozen=True, slots=True)
class LinkTarget:
    """The session that the link in a mail belongs to."""

    address: str
    next_link: str | None


Message = mail.Message
Compose = Callable[[str, str], Message]
"""Composes the mail from the session's id and token."""


def checked(request: TokenRequest) -> TokenRequest:
    """Return the request. Raises M_INVALID_PARAM for an invalid secret or link."""
    if not _CLIENT_SECRET.fullmatch(request.client_secret):
        raise errors.invalid_param("client_secret must have 1 to 255 letters, digits and . = _ -")
    if request.next_link is not None and not _is_page(request.next_link):
        raise errors.invalid_param("next_link must be an https or http URL")
    return request


def send_token(db: Database, request: TokenRequest, compose: Compose, *, can_validate: bool) -> str:
    """Begin or continue a session, send its mail, and return the session's id.

    The mail is sent outside of any transaction. A repeated request whose `send_attempt` is not
    larger sends nothing. Without `can_validate` the session looks the same, but can't be validated:
    the mail says why, so that only its reader learns whether the address has an account.
    Raises M_INVALID_PARAM when the mailbox does not exist, 503 when the mail server fails.
    """
    token = secrets.token_urlsafe(32)
    with db.write() as tx:
        sid, must_send = _begin(tx, request, token if can_validate else None)
    if not must_send:
        return sid
    try:
        mail.send(db.server.config, request.address, compose(sid, token))
    except mail.RefusedError as error:
        raise errors.invalid_param("The mail server accepts no mail for this address") from error
    except mail.MailError as error:
        LOG.error("could not send mail to %s: %s", request.address, error)  # noqa: TRY400 - the message is enough
        raise errors.unavailable("The server cannot send mail at the moment") from error
    with db.write() as tx:
        tx.sql.execute(_change(sid).values(send_attempt=request.send_attempt))
    return sid


def open_link(tx: Reader, sid: str, token: str) -> LinkTarget:
    """Return the session of a link without confirming it, as mail scanners open links too.

    Raises M_NOT_FOUND when it is not the link of the newest mail, or has expired.
    """
    row = tx.sql.execute(_BY_SID, _key(tx, sid)).first()
    is_right = row is not None and _is_same(row.token_hash, token)
    if row is None or not is_right:
        raise errors.not_found("This link has expired, or a newer mail has replaced it")
    return LinkTarget(row.address, row.next_link)


def confirm(tx: Tx, sid: str, token: str) -> LinkTarget:
    """Mark the session's address as validated. Raises M_NOT_FOUND as `open_link` does."""
    opened = open_link(tx, sid, token)
    unvalidated = _change(sid).where(ValidationSession.validated_ts.is_(None))
    tx.sql.execute(unvalidated.values(validated_ts=tx.now_ms))
    return opened


def check(tx: Reader, purpose: Purpose, sid: str, client_secret: str) -> Validated:
    """Return the address that a session has validated for this purpose.

    Raises M_THREEPID_AUTH_FAILED until the link was opened, and for any other session.
    """
    row = tx.sql.execute(_BY_SID, _key(tx, sid)).first()
    if (
        row is None
        or row.purpose != purpose
        or not _is_same(row.client_secret_hash, client_secret)
        or row.validated_ts is None
    ):
        raise errors.threepid_auth_failed("Open the link in the mail first")
    return Validated(row.sid, row.address, row.validated_ts)


def consume(tx: Tx, sid: str) -> None:
    """Delete a session, as it proves an address only once.

    Raises M_THREEPID_AUTH_FAILED when another request has used it.
    """
    session = delete(ValidationSession).where(ValidationSession.sid == sid)
    if not tx.sql.execute(session).rowcount:
        raise errors.threepid_auth_failed("This session was used already")


def _begin(tx: Tx, request: TokenRequest, token: str | None) -> tuple[str, bool]:
    """Return the session of this request, and whether a mail must be sent."""
    expired = ValidationSession.created_ts <= tx.now_ms - LIFETIME_MS
    tx.sql.execute(delete(ValidationSession).where(expired))
    key = {
        "purpose": request.purpose,
        "address": request.address,
        "client_secret_hash": access_tokens.hash_of(request.client_secret),
    }
    token_hash = None if token is None else access_tokens.hash_of(token)
    row = tx.sql.execute(_BY_ADDRESS, key).first()
    if row is None:
        sid = secrets.token_urlsafe(18)
        more = {"token_hash": token_hash, "next_link": request.next_link, "created_ts": tx.now_ms}
        values = {**key, **more, "sid": sid, "send_attempt": -1, "validated_ts": None}
        tx.sql.execute(insert(ValidationSession), values)
        return sid, True
    if row.validated_ts is not None or request.send_attempt <= row.send_attempt:
        return row.sid, False
    change = _change(row.sid).values(token_hash=token_hash, next_link=request.next_link)
    tx.sql.execute(change)
    return row.sid, True


def _change(sid: str) -> Update:
    return update(ValidationSession).where(ValidationSession.sid == sid)


def _key(tx: Reader, sid: str) -> dict[str, str | int]:
    return {"sid": sid, "born_after": tx.now_ms - LIFETIME_MS}


def _is_same(kept: bytes | None, secret: str) -> bool:
    return kept is not None and hmac.compare_digest(kept, access_tokens.hash_of(secret))


def _is_page(link: str) -> bool:
    try:
        parts = urlsplit(link)
    except ValueError:
        return False
    return (
        len(link) <= MAX_LINK
        and link.isprintable()
        and parts.scheme in {"http", "https"}
        and bool(parts.hostname)
    )
