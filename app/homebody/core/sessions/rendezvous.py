"""Rendezvous: where two devices meet that scan a QR code to log one of them in.

A session holds one text, encrypted by the devices, that both read and replace; a token changes with
each write, so neither overwrites what it has not read. Sessions are kept in memory for a few
minutes: after a restart the devices begin again.

See MSC4388, and MSC4108 of 2024, which clients use.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Final

from homebody import errors

LIFETIME_SECONDS: Final = 300.0
"""How long a session lasts; MSC4388 allows two to five minutes."""
MAX_BYTES: Final = 4096
"""Of the text."""
MAX_SESSIONS: Final = 1_000
UNKNOWN: Final = "There is no such rendezvous, or it has expired"


@dataclass(slots=True)
class Session:
    """A rendezvous. Its text is replaced by `Rendezvous.put` alone."""

    id: str
    data: bytes
    writes: int = 0
    written: float = field(default_factory=time.time)
    ends: float = field(default_factory=lambda: time.monotonic() + LIFETIME_SECONDS)

    @property
    def token(self) -> str:
        """What a device has to name to replace the text."""
        text = b"%s %d %s" % (self.id.encode(), self.writes, self.data)
        return hashlib.sha256(text).hexdigest()[:32]

    @property
    def expires_in_ms(self) -> int:
        """How long it still lasts."""
        return max(0, int((self.ends - time.monotonic()) * 1000))


class Rendezvous:
    """The sessions of this process, the oldest first."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def create(self, data: bytes) -> Session:
        """Begin a session with this text. Raises M_TOO_LARGE, M_LIMIT_EXCEEDED."""
        _check_size(data)
        self._forget_expired()
        if len(self._sessions) >= MAX_SESSIONS:
            oldest = next(iter(self._sessions.values()))
            raise errors.limit_exceeded(retry_after_ms=oldest.expires_in_ms + 1)
        session = Session(secrets.token_urlsafe(24), data)
        self._sessions[session.id] = session
        return session

    def get(self, session_id: str) -> Session:
        """Return a session. Raises M_NOT_FOUND."""
        self._forget_expired()
        found = self._sessions.get(session_id)
        if found is None:
            raise errors.not_found(UNKNOWN)
        return found

    def put(self, session_id: str, token: str, data: bytes, *, is_repeatable: bool) -> Session:
        """Replace the text of a session.

        `is_repeatable`: a write of the text that is there already succeeds without effect, as a
        client may repeat it whose response was lost.
        Raises M_NOT_FOUND, M_TOO_LARGE, M_CONCURRENT_WRITE for a token that is not the newest.
        """
        _check_size(data)
        session = self.get(session_id)
        if session.token != token:
            if is_repeatable and session.data == data:
                return session
            raise errors.concurrent_write()
        session.data, session.written = data, time.time()
        session.writes += 1
        return session

    def delete(self, session_id: str) -> None:
        """End a session. Raises M_NOT_FOUND."""
        del self._sessions[self.get(session_id).id]

    def _forget_expired(self) -> None:
        now = time.monotonic()
        while self._sessions and next(iter(self._sessions.values())).ends <= now:
            del self._sessions[next(iter(self._sessions))]


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise errors.too_large(f"The data is larger than {MAX_BYTES} bytes")
