"""The OAuth 2.0 API: clients, what users have allowed them, and the sessions started by it."""

from __future__ import annotations

from sqlalchemy import JSON, Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class OAuthClient(Base):
    """A client that has registered itself. Written by core/oauth/clients.py."""

    __tablename__ = "oauth_clients"
    client_id: Mapped[str] = mapped_column(primary_key=True)  # derived from `registration`
    registration: Mapped[Json] = mapped_column(JSON)  # its metadata, as in RFC 7591
    last_used_ts: Mapped[int]  # ms; when it last registered, or began to log a user in

    __table_args__ = (Index(None, "last_used_ts"),)


class OAuthConsent(Base):
    """A client that a user has let in, and that is let in again without a question.

    Written by core/accounts/oauth_sessions.py.
    """

    __tablename__ = "oauth_consents"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str] = mapped_column(primary_key=True)
    granted_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "client_id"),)


class OAuthCode(Base):
    """An authorization code. Written by core/oauth/codes.py.

    A code that was used is kept until it expires, so that it is noticed if it comes again.
    """

    __tablename__ = "oauth_codes"
    code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    user_id: Mapped[str]
    device_id: Mapped[str]
    scope: Mapped[str]
    redirect_uri: Mapped[str]  # as in the authorization request
    code_challenge: Mapped[str]
    expires_ts: Mapped[int]  # ms
    is_used: Mapped[bool] = mapped_column(default=False)
    session_hash: Mapped[bytes]  # the browser's session in which the user consented

    __table_args__ = (Index(None, "expires_ts"),)


class OAuthDeviceCode(Base):
    """A device that waits for its user's consent. Written by core/oauth/device_codes.py."""

    __tablename__ = "oauth_device_codes"
    device_code_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_code: Mapped[str]
    client_id: Mapped[str]
    device_id: Mapped[str]
    scope: Mapped[str]
    expires_ts: Mapped[int]  # ms
    interval_ms: Mapped[int]  # between requests for the tokens, at least
    last_poll_ts: Mapped[int | None]  # ms
    user_id: Mapped[str | None]  # who has let the device in, or turned it away
    is_denied: Mapped[bool] = mapped_column(default=False)
    session_hash: Mapped[bytes | None]  # the browser's session in which the user decided

    __table_args__ = (Index(None, "user_code", unique=True), Index(None, "expires_ts"))


class OAuthSession(Base):
    """A device whose session was started by the OAuth 2.0 API.

    Written by core/accounts/oauth_sessions.py.
    """

    __tablename__ = "oauth_sessions"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    client_id: Mapped[str]
    scope: Mapped[str]

    __table_args__ = (Index(None, "client_id"),)
