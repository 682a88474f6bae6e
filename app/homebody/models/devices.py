"""Devices, their tokens, and dehydrated devices."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Device(Base):
    """A session of a user.

    Written by core/sessions/devices.py and core/accounts/access_tokens.py.
    """

    __tablename__ = "devices"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    display_name: Mapped[str | None]
    last_seen_ts: Mapped[int | None]  # ms
    last_seen_ip: Mapped[str | None]
    last_seen_user_agent: Mapped[str | None]


class AccessToken(Base):
    """An access token of a device. Written by core/accounts/access_tokens.py.

    A token by which an administrator acts as a user belongs to no device: its `device_id` is "".
    """

    __tablename__ = "access_tokens"
    token_hash: Mapped[bytes] = mapped_column(
        primary_key=True
    )  # SHA-256; the token itself is not stored
    user_id: Mapped[str]
    device_id: Mapped[str]
    expires_ts: Mapped[int | None]  # ms; None: until logout
    issued_to: Mapped[str | None]  # the administrator who acts as the user; None: the user

    __table_args__ = (
        Index(None, "user_id", "device_id"),
        Index(None, "issued_to", sqlite_where=text("issued_to IS NOT NULL")),
    )


class RefreshToken(Base):
    """A refresh token of a device. Written by core/accounts/access_tokens.py."""

    __tablename__ = "refresh_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    device_id: Mapped[str]
    access_token_hash: Mapped[bytes]  # the access token issued with it
    replaced_by: Mapped[bytes | None]  # hash of the new refresh token, once exchanged

    __table_args__ = (Index(None, "user_id", "device_id"),)


class SupersededToken(Base):
    """An invalidated token whose device still exists. Written by core/accounts/access_tokens.py."""

    __tablename__ = "superseded_tokens"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)  # of an access or a refresh token
    user_id: Mapped[str]
    device_id: Mapped[str]
    superseded_ts: Mapped[int]  # ms
    # a refresh token that was exchanged, by a client that then used what it got
    was_exchanged: Mapped[bool] = mapped_column(default=False, server_default="0")

    __table_args__ = (Index(None, "user_id", "device_id", "superseded_ts"),)


class DehydratedDevice(Base):
    """The dehydrated device of a user. Written by core/sessions/dehydrated_devices.py.

    The row is only valid while the device is also in the table devices.
    """

    __tablename__ = "dehydrated_devices"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    device_data: Mapped[str]  # JSON, encrypted by the client
