"""Subscriptions to threads."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class ThreadSubscription(Base):
    """A thread to which a user is subscribed, or was.

    Written by core/user_data/thread_subscriptions.py.
    """

    __tablename__ = "thread_subscriptions"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    thread_id: Mapped[str] = mapped_column(primary_key=True)  # the root of the thread
    is_subscribed: Mapped[bool]
    is_automatic: Mapped[bool]
    unsubscribed_position: Mapped[int]  # of the last unsubscription; 0: there was none
    position: Mapped[int]  # of the last change

    __table_args__ = (
        Index(None, "user_id", "position"),
        Index(None, "room_id"),
        {"sqlite_with_rowid": False},
    )
