"""The public keys of devices, and the changes of device lists."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class DeviceKeys(Base):
    """The identity keys of a device. Written by core/encryption/device_keys.py."""

    __tablename__ = "device_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    device_keys: Mapped[str]  # JSON: the object as signed by the device, without `unsigned`


class OneTimeKey(Base):
    """A key that can be claimed once. Written by core/encryption/one_time_keys.py."""

    __tablename__ = "one_time_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]  # JSON: an object, or a string
    position: Mapped[int]  # of the upload: the oldest keys are claimed first

    __table_args__ = (
        Index("ix_one_time_keys_order", "user_id", "device_id", "algorithm", "position", "key_id"),
        {"sqlite_with_rowid": False},
    )


class ClaimedKey(Base):
    """A claimed one-time key, so that a repeated upload does not add it again.

    Written by core/encryption/one_time_keys.py, which keeps the last ones of each device, and those
    of removed devices for some time.
    """

    __tablename__ = "claimed_one_time_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[bytes] = mapped_column(primary_key=True)  # of the key and its id
    claimed_ts: Mapped[int]  # ms
    claimer: Mapped[str] = mapped_column(
        server_default=""
    )  # user ID; "": a user who shares no room

    __table_args__ = (
        Index(None, "user_id", "device_id", "claimer", "claimed_ts"),
        {"sqlite_with_rowid": False},
    )


class FallbackKey(Base):
    """The key given out when no one-time key is left, one for each algorithm of a device.

    Written by core/encryption/one_time_keys.py.
    """

    __tablename__ = "fallback_keys"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    algorithm: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str]
    key: Mapped[str]  # JSON
    is_used: Mapped[bool]


class DeviceListChange(Base):
    """The last change of a user's keys.

    Written by core/encryption/device_list_changes.py.
    Only the last one is needed: a client that missed several queries the keys once.
    """

    __tablename__ = "device_list_changes"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    # of the last change of a device, as other servers get it: its position; of a user of another
    # server, as that has sent it; None: there was none
    stream_id: Mapped[int | None]

    __table_args__ = (Index(None, "position"),)
