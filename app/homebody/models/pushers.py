"""Pushers."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


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
