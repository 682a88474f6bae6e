"""The graph of events beside the events themselves: what they cite, and states off the clock."""

from __future__ import annotations

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class EventAuth(Base):
    """The auth events of a state event. Written by core/events/auth_chains.py.

    Message events have no rows: no event can have them in its auth chain.
    """

    __tablename__ = "event_auth"
    room_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    cites: Mapped[bytes]  # the numbers of the auth events, 8 bytes each

    __table_args__ = ({"sqlite_with_rowid": False},)


class StateDifference(Base):
    """What a state of a room has differently from the intervals at some position.

    Written by core/timeline/differences.py. `number` is that of the first event that has it.
    """

    __tablename__ = "state_differences"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    room_number: Mapped[int]
    parent: Mapped[int | None]  # the difference to which this one adds
    depth: Mapped[int]  # number of ancestors

    __table_args__ = (Index(None, "room_number"),)


class DifferingEntry(Base):
    """One entry of a state difference. Written by core/timeline/differences.py."""

    __tablename__ = "differing_entries"
    difference: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(primary_key=True)
    state_key: Mapped[str] = mapped_column(primary_key=True)
    event_number: Mapped[int | None]  # None: the state has no such entry

    __table_args__ = ({"sqlite_with_rowid": False},)


class PendingRedaction(Base):
    """A redaction whose target is not stored yet. Written by core/timeline/redactions.py."""

    __tablename__ = "pending_redactions"
    target_id: Mapped[str] = mapped_column(primary_key=True)
    redaction: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # its number
    room_id: Mapped[str]

    __table_args__ = (Index(None, "room_id"), {"sqlite_with_rowid": False})
