"""What the push rules of users made of events."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Notification(Base):
    """An event that notifies a user. Written by core/push/counts.py."""

    __tablename__ = "notifications"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    event_position: Mapped[int] = mapped_column(primary_key=True)
    thread_id: Mapped[str]  # "main", or the root of the thread
    is_highlight: Mapped[bool]
    is_read: Mapped[bool] = mapped_column(default=False)  # then only highlights are kept
    actions: Mapped[str]  # JSON

    # No index besides the key: each takes as long as the row itself, 200 times for a message in a
    # room of 200. GET /notifications sorts what a user has.
    __table_args__ = ({"sqlite_with_rowid": False},)


class UnreadCount(Base):
    """How many notifications a user has not read. Written by core/push/counts.py.

    Kept beside the notifications, as /sync tells it with every event and may not count thousands.
    """

    __tablename__ = "unread_counts"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(primary_key=True)
    notification_count: Mapped[int]
    highlight_count: Mapped[int]

    __table_args__ = ({"sqlite_with_rowid": False},)
