"""What lets somebody in besides a password: login tokens, and addresses of theirs."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class LoginToken(Base):
    """A word that is good for one log-in. Written by core/accounts/login_tokens.py."""

    __tablename__ = "login_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "user_id"),)


class ThreePid(Base):
    """An address that belongs to an account. Written by core/accounts/threepids.py."""

    __tablename__ = "threepids"
    medium: Mapped[str] = mapped_column(primary_key=True)  # "email"
    address: Mapped[str] = mapped_column(primary_key=True)  # as threepids.canonical() makes it
    user_id: Mapped[str]
    validated_ts: Mapped[int]  # ms; when a link that was sent there was opened
    added_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "user_id"),)


class ValidationSession(Base):
    """A mail that asks whether an address is somebody's own.

    Written by core/accounts/validation.py.
    Neither of the two secrets is here: the one in the mail, and the one of the client that asked.
    """

    __tablename__ = "validation_sessions"
    sid: Mapped[str] = mapped_column(primary_key=True)
    purpose: Mapped[str]  # what a validated address may be used for
    address: Mapped[str]
    client_secret_hash: Mapped[bytes]
    token_hash: Mapped[bytes | None]  # None: the mail says why there is nothing to confirm
    send_attempt: Mapped[int]  # of the last mail that the mail server took
    next_link: Mapped[str | None]
    created_ts: Mapped[int]  # ms
    validated_ts: Mapped[int | None]  # ms

    __table_args__ = (
        Index(None, "purpose", "address", "client_secret_hash", unique=True),
        Index(None, "created_ts"),
    )
