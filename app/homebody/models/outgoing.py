"""What is to be sent to other servers, and how far each of them has got."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class FederationLogRow(Base):
    """An event that this server sends to the others of its room. Written by core/outgoing.py.

    One row for all of them: which servers get the event follows from who was in the room at its
    position.
    """

    __tablename__ = "federation_log"
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    number: Mapped[int]  # of the event
    also: Mapped[list[Any] | None]  # servers without members in the room from this event on


class Destination(Base):
    """Another server, and whether it accepts what is sent to it. Written by core/outgoing.py.

    The row with the empty name is about all servers whose `sent_upto` is None.
    """

    __tablename__ = "destinations"
    server: Mapped[str] = mapped_column(primary_key=True)
    # the position up to which it has everything; 0: the log does not reach back that far
    sent_upto: Mapped[int | None]
    failing_since_ts: Mapped[int | None]  # ms
    tries: Mapped[int] = mapped_column(default=0)  # failed attempts since then
    next_try_ts: Mapped[int] = mapped_column(default=0)  # ms
    problem: Mapped[str | None]  # the error of the last attempt
    last_sent_ts: Mapped[int] = mapped_column(default=0)  # ms, of an hour
