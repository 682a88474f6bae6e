"""Accounts, profiles, registration and user-interactive authentication."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class Account(Base):
    """A user of this server. Written by core/accounts/accounts.py."""

    __tablename__ = "accounts"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    password_hash: Mapped[str | None]  # None: no login with a password
    created_ts: Mapped[int]  # ms
    is_admin: Mapped[bool] = mapped_column(default=False)
    is_guest: Mapped[bool] = mapped_column(default=False)
    deactivated_ts: Mapped[int | None]  # ms; the user id is never assigned again
    is_locked: Mapped[bool] = mapped_column(default=False)
    is_suspended: Mapped[bool] = mapped_column(default=False)
    erased_position: Mapped[int | None]  # users who join later see the user's events redacted


class ProfileField(Base):
    """A field of a user's profile: displayname, avatar_url or a custom one.

    Written by core/profiles/profiles.py.
    """

    __tablename__ = "profile_fields"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]  # JSON


class RegistrationToken(Base):
    """A registration token. Written by core/sessions/registration.py."""

    __tablename__ = "registration_tokens"
    token: Mapped[str] = mapped_column(primary_key=True)
    uses_allowed: Mapped[int | None]  # None: any number
    uses: Mapped[int] = mapped_column(default=0)
    expires_ts: Mapped[int | None]  # ms
    created_ts: Mapped[int]


class UiaSession(Base):
    """A pending user-interactive authentication. Written by core/sessions/uia.py.

    The session id itself is not stored: it is the key of `params_mac`, so that this table does not
    reveal which new password was part of the request.
    """

    __tablename__ = "uia_sessions"
    session_hash: Mapped[bytes] = mapped_column(primary_key=True)
    created_ts: Mapped[int]
    endpoint: Mapped[str]  # method and path: a session is valid for one endpoint
    user_id: Mapped[str | None]  # the requester, if the request had an access token
    params_mac: Mapped[bytes | None]  # of the body without `auth`; None: the body may change
    completed: Mapped[list[Any]]  # stages, in the order of their completion
    registration_token: Mapped[str | None]  # as given in the stage of this name
    threepid: Mapped[Json | None]  # the session that validated an address

    __table_args__ = (Index(None, "created_ts"),)
