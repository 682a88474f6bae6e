"""The progress of the full-text index."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class SearchProgress(Base):
    """One row: all events up to here are in the index. Written by core/events/search_index.py.

    The index itself, search_index, is a virtual table without a class: see migration 0005.
    """

    __tablename__ = "search_progress"
    id: Mapped[int] = mapped_column(primary_key=True)  # always 1
    position: Mapped[int]
