"""The public keys of devices, and when a user's keys have changed."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class DeviceKeys(Base):
    """The identity keys of a device. Written by core/encryption/device_keys.py."""

    __tablename__ = "device_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    device_keys: Mapped[str]  # JSON: the object as the device has signed it, without `unsigned`


class OneTimeKey(Base):
    """A key that may be given out once. Written by core/encryption/one_time_keys.py."""

    __tablename__ = "one_time_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]  # JSON: an object, or a string
    position: Mapped[int]  # of the upload: the oldest keys are given out first

    __table_args__ = (
        Index("ix_one_time_keys_order", "user_id", "device_id", "algorithm", "position", "key_id"),
        {"sqlite_with_rowid": False},
    )


class ClaimedKey(Base):
    """A one-time key that was given out, so that a repeated upload does not bring it back.

    Written by core/encryption/one_time_keys.py, which keeps the last of each device, for some time
    also of devices that were removed.
    """

    __tablename__ = "claimed_one_time_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)  # of the key and its name
    claimed_ts: Mapped[int]  # ms
    claimer: Mapped[str] = mapped_column(server_default="")  # user id; "": one who shares no room

    __table_args__ = (
        Index(None, "user_id", "device_id", "claimer", "claimed_ts"),
        {"sqlite_with_rowid": False},
    )


class FallbackKey(Base):
    """What is given out when no one-time key is left. Written by core/encryption/one_time_keys.py.

    One for each algorithm of a device.
    """

    __tablename__ = "fallback_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    key: Mapped[str]  # JSON
    is_used: Mapped[bool]


class DeviceListChange(Base):
    """When anything of a user's keys changed last.

    Written by core/encryption/device_list_changes.py.
    The last change says all: a client that missed several asks once.
    """

    __tablename__ = "device_list_changes"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]

    __table_args__ = (Index(None, "position"),)
