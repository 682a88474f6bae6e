"""Read receipts."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Receipt(Base):
    """A user's receipt in a room or thread.

    Written by core/ephemeral/receipts.py.
    """

    __tablename__ = "receipts"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    receipt_type: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(primary_key=True)  # "": unthreaded
    event_id: Mapped[str]
    event_position: Mapped[int]
    ts: Mapped[int]  # ms
    position: Mapped[int]

    __table_args__ = (Index(None, "position"), Index(None, "room_id", "position"))
