"""Pushers, and notifications and unread counts, the results of push rules."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class Notification(Base):
    """An event that notifies a user. Written by core/push/counts.py."""

    __tablename__ = "notifications"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    # its place in the room, as it is compared with those of receipts; it also identifies the event
    event_position: Mapped[int] = mapped_column(primary_key=True)
    thread_id: Mapped[str]  # "main" or the root of the thread
    is_highlight: Mapped[bool]
    is_read: Mapped[bool] = mapped_column(default=False)  # of read ones, only highlights are kept
    actions: Mapped[str]  # JSON

    # No other indexes: each takes as long as the row itself, 200 times for a message in a room of
    # 200. GET /notifications sorts a user's rows.
    __table_args__ = ({"sqlite_with_rowid": False},)


class UnreadCount(Base):
    """The number of a user's unread notifications. Written by core/push/counts.py.

    Stored, as /sync sends it with every event and must not count thousands of rows.
    """

    __tablename__ = "unread_counts"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(primary_key=True)
    notification_count: Mapped[int]
    highlight_count: Mapped[int]

    __table_args__ = ({"sqlite_with_rowid": False},)


class Pusher(Base):
    """A push gateway or e-mail address of a user. Written by core/push/pushers.py."""

    __tablename__ = "pushers"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    app_id: Mapped[str] = mapped_column(primary_key=True)
    pushkey: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str]  # deleted with this session, which created it
    kind: Mapped[str]  # "http" or "email"
    app_display_name: Mapped[str]
    device_display_name: Mapped[str]
    profile_tag: Mapped[str | None]
    lang: Mapped[str]
    data: Mapped[Json]
    pushkey_ts: Mapped[int]  # ms; when the pushkey was set

    __table_args__ = (Index(None, "app_id", "pushkey"), {"sqlite_with_rowid": False})
