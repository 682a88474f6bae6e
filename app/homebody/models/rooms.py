"""Rooms, forgotten rooms and aliases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Room(Base):
    """A room that this server participates in.

    Written by core/timeline/store.py, core/events/state_changes.py and core/rooms/directory.py.
    """

    __tablename__ = "rooms"
    number: Mapped[int] = mapped_column(primary_key=True)  # used in state_intervals
    room_id: Mapped[str] = mapped_column(unique=True)
    version: Mapped[str]
    forward_extremities: Mapped[list[Any]]  # ids of events without successors
    depth: Mapped[int]  # of the deepest event
    last_position: Mapped[int]  # of the newest event
    # the last position at which state changed without an event in the timeline; 0: never
    state_reset_position: Mapped[int] = mapped_column(default=0)
    is_published: Mapped[bool] = mapped_column(default=False)  # in the room directory

    __table_args__ = (
        Index(
            "ix_rooms_state_reset",
            "state_reset_position",
            sqlite_where=text("state_reset_position > 0"),
        ),
    )


class RemovedRoom(Base):
    """A room that is gone, while its rows are being deleted. Written by core/rooms/purge.py."""

    __tablename__ = "removed_rooms"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int | None]  # of the room; no other may have it until then


class ForgottenRoom(Base):
    """A room that a user has left and forgotten. Written by core/rooms/membership.py."""

    __tablename__ = "forgotten_rooms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)
    forgotten_ts: Mapped[int | None]  # ms; None: before this was noted


class RoomAlias(Base):
    """A room alias of this server. Written by core/rooms/aliases.py."""

    __tablename__ = "room_aliases"
    alias: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str]
    creator: Mapped[str]

    __table_args__ = (Index(None, "room_id"),)


class StrippedState(Base):
    """What a user knows of a room that this server is not in, by an invite or a knock.

    Written by core/events/stripped_state.py.
    """

    __tablename__ = "stripped_state"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    events: Mapped[list[Any]]
    servers: Mapped[list[Any]]  # which are in the room
