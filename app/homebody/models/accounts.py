"""Accounts, profiles, the user directory, registration, authentication."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Index
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
    deactivated_ts: Mapped[int | None]  # ms; the user ID is never assigned again
    is_locked: Mapped[bool] = mapped_column(default=False)
    is_suspended: Mapped[bool] = mapped_column(default=False)
    # what they send is accepted, but nobody else receives it
    is_shadow_banned: Mapped[bool] = mapped_column(default=False, server_default="0")
    user_type: Mapped[str | None]  # "bot" or "support", for administrators; None: a person
    last_seen_ts: Mapped[int | None]  # ms; of all devices, also those that are gone
    expires_ts: Mapped[int | None]  # ms; from then on the account can't be used
    # ms; until then its cross-signing keys can be replaced without authentication
    keys_replaceable_until_ts: Mapped[int | None]
    erased_position: Mapped[int | None]  # users who join later see the user's events redacted


class ProfileField(Base):
    """A field of a user's profile: displayname, avatar_url or a custom one.

    Written by core/profiles/profiles.py.
    """

    __tablename__ = "profile_fields"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]  # JSON


class ProfileChange(Base):
    """The last change of a field of a user's profile; the field may be gone.

    Written by core/profiles/profile_changes.py.
    """

    __tablename__ = "profile_changes"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]

    __table_args__ = (Index(None, "position"), {"sqlite_with_rowid": False})


class RegistrationToken(Base):
    """A registration token. Written by core/sessions/registration_tokens.py."""

    __tablename__ = "registration_tokens"
    token: Mapped[str] = mapped_column(primary_key=True)
    uses_allowed: Mapped[int | None]  # None: any number
    uses: Mapped[int] = mapped_column(default=0)
    expires_ts: Mapped[int | None]  # ms
    created_ts: Mapped[int]


class ExperimentalFeature(Base):
    """A feature that an administrator has switched on or off for an account.

    Written by core/accounts/experimental_features.py.
    """

    __tablename__ = "experimental_features"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)  # such as "msc3881"
    is_enabled: Mapped[bool]


class ExternalId(Base):
    """An account's id at an identity provider. Written by core/accounts/external_ids.py."""

    __tablename__ = "external_ids"
    auth_provider: Mapped[str] = mapped_column(primary_key=True)
    external_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]

    __table_args__ = (Index(None, "user_id"),)


class Invitation(Base):
    """A link that lets a person in once: to register, or to set a new password.

    Written by core/sessions/invitations.py.
    """

    __tablename__ = "invitations"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    purpose: Mapped[str]  # "register" or "password"
    user_id: Mapped[str | None]  # the account that gets a new password, or the name kept for one
    rooms: Mapped[list[str] | None] = mapped_column(JSON)  # None: those of the configuration
    created_by: Mapped[str]  # an administrator, or "command line"
    created_ts: Mapped[int]  # ms
    expires_ts: Mapped[int]  # ms
    used_ts: Mapped[int | None]  # ms

    __table_args__ = (Index(None, "expires_ts"),)


class UiaSession(Base):
    """A pending user-interactive authentication. Written by core/sessions/uia.py.

    The session ID itself is not stored: it is the key of `params_mac`, so that this table does not
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


class DirectoryWord(Base):
    """A word or a suffix of a word in a user's name, so that the index finds infixes too.

    Written by core/accounts/user_directory_index.py.
    """

    __tablename__ = "directory_words"
    word: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    is_whole: Mapped[bool]  # whether it is a whole word

    __table_args__ = (Index(None, "user_id", "word"), {"sqlite_with_rowid": False})


class AcceptedTerms(Base):
    """A document accepted by a user. Written by core/sessions/registration.py."""

    __tablename__ = "accepted_terms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(primary_key=True)
    accepted_ts: Mapped[int]  # ms


class OpenIdToken(Base):
    """A token that proves a user's identity. Written by core/accounts/openid.py."""

    __tablename__ = "openid_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    expires_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "expires_ts"),)
