"""Events that are sent later."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class DelayedEvent(Base):
    """An event that is scheduled, was sent, or was not. Written by core/timeline/delayed_events.py.

    Scheduled ones have `due_ts`, all others `finalised_ts`. Of those, the ones that were sent have
    `event_id`, and the ones that could not be sent `error`; the rest was cancelled.
    """

    __tablename__ = "delayed_events"
    delay_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]
    # of the request that scheduled it, to know when it is repeated
    device_id: Mapped[str]
    txn_id: Mapped[str | None]
    room_id: Mapped[str]
    type: Mapped[str]
    state_key: Mapped[str | None]
    content: Mapped[Json]
    origin_server_ts: Mapped[int | None]  # ms; as an application service wants it
    sticky_ms: Mapped[int | None]
    delay_ms: Mapped[int]
    scheduled_ts: Mapped[int]  # ms; when it was scheduled or last restarted
    due_ts: Mapped[int | None]  # ms
    finalised_ts: Mapped[int | None]  # ms
    event_id: Mapped[str | None]
    error: Mapped[Json | None]

    __table_args__ = (
        Index("ix_delayed_events_due_ts", "due_ts", sqlite_where=text("due_ts IS NOT NULL")),
        Index(None, "user_id", "due_ts"),
        Index(
            "ix_delayed_events_finalised_ts",
            "finalised_ts",
            sqlite_where=text("finalised_ts IS NOT NULL"),
        ),
        Index(  # which are the oldest of a user, without reading them
            "ix_delayed_events_user_id_finalised_ts",
            "user_id",
            "finalised_ts",
            sqlite_where=text("finalised_ts IS NOT NULL"),
        ),
        Index(
            "ix_delayed_events_transaction",
            "user_id",
            "device_id",
            "txn_id",
            sqlite_where=text("txn_id IS NOT NULL"),
        ),
    )
