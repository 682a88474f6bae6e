"""Presence, saved for the next start of the server."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class ShownPresence(Base):
    """A user shown as online or unavailable.

    Written by core/ephemeral/shown_presence.py.
    """

    __tablename__ = "shown_presence"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    presence: Mapped[str]  # "online" or "unavailable"
    status_msg: Mapped[str | None]
    active_ts: Mapped[int | None]  # ms; the user's last activity

    __table_args__ = ({"sqlite_with_rowid": False},)
