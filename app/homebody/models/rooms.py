"""Rooms, and who has forgotten them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class Room(Base):
    """A room that this server takes part in.

    Written by core/timeline/store.py and core/rooms/directory.py.
    """

    __tablename__ = "rooms"
    number: Mapped[int] = mapped_column(primary_key=True)  # what state_intervals calls it
    room_id: Mapped[str] = mapped_column(unique=True)
    version: Mapped[str]
    forward_extremities: Mapped[list[Any]]  # ids of events that no other event names yet
    depth: Mapped[int]  # of the deepest event
    last_position: Mapped[int]  # of the newest event
    is_published: Mapped[bool] = mapped_column(default=False)  # in the room directory


class ForgottenRoom(Base):
    """A room that a user has left and wants to see no more. Written by core/rooms/membership.py."""

    __tablename__ = "forgotten_rooms"
    user_id: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str] = mapped_column(primary_key=True)


class RoomAlias(Base):
    """A name of a room on this server. Written by core/rooms/aliases.py."""

    __tablename__ = "room_aliases"
    alias: Mapped[str] = mapped_column(primary_key=True)
    room_id: Mapped[str]
    creator: Mapped[str]

    __table_args__ = (Index(None, "room_id"),)
