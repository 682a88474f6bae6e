"""The directory of published rooms.

This module alone writes the column is_published of the table rooms.
Spec: client-server-api#published-room-directory
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, func, select, update

from homebody import errors
from homebody.core.appservices import networks
from homebody.core.events import state
from homebody.core.rooms import aliases, summary
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

MAX_LIMIT: Final = 500
"""Rooms per response, and the default limit."""
SEARCHED: Final = ("name", "topic", "canonical_alias")

_BY_MEMBERS = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(StateInterval.membership == "join", StateInterval.to_position == NOW_AND_LATER)
    .group_by(Room.room_id)
    .order_by(func.count().desc(), Room.room_id)
)
_PUBLISHED = _BY_MEMBERS.where(Room.is_published)
_AMONG = _BY_MEMBERS.where(
    Room.room_id.in_(select(listed("room_ids").c.value))
    | (Room.is_published & bindparam("with_published"))
)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request for the directory."""

    limit: int = MAX_LIMIT
    since: str | None = None
    search_term: str = ""
    room_types: Collection[str | None] | None = None  # None in it: rooms without a type
    network: str | None = None  # the instance ID of a bridged network
    has_all_networks: bool = False
    only_federated: bool = False  # leave out rooms that users of other servers can't join


def publish(tx: Tx, room_id: str, *, is_published: bool) -> None:
    """Publish a room in the directory, or remove it."""
    room = update(Room).where(Room.room_id == room_id)
    tx.sql.execute(room.values(is_published=is_published))


def set_visibility(tx: Tx, room_id: str, requester: Requester, *, is_published: bool) -> None:
    """Publish a room or remove it, if the requester may do so.

    Raises M_NOT_FOUND for an unknown room, M_FORBIDDEN unless they have the power to set the
    room's canonical alias, or are an administrator.
    """
    state.head(tx, room_id)
    if not requester.is_admin and not aliases.may_manage(tx, room_id, requester.user_id):
        raise errors.forbidden("Publishing a room requires the power to set its canonical alias")
    publish(tx, room_id, is_published=is_published)


def visibility(tx: Reader, room_id: str) -> str:
    """Return "public" or "private". Raises M_NOT_FOUND for an unknown room."""
    room = select(Room.is_published).where(Room.room_id == room_id)
    is_published = tx.sql.execute(room).scalar()
    if is_published is None:
        raise errors.not_found("This server does not know the room")
    return "public" if is_published else "private"


def public_rooms(tx: Reader, query: Query) -> Json:
    """Return a page of the directory, as the response of /publicRooms: largest rooms first.

    Tokens are offsets. Raises M_INVALID_PARAM for an invalid one.
    """
    start = _start(query.since)
    end = start + query.limit
    room_ids = _listed(tx, query)
    if not query.search_term and query.room_types is None:
        total = len(room_ids)
        chunk = summary.public_chunks(tx, room_ids[start:end])
    else:
        found = [room for room in summary.public_chunks(tx, room_ids) if _matches(room, query)]
        total = len(found)
        chunk = found[start:end]
    if query.only_federated:  # a page may have fewer rooms than its limit
        hidden = summary.unfederated(tx, [room["room_id"] for room in chunk])
        chunk = [room for room in chunk if room["room_id"] not in hidden]
    page: Json = {"chunk": chunk, "total_room_count_estimate": total}
    if end < total:
        page["next_batch"] = str(end)
    if start > 0:
        page["prev_batch"] = str(max(0, start - query.limit))
    return page


def _listed(tx: Reader, query: Query) -> list[str]:
    """Return the rooms of the requested directory: this server's, a network's, or all."""
    if query.network is None and not (query.has_all_networks and tx.server.appservices.all):
        return list(tx.sql.execute(_PUBLISHED).scalars())
    network = query.network
    bridged = networks.all_rooms(tx) if network is None else networks.rooms(tx, network)
    params = {"room_ids": bridged, "with_published": query.network is None}
    return list(tx.sql.execute(_AMONG, params).scalars())


def _start(token: str | None) -> int:
    if not token:  # clients send an empty one for the first page
        return 0
    if not (token.isascii() and token.isdecimal() and len(token) < 10):
        raise errors.invalid_param("since is not a token of this server")
    return int(token)


def _matches(room: Json, query: Query) -> bool:
    if query.room_types is not None and room.get("room_type") not in query.room_types:
        return False
    term = query.search_term.casefold()
    return not term or any(term in room.get(key, "").casefold() for key in SEARCHED)
