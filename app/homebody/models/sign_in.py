"""Login tokens, sessions of browsers, third-party identifiers and their validation."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class LoginToken(Base):
    """A token for one login. Written by core/accounts/login_tokens.py."""

    __tablename__ = "login_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms
    browser_hash: Mapped[bytes | None]  # the session of the browser that it was issued to

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


class SignOnAttempt(Base):
    """A login at another provider that is under way. Written by core/sign_on/attempts.py.

    The database has only hashes of the state and of the browser's cookie, of which the other
    secrets are made.
    """

    __tablename__ = "sign_on_attempts"
    state_hash: Mapped[bytes] = mapped_column(primary_key=True)
    browser_hash: Mapped[bytes]
    provider: Mapped[str]
    purpose: Mapped[str]  # "login", "link", "confirm" or "again"
    target: Mapped[str]  # the page to go on to; to confirm, the hash of the session in hexadecimal
    user_id: Mapped[str | None]  # who links the provider, or logs in again
    created_ts: Mapped[int]  # ms
    is_returned: Mapped[bool] = mapped_column(default=False)  # the browser has come back
    identity: Mapped[Json | None]  # whom the provider vouches for

    __table_args__ = (Index(None, "created_ts"),)


class SignOnSession(Base):
    """A session that began with a login at another provider: a browser's or a device's.

    Written by core/sessions/sign_on_sessions.py.
    """

    __tablename__ = "sign_on_sessions"
    id: Mapped[int] = mapped_column(primary_key=True)
    provider: Mapped[str]
    subject: Mapped[str]
    sid: Mapped[str | None]  # the session at the provider
    user_id: Mapped[str]
    browser_hash: Mapped[bytes | None]
    device_id: Mapped[str | None]
    created_ts: Mapped[int]  # ms

    __table_args__ = (
        Index(None, "provider", "subject"),
        Index(None, "user_id"),
        Index(None, "browser_hash"),
    )


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
