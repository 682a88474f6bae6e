"""What administrators do, and what is reported to them."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


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
    score: Mapped[int | None]  # as old clients send it: -100 (most offensive) to 0


class ServerNoticeRoom(Base):
    """The room for server notices to a user. Written by core/rooms/server_notices.py.

    Its invite can't be rejected.
    """

    __tablename__ = "server_notice_rooms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str]


class BlockedRoom(Base):
    """A room that users of this server can't join. Written by core/rooms/blocked.py."""

    __tablename__ = "blocked_rooms"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str]  # the administrator
    blocked_ts: Mapped[int]  # ms


class RateLimitOverride(Base):
    """The limit of one account in place of rc_message. Written by core/accounts/overrides.py."""

    __tablename__ = "rate_limit_overrides"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    messages_per_second: Mapped[int]  # 0: no limit
    burst_count: Mapped[int]


class Task(Base):
    """Work that takes long, done in steps in the background. Written by core/tasks.py."""

    __tablename__ = "tasks"
    id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    resource_id: Mapped[str | None]  # the room or user that it is about
    status: Mapped[str]  # "scheduled", "active", "complete", "failed" or "cancelled"
    params: Mapped[Json]
    result: Mapped[Json | None]  # also while it is active
    error: Mapped[str | None]
    created_ts: Mapped[int]  # ms
    updated_ts: Mapped[int]  # ms
    # not where half of it would be done
    can_be_cancelled: Mapped[bool] = mapped_column(default=True, server_default="1")

    __table_args__ = (Index(None, "status", "created_ts"), Index(None, "resource_id"))


class AuditEntry(Base):
    """What an administrator has done. Written by core/audit.py."""

    __tablename__ = "audit_log"
    id: Mapped[int] = mapped_column(primary_key=True)
    ts: Mapped[int]  # ms
    actor: Mapped[str]  # a user ID, or "command line"
    action: Mapped[str]  # such as "user.lock"
    subject: Mapped[str | None]  # the user, room, file or token that it concerns
    details: Mapped[Json]

    __table_args__ = (Index(None, "subject"),)
