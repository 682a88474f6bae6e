"""How far users have read."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Receipt(Base):
    """The last event that a user has read in a room or thread.

    Written by core/ephemeral/receipts.py.
    """

    __tablename__ = "receipts"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    receipt_type: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(primary_key=True)  # "": the receipt names none
    event_id: Mapped[str]
    event_position: Mapped[int]
    ts: Mapped[int]  # ms
    position: Mapped[int]

    __table_args__ = (Index(None, "position"), Index(None, "room_id", "position"))
