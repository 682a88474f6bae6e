"""The state of rooms, as intervals of the server's clock."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import NOW_AND_LATER, Base, EventNumber


class StateInterval(Base):
    """An event was a room's state for its type and key from one position up to another.

    There is one row for each change of a room's resolved state: the rows with `to_position`
    NOW_AND_LATER are the current state, those with from_position <= p < to_position the state after
    position p. Rooms are identified by number: their id, in three B-trees, would double a row's
    size. An interval of a local user with membership leave and the event 0 tells that state
    resolution has left no member event of theirs. Only core/events/state_changes.py and
    past_state.py write here.
    """

    __tablename__ = "state_intervals"
    room_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[str] = mapped_column(primary_key=True)
    state_key: Mapped[str] = mapped_column(primary_key=True)
    from_position: Mapped[int] = mapped_column(primary_key=True)
    to_position: Mapped[int] = mapped_column(default=NOW_AND_LATER)
    event_number: Mapped[EventNumber]  # its position may be another than from_position, or none
    membership: Mapped[str | None]  # content.membership of m.room.member events

    __table_args__ = (
        # Current state of a room, and what has changed of it. The last column makes it a covering
        # index for the members and the state events; else SQLite reads all past state of the room.
        Index(
            "ix_state_intervals_current",
            "room_number",
            "to_position",
            "membership",
            "from_position",
            "event_number",
        ),
        # which entries changed in a range of positions, to compare the states of forks
        Index("ix_state_intervals_begun", "room_number", "from_position"),
        # the rooms of a user, and recent changes of membership
        Index(
            "ix_state_intervals_member",
            "state_key",
            "to_position",
            "from_position",
            sqlite_where=text("membership IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )
