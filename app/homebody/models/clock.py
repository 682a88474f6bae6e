"""The one counter behind every sync token."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Clock(Base):
    """One row: the last committed position. Written by storage/database.py alone."""

    __tablename__ = "clock"
    id: Mapped[int] = mapped_column(primary_key=True)  # always 1
    position: Mapped[int]
