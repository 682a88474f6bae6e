"""Which sessions began with a login at another provider, so that they can end with the one there.

A browser that logs in at a provider gets a row, and so does each device that the user then logs in
by this browser. This module alone writes the table sign_on_sessions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, select

from homebody.core.accounts import external_ids
from homebody.core.sessions import browser_sessions
from homebody.models.sign_in import SignOnSession as Row
from homebody.storage.database import Reader, Tx

_OF_BROWSER = select(Row.provider, Row.subject, Row.sid).where(
    Row.browser_hash == bindparam("browser_hash")
)
_OF_SUBJECT = select(Row.user_id, Row.sid, Row.browser_hash, Row.device_id).where(
    Row.provider == bindparam("provider"), Row.subject == bindparam("subject")
)
_OF_SID = select(Row.user_id, Row.sid, Row.browser_hash, Row.device_id).where(
    Row.provider == bindparam("provider"), Row.sid == bindparam("sid")
)


@dataclass(frozen=True, slots=True)
class Origin:
    """The login at a provider with which a session began."""

    provider: str
    subject: str
    sid: str | None


def note_browser(tx: Tx, user_id: str, browser_hash: bytes, origin: Origin) -> None:
    """Record with which login the session of a browser began; forget those that are over."""
    is_over = Row.created_ts <= tx.now_ms - browser_sessions.LIFETIME_MS
    tx.sql.execute(delete(Row).where(Row.browser_hash.is_not(None), is_over))
    _insert(tx, user_id, origin, browser_hash=browser_hash)


def note_device(tx: Tx, user_id: str, browser_hash: bytes | None, device_id: str) -> None:
    """Record that a device was logged in by this browser; ignored if that used a password."""
    origin = None if browser_hash is None else of_browser(tx, browser_hash)
    if origin is not None:
        _insert(tx, user_id, origin, device_id=device_id)


def of_browser(tx: Reader, browser_hash: bytes) -> Origin | None:
    """Return with which login the session of a browser began; None: with a password."""
    row = tx.sql.execute(_OF_BROWSER, {"browser_hash": browser_hash}).first()
    return None if row is None else Origin(*row)


def ended_at(
    tx: Reader, provider: str, subject: str | None, sid: str | None
) -> list[tuple[str, bytes | None, str | None]]:
    """Return the sessions that end with one at the provider, or with all of a user there.

    Of each: the user, and the hash of the browser's session or the device.
    """
    if subject is not None:
        rows = tx.sql.execute(_OF_SUBJECT, {"provider": provider, "subject": subject})
    else:
        rows = tx.sql.execute(_OF_SID, {"provider": provider, "sid": sid})
    return [
        (row.user_id, row.browser_hash, row.device_id) for row in rows if sid in {None, row.sid}
    ]


def forget(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete what is known of devices that are removed, or logged in again."""
    tx.sql.execute(delete(Row).where(Row.user_id == user_id, Row.device_id.in_(device_ids)))


def unlink(tx: Tx, user_id: str, provider: str, subject: str) -> None:
    """End the link of an account to a login, with which its sessions have no more to do then."""
    external_ids.remove(tx, user_id, provider, subject)
    login = (Row.provider == provider, Row.subject == subject)
    tx.sql.execute(delete(Row).where(Row.user_id == user_id, *login))


def _insert(
    tx: Tx,
    user_id: str,
    origin: Origin,
    *,
    browser_hash: bytes | None = None,
    device_id: str | None = None,
) -> None:
    row = {
        "provider": origin.provider,
        "subject": origin.subject,
        "sid": origin.sid,
        "user_id": user_id,
        "browser_hash": browser_hash,
        "device_id": device_id,
        "created_ts": tx.now_ms,
    }
    tx.sql.execute(insert(Row), row)
