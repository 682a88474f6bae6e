"""Login tokens, sessions of browsers, third-party identifiers and their validation."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class LoginToken(Base):
    """A token for one login. Written by core/accounts/login_tokens.py."""

    __tablename__ = "login_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "user_id"),)


class BrowserSession(Base):
    """A browser in which a user is logged in to the pages of this server.

    Written by core/sessions/browser_sessions.py.
    """

    __tablename__ = "browser_sessions"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    created_ts: Mapped[int]  # ms
    last_used_ts: Mapped[int]  # ms; written once a minute at most
    ip: Mapped[str]
    user_agent: Mapped[str]

    __table_args__ = (Index(None, "user_id"), Index(None, "created_ts"))


class ThreePid(Base):
    """An e-mail address associated with an account. Written by core/accounts/threepids.py."""

    __tablename__ = "threepids"
    medium: Mapped[str] = mapped_column(primary_key=True)  # "email"
    address: Mapped[str] = mapped_column(primary_key=True)  # in the form of threepids.canonical()
    user_id: Mapped[str]
    validated_ts: Mapped[int]  # ms; when the link sent to it was opened
    added_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "user_id"),)


class ValidationSession(Base):
    """The validation of an e-mail address by a link in a mail.

    Written by core/accounts/validation.py.
    Of the two secrets, the token in the mail and the client's, only hashes are stored.
    """

    __tablename__ = "validation_sessions"
    sid: Mapped[str] = mapped_column(primary_key=True)
    purpose: Mapped[str]  # what the validated address may be used for
    address: Mapped[str]
    client_secret_hash: Mapped[bytes]
    token_hash: Mapped[bytes | None]  # None: the mail only explains why the address can't be used
    send_attempt: Mapped[int]  # of the last mail accepted by the mail server
    next_link: Mapped[str | None]
    created_ts: Mapped[int]  # ms
    validated_ts: Mapped[int | None]  # ms

    __table_args__ = (
        Index(None, "purpose", "address", "client_secret_hash", unique=True),
        Index(None, "created_ts"),
    )
