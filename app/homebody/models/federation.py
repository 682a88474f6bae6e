"""What is known of other servers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class ServerKey(Base):
    """A public key of another server, kept for ever. Written by core/federation/keys.py.

    Events that it signed have to be verified years after the server has replaced it.
    """

    __tablename__ = "server_keys"
    server_name: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]  # base64
    expired_ts: Mapped[int | None]  # ms; when it was replaced, of an old key
    valid_until_ts: Mapped[int]  # ms; of the response, 7 days after fetched_ts at most
    fetched_ts: Mapped[int]  # ms
    response: Mapped[str]  # JSON, with the server's signatures


class InboundPdu(Base):
    """A PDU that waits for its predecessors. Written by core/incoming.py.

    Its form, hash and signatures were checked, and the transaction is acknowledged.
    """

    __tablename__ = "inbound_pdus"
    id: Mapped[int] = mapped_column(primary_key=True)
    room_id: Mapped[str]
    origin: Mapped[str]
    event_id: Mapped[str] = mapped_column(unique=True)
    pdu: Mapped[str]
    received_ts: Mapped[int]
    tries: Mapped[int]  # failed ones to fetch its predecessors
    next_try_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "room_id", "id"),)


class Gap(Base):
    """An event that this server lacks, cited by one that it has. Written by core/timeline/gaps.py.

    `position` says where the event would stand: just before this position, that of an event that
    follows it; NULL if none of those is in the timeline. Several events may have the same place.
    """

    __tablename__ = "gaps"
    room_number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int | None]
    tries: Mapped[int]  # failed ones since the gap has had this place
    next_try_ts: Mapped[int]  # ms

    __table_args__ = (Index(None, "room_number", "position"), {"sqlite_with_rowid": False})


class Joining(Base):
    """A join of another server's room that is under way. Written by core/joining.py."""

    __tablename__ = "joining"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str]
    pdu: Mapped[str]
    servers: Mapped[list[Any]]  # to which it may have been sent
    since_ts: Mapped[int]  # ms


class PartialRoom(Base):
    """A room that was joined before its members were known. Written by core/partial_rooms.py.

    The row stays when they are, as clients that know the room without them may come later.
    """

    __tablename__ = "partial_rooms"
    room_id: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[str]  # the join, before which the state is wanted
    servers_in_room: Mapped[list[Any]]  # those that the response to the join names
    servers: Mapped[list[Any]]  # to ask for the state, in this order
    full_position: Mapped[int | None]  # since when the members are known

    __table_args__ = (Index(None, "full_position"),)
