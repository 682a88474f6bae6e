"""What is kept of sliding sync connections, so that they survive a restart."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class SyncConnection(Base):
    """An older state of a connection. Written by core/accounts/sync_connections.py."""

    __tablename__ = "sync_connections"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    device_id: Mapped[str] = mapped_column(primary_key=True)
    conn_id: Mapped[str] = mapped_column(primary_key=True)
    secret: Mapped[bytes]  # by which the connection knows its own `pos`
    number: Mapped[int]  # of the `pos` of this state; later ones have larger numbers
    position: Mapped[int]  # on the clock
    state: Mapped[bytes]  # compressed; see core/sliding_sync/kept_states.py
    written_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "written_ts"),)
