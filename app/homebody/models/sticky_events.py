"""Events that are delivered to all members of their rooms for a while."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, EventNumber


class StickyEvent(Base):
    """A sticky event, at least until it expires. Written by core/timeline/sticky_events.py."""

    __tablename__ = "sticky_events"
    number: Mapped[EventNumber] = mapped_column(primary_key=True, autoincrement=False)
    room_id: Mapped[str]
    position: Mapped[int | None]  # None: it was soft-failed
    sender: Mapped[str]
    until_ts: Mapped[int]  # ms

    __table_args__ = (
        Index(None, "position"),
        Index(None, "until_ts"),
        Index(None, "room_id", "sender"),
    )
