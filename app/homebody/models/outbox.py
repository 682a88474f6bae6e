"""Pending deliveries to other servers and services."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, Json


class OutboxRow(Base):
    """One delivery to one destination. Written by core/outbox.py."""

    __tablename__ = "outbox"
    id: Mapped[int] = mapped_column(primary_key=True)  # never reused: it identifies transactions
    kind: Mapped[str]  # "push", "mail", "appservice", "federation"
    destination: Mapped[str]  # format depends on `kind`
    payload: Mapped[Json]
    created_ts: Mapped[int]  # ms
    tries: Mapped[int] = mapped_column(default=0)
    next_try_ts: Mapped[int] = mapped_column(default=0)  # ms

    __table_args__ = (
        Index(None, "kind", "destination", "id"),
        {"sqlite_autoincrement": True},
    )
