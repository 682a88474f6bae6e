"""The tree of rooms below a space, as far as a user may know of it.

The tree is read level by level, each with one batch of queries for all of its rooms, and then told
depth first: a space is followed by what is in it. A room is told once, wherever it stands first; so
a loop ends by itself. How deep a room counts is the shortest way to it.

A page is a part of that list, which is made anew for each: what has changed between two pages can
make a room appear twice or not at all. Of a large tree only so many rooms are looked at; when all
of those have been shown, the token of the last page has the next one look at as many more.
Spec: client-server-api#spaces, client-server-api#get_matrixclientv1roomsroomidhierarchy
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import client_events, state
from homebody.core.rooms import summary
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Reader

CHILD: Final = "m.space.child"
SPACE: Final = "m.space"
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
MAX_DEPTH: Final = 20
"""Also for who asks for no depth."""
MAX_ROOMS: Final = 5000
"""Looked at before the first page, and again each time that the pages have shown all of them."""
_AT_ONCE: Final = 500
_CHILDREN_BETWEEN_BREATHS: Final = 100
"""Each is an event, of up to 64 KiB."""

_ORDER = re.compile(r"[ -~]{0,50}")
_TOKEN = re.compile(r"([0-9]{1,9})-([01])-([0-9]{1,9})(?:-([0-9]{1,4}))?")
_CHILDREN = (
    select(Room.room_id, StateInterval.state_key, StoredEvent.pdu)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, StoredEvent.position == StateInterval.event_position)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.type == CHILD,
        StateInterval.to_position == NOW_AND_LATER,
    )
)
_OWN_MEMBERSHIPS = (
    select(Room.room_id, StateInterval.membership)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.membership.is_not(None),
        StateInterval.to_position == NOW_AND_LATER,
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
    )
)


@dataclass(frozen=True, slots=True)
class Query:
    """Which part of the tree is asked for."""

    limit: int = DEFAULT_LIMIT
    max_depth: int = MAX_DEPTH
    """Steps down from the space; 0: only the space itself."""
    is_suggested_only: bool = False
    since: str | None = None
    """The token of the page before."""


class Node(NamedTuple):
    """A room of the tree."""

    summary: Json
    children: list[Json]
    """Its m.space.child events, stripped, in the order in which they are to be shown."""
    depth: int
    look: int
    """In which look at the tree it was found; see MAX_ROOMS."""


class Start(NamedTuple):
    """Where a page begins."""

    shown: int = 0
    """How many rooms the pages before it had."""
    looks: int = 1
    """How many times MAX_ROOMS rooms may be looked at."""


def hierarchy(tx: Reader, user_id: str, room_id: str, query: Query) -> Json:
    """A page of the tree, as /hierarchy answers it.

    Raises M_FORBIDDEN for a space that the user may not know of, M_INVALID_PARAM for a token that
    is none, or belongs to another query.
    """
    start = _start(query)
    nodes, is_whole = _read(tx, user_id, room_id, query, start.looks)
    if room_id not in nodes:
        raise errors.forbidden("There is no such space, or you may not see it")
    rooms = _in_order(nodes, room_id, query.max_depth, start.looks)
    end = start.shown + query.limit
    page = rooms[start.shown : end]
    answer: Json = {
        "rooms": [{**nodes[it].summary, "children_state": nodes[it].children} for it in page]
    }
    if end < len(rooms):
        answer["next_batch"] = _token(query, Start(end, start.looks))
    elif not is_whole:
        answer["next_batch"] = _token(query, Start(len(rooms), start.looks + 1))
    return answer


def _token(query: Query, start: Start) -> str:
    is_suggested_only = int(query.is_suggested_only)
    return f"{query.max_depth}-{is_suggested_only}-{start.shown}-{start.looks}"


def _start(query: Query) -> Start:
    if query.since is None:
        return Start()
    match = _TOKEN.fullmatch(query.since)
    if match is None:
        raise errors.invalid_param("from is no token of this server")
    max_depth, is_suggested_only, shown, looks = (int(part or 1) for part in match.groups())
    if (max_depth, bool(is_suggested_only)) != (query.max_depth, query.is_suggested_only):
        raise errors.invalid_param("max_depth and suggested_only must stay as they were")
    return Start(shown, max(1, looks))


def _read(
    tx: Reader, user_id: str, room_id: str, query: Query, looks: int
) -> tuple[dict[str, Node], bool]:
    """(the rooms of the tree that the user may know of, whether these are all)."""
    nodes: dict[str, Node] = {}
    places = {room_id: 0}
    level, is_whole = [room_id], True
    for depth in range(query.max_depth + 1):
        rooms = _allowed(tx, user_id, level)
        spaces = [room["room_id"] for room in rooms if room.get("room_type") == SPACE]
        children = _children(tx, spaces, is_suggested_only=query.is_suggested_only)
        for room in rooms:
            one = room["room_id"]
            look = places[one] // MAX_ROOMS + 1
            nodes[one] = Node(room, children.get(one, []), depth, look)
        below = (child["state_key"] for space in spaces for child in children.get(space, ()))
        level = list(dict.fromkeys(child for child in below if child not in places))
        left = looks * MAX_ROOMS - len(places)
        if depth < query.max_depth and len(level) > left:
            is_whole = False
        level = level[:left]
        if not level:
            break
        places.update(zip(level, itertools.count(len(places)), strict=False))
    return nodes, is_whole


def _in_order(nodes: dict[str, Node], room_id: str, max_depth: int, looks: int) -> list[str]:
    """Return the rooms as pages show them: depth first, those of each look after the one before.

    So a larger tree does not move the rooms that earlier pages have shown.
    """
    found: dict[str, None] = {}
    for look in range(1, looks + 1):
        known = {one: node for one, node in nodes.items() if node.look <= look}
        found.update(dict.fromkeys(_depth_first(known, room_id, max_depth)))
        if len(found) == len(nodes):
            break
    return list(found)


def _depth_first(nodes: dict[str, Node], room_id: str, max_depth: int) -> Iterator[str]:
    told: set[str] = set()
    ahead = [room_id]
    while ahead:
        one = ahead.pop()
        if one in told or one not in nodes:
            continue
        told.add(one)
        yield one
        if nodes[one].depth < max_depth:
            ahead += [child["state_key"] for child in reversed(nodes[one].children)]


def _allowed(tx: Reader, user_id: str, room_ids: Sequence[str]) -> list[Json]:
    """The summaries of those rooms that the user may know of."""
    joined = state.joined_rooms(tx, user_id)
    allowed: list[Json] = []
    for at in range(0, len(room_ids), _AT_ONCE):
        event_loop.breathe()
        some = room_ids[at : at + _AT_ONCE]
        found = tx.sql.execute(_OWN_MEMBERSHIPS, {"user_id": user_id, "room_ids": some})
        memberships = {row.room_id: row.membership for row in found}
        allowed += [
            room
            for room in summary.full(tx, some)
            if _may_know(room, memberships.get(room["room_id"]), joined)
        ]
    return allowed


def _may_know(room: Json, membership: str | None, joined: Set[str]) -> bool:
    """The spec's conditions for a room to be told: the user is in it, could join, or read it."""
    if membership in {"join", "invite"} or room["world_readable"]:
        return True
    return membership != "ban" and summary.is_open_to(room, joined)


def _children(
    tx: Reader, spaces: Sequence[str], *, is_suggested_only: bool
) -> dict[str, list[Json]]:
    """{space: its children as they are shown, in their order}."""
    found: dict[str, list[Json]] = defaultdict(list)
    for at in range(0, len(spaces), _AT_ONCE):
        asked = {"room_ids": spaces[at : at + _AT_ONCE]}
        for row in tx.breathing(tx.sql.execute(_CHILDREN, asked), _CHILDREN_BETWEEN_BREATHS):
            pdu = orjson.loads(row.pdu)
            if not _is_child(pdu["content"]):
                continue
            if is_suggested_only and pdu["content"].get("suggested") is not True:
                continue
            shown = client_events.stripped(pdu)
            found[row.room_id].append({**shown, "origin_server_ts": pdu["origin_server_ts"]})
    return {space: sorted(children, key=_place) for space, children in found.items()}


def _is_child(content: Json) -> bool:
    """Without servers to join through, a child has been taken out of the space."""
    via = content.get("via")
    return isinstance(via, list) and bool(via) and all(isinstance(it, str) for it in via)


def _place(child: Json) -> tuple[bool, str, int, str]:
    """Children with a valid `order` come first, by that; the others by time; then by room id.

    Spec: client-server-api#ordering-of-children-within-a-space
    """
    order = child["content"].get("order")
    is_valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    return not is_valid, order if is_valid else "", child["origin_server_ts"], child["state_key"]
