"""Reports to the administrator, and the rooms for server notices."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Report(Base):
    """A report of a room, an event or a user. Written by core/rooms/reports.py."""

    __tablename__ = "reports"
    id: Mapped[int] = mapped_column(primary_key=True)
    created_ts: Mapped[int]  # ms
    reporter: Mapped[str]
    reason: Mapped[str]
    room_id: Mapped[str | None]  # None: the report is about a user
    event_id: Mapped[str | None]
    user_id: Mapped[str | None]  # the reported user, or the sender of the event


class ServerNoticeRoom(Base):
    """The room for server notices to a user. Written by core/rooms/server_notices.py.

    Its invite can't be rejected.
    """

    __tablename__ = "server_notice_rooms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str]
