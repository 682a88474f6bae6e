"""The counters behind every sync token and every event."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, EventNumber


class Clock(Base):
    """One row: the last committed position and event. Written by storage/writer.py alone."""

    __tablename__ = "clock"
    id: Mapped[int] = mapped_column(primary_key=True)  # always 1
    position: Mapped[int]
    # kept here and not derived from the table, so that the number of a purged event is not reused
    event_number: Mapped[EventNumber]
