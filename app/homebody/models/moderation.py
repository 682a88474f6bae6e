"""What users report to the owner, and the rooms in which the owner writes to them."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Report(Base):
    """Somebody found a room, an event or a user inappropriate. Written by core/rooms/reports.py."""

    __tablename__ = "reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    created_ts: Mapped[int]  # ms
    reporter: Mapped[str]
    reason: Mapped[str]
    room_id: Mapped[str | None]  # None: the report is about a user
    event_id: Mapped[str | None]
    user_id: Mapped[str | None]  # who is reported: a user, or the sender of the event


class ServerNoticeRoom(Base):
    """The one room in which the server writes to a user. Written by core/rooms/server_notices.py.

    It is a room like any other, but its invite can't be rejected.
    """

    __tablename__ = "server_notice_rooms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str]
