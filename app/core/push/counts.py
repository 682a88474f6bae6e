"""Which events notify whom, and how many of those are unread."""

from __future__ import annotations

from app.db import Tx
from app.spec.events import Event


def count(tx: Tx, event: Event, position: int, thread_id: str | None) -> None:
    """Note whom an event that has just been stored notifies."""
