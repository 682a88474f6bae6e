"""Users of other servers: the keys of their devices."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class RemoteUser(Base):
    """A user of another server whose device list is kept, as local users share a room with them.

    Written by core/encryption/remote_devices.py.
    """

    __tablename__ = "remote_users"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    # of the last change that the list has; None: the server did not say
    devices_stream_id: Mapped[int | None]
    is_stale: Mapped[bool]  # changes are missing, and the list has to be fetched again
    master_key: Mapped[str | None]  # JSON, with the user's own signatures
    self_signing_key: Mapped[str | None]  # as above


class RemoteDevice(Base):
    """A device with keys of such a user. Written by core/encryption/remote_devices.py.

    A table apart from that of local devices, so that none is taken for the other.
    """

    __tablename__ = "remote_devices"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    keys: Mapped[str]  # JSON, with the user's own signatures
    display_name: Mapped[str | None]

    __table_args__ = ({"sqlite_with_rowid": False},)
