"""Dehydrated devices, which receive keys while their user has no session."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class DehydratedDevice(Base):
    """The dehydrated device of a user. Written by core/sessions/dehydrated_devices.py.

    The row is only valid while the device is also in the table devices.
    """

    __tablename__ = "dehydrated_devices"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str]
    device_data: Mapped[str]  # JSON, encrypted by the client
