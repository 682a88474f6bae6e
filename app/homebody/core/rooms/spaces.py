"""Space hierarchies: the tree of rooms below a space, as far as a user may see it.

The tree is read level by level, each with one batch of queries for all of its rooms, and then
listed depth first: a space is followed by its children. A room is listed once, at its first place,
so loops end. Its depth is the length of the shortest path to it.

A page is a part of that list, which is computed for each request: changes between two pages can
make a room appear twice or not at all. Of a large tree only MAX_ROOMS rooms are read; when all of
those have been returned, the token of the last page makes the next request read as many more.

Of rooms that this server is not in, `page` takes what others have said, and returns which of them
are missing in the page (core/federation/remote_rooms.py asks for those).
Spec: client-server-api#spaces, client-server-api#get_matrixclientv1roomsroomidhierarchy
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import client_events, state
from homebody.core.rooms import summary
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import batches

CHILD: Final = "m.space.child"
SPACE: Final = "m.space"
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 500
MAX_DEPTH: Final = 20
"""Also the default."""
MAX_ROOMS: Final = 5000
"""Read for the first page, and added each time that the pages have returned all of them."""
_AT_ONCE: Final = 500
_CHILDREN_BETWEEN_PAUSES: Final = 100
"""Each is an event of up to 64 KiB."""

_ORDER = re.compile(r"[ -~]{0,50}")
_TOKEN = re.compile(r"([0-9]{1,9})-([01])-([0-9]{1,9})(?:-([0-9]{1,4}))?")
_CHILDREN = summary.CURRENT_STATE.where(StateInterval.type == CHILD)
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
    """The parameters of a request for a page of the tree."""

    limit: int = DEFAULT_LIMIT
    max_depth: int = MAX_DEPTH
    """Levels below the space; 0: only the space itself."""
    is_suggested_only: bool = False
    since: str | None = None
    """The token of the previous page."""


class OtherRoom(NamedTuple):
    """A room as another server describes it."""

    summary: Json
    children: list[Json] | None
    """Its m.space.child events, stripped; None where they are not known yet."""


@dataclass(frozen=True, slots=True)
class OtherRooms:
    """What other servers have said about rooms that this server is not in."""

    rooms: dict[str, OtherRoom] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    """Rooms that need not be asked about."""


class Page(NamedTuple):
    """A page of the tree."""

    response: Json
    missing: dict[str, list[str]]
    """{room ID: servers} of rooms on the page that others have to be asked about."""


class Node(NamedTuple):
    """A room of the tree."""

    summary: Json | None
    """None for a room that others have to be asked about."""
    children: list[Json] | None
    """Its m.space.child events, stripped, in the order of the specification. None as above."""
    depth: int
    batch: int
    """The batch of MAX_ROOMS rooms in which it was found, from 1."""


class Start(NamedTuple):
    """The position of a page."""

    shown: int = 0
    """Number of rooms on the pages before it."""
    batches: int = 1
    """Batches of MAX_ROOMS rooms that may be read."""


def hierarchy(tx: Reader, user_id: str, room_id: str, query: Query) -> Json:
    """Return a page of the tree, as the response of /hierarchy, of this server's rooms alone.

    Raises as `page` does.
    """
    return page(tx, user_id, room_id, query).response


def page(
    tx: Reader, user_id: str | None, room_id: str, query: Query, others: OtherRooms | None = None
) -> Page:
    """Return a page of the tree, with the rooms of others.

    user_id None: of all rooms that this server knows, for administrators.
    Raises M_FORBIDDEN for a space that the user may not see, M_INVALID_PARAM for a token that is
    invalid, or belongs to another query.
    """
    start = _start(query)
    tree = _read(tx, user_id, room_id, query, start.batches, others)
    nodes = tree.nodes
    if room_id not in nodes:
        raise errors.forbidden("This space does not exist, or you may not see it")
    order = _in_order(nodes, room_id, query.max_depth, start.batches)
    end = start.shown + query.limit
    rooms: list[Json] = []
    missing: dict[str, list[str]] = {}
    has_more = not tree.is_whole
    for place_in_tree, one in enumerate(order):
        node = nodes[one]
        if node.summary is None or node.children is None:
            if place_in_tree < end:  # if the user may see all that are missing
                missing[one] = tree.servers.get(one, [])
            else:
                has_more = True
        if node.summary is not None:
            rooms.append({**node.summary, "children_state": node.children or []})
    response: Json = {"rooms": rooms[start.shown : end]}
    if end < len(rooms):
        response["next_batch"] = _token(query, Start(end, start.batches))
    elif has_more:
        batches = start.batches if tree.is_whole else start.batches + 1
        response["next_batch"] = _token(query, Start(len(rooms), batches))
    return Page(response, missing)


def _token(query: Query, start: Start) -> str:
    is_suggested_only = int(query.is_suggested_only)
    return f"{query.max_depth}-{is_suggested_only}-{start.shown}-{start.batches}"


def _start(query: Query) -> Start:
    if query.since is None:
        return Start()
    match = _TOKEN.fullmatch(query.since)
    if match is None:
        raise errors.invalid_param("from is not a token of this server")
    max_depth, is_suggested_only, shown, batches = (int(part or 1) for part in match.groups())
    if (max_depth, bool(is_suggested_only)) != (query.max_depth, query.is_suggested_only):
        raise errors.invalid_param("max_depth and suggested_only must be those of the first page")
    return Start(shown, max(1, batches))


class Tree(NamedTuple):
    """The rooms that the user may see, or that others have to be asked about."""

    nodes: dict[str, Node]
    servers: dict[str, list[str]]
    """{room ID: servers that know it}."""
    is_whole: bool


def _read(
    tx: Reader,
    user_id: str | None,
    room_id: str,
    query: Query,
    batches: int,
    others: OtherRooms | None,
) -> Tree:
    nodes: dict[str, Node] = {}
    servers = {room_id: [room_id.partition(":")[2]]}
    places = {room_id: 0}
    level, is_whole = [room_id], True
    for depth in range(query.max_depth + 1):
        rooms, unknown = _allowed(tx, user_id, level, others)
        spaces = [room["room_id"] for room in rooms if room.get("room_type") == SPACE]
        children = _children_of(tx, spaces, others, is_suggested_only=query.is_suggested_only)
        for room in rooms:
            one = room["room_id"]
            batch = places[one] // MAX_ROOMS + 1
            nodes[one] = Node(room, children.get(one, []), depth, batch)
        for one in unknown:
            nodes[one] = Node(None, None, depth, places[one] // MAX_ROOMS + 1)
        below = [child for space in spaces for child in children.get(space) or ()]
        for child in below:
            servers.setdefault(child["state_key"], child["content"]["via"])
        level = list(
            dict.fromkeys(it["state_key"] for it in below if it["state_key"] not in places)
        )
        left = batches * MAX_ROOMS - len(places)
        if depth < query.max_depth and len(level) > left:
            is_whole = False
        level = level[:left]
        if not level:
            break
        places.update(zip(level, itertools.count(len(places)), strict=False))
    return Tree(nodes, servers, is_whole)


def _in_order(nodes: dict[str, Node], room_id: str, max_depth: int, batches: int) -> list[str]:
    """Return the rooms in the order of pages: depth first, each batch after the one before.

    So reading another batch does not move the rooms that earlier pages have returned.
    """
    found: dict[str, None] = {}
    for batch in range(1, batches + 1):
        known = {one: node for one, node in nodes.items() if node.batch <= batch}
        found.update(dict.fromkeys(_depth_first(known, room_id, max_depth)))
        if len(found) == len(nodes):
            break
    return list(found)


def _depth_first(nodes: dict[str, Node], room_id: str, max_depth: int) -> Iterator[str]:
    listed: set[str] = set()
    ahead = [room_id]
    while ahead:
        one = ahead.pop()
        if one in listed or one not in nodes:
            continue
        listed.add(one)
        yield one
        if nodes[one].depth < max_depth:
            ahead += [child["state_key"] for child in reversed(nodes[one].children or [])]


def _allowed(
    tx: Reader, user_id: str | None, room_ids: Sequence[str], others: OtherRooms | None
) -> tuple[list[Json], list[str]]:
    """Return the summaries of those rooms that the user may see, and the ids of unknown ones."""
    if user_id is None:
        return summary.full(tx, room_ids), []
    joined = state.joined_rooms(tx, user_id)
    allowed: list[Json] = []
    unknown: list[str] = []
    for some in batches(room_ids, _AT_ONCE):
        event_loop.pause()
        found = tx.sql.execute(_OWN_MEMBERSHIPS, {"user_id": user_id, "room_ids": some})
        memberships = {row.room_id: row.membership for row in found}
        rooms = {room["room_id"]: room for room in summary.full(tx, some)}
        if others is not None:
            away = [it for it in some if it not in rooms or not is_here(tx, it)]
            rooms |= {it: others.rooms[it].summary for it in away if it in others.rooms}
            unknown += [it for it in away if it not in others.rooms and it not in others.settled]
        allowed += [
            rooms[it]
            for it in some
            if it in rooms and _may_see(rooms[it], memberships.get(it), joined)
        ]
    return allowed, unknown


def is_here(tx: Reader, room_id: str) -> bool:
    """Return whether a user of this server is joined to the room, so that its state is known."""
    return bool(state.joined(tx, room_id).local)


def _may_see(room: Json, membership: str | None, joined: Set[str]) -> bool:
    """Return whether the user has joined the room, is invited, could join, or read it."""
    if membership in {"join", "invite"} or room["world_readable"]:
        return True
    return membership != "ban" and summary.is_open_to(room, joined)


def _children_of(
    tx: Reader, spaces: Sequence[str], others: OtherRooms | None, *, is_suggested_only: bool
) -> dict[str, list[Json] | None]:
    """Return {space: its m.space.child events, None where others have to be asked for them}."""
    known = {} if others is None else others.rooms
    away = [it for it in spaces if it in known]
    found: dict[str, list[Json] | None] = {
        **children(
            tx, [it for it in spaces if it not in known], is_suggested_only=is_suggested_only
        )
    }
    for space in away:
        listed = known[space].children
        if listed is None and others is not None and space in others.settled:
            listed = []
        found[space] = listed and [
            it for it in listed if not is_suggested_only or it["content"].get("suggested") is True
        ]
    return found


def children(
    tx: Reader, spaces: Sequence[str], *, is_suggested_only: bool
) -> dict[str, list[Json]]:
    """Return {space: its stripped m.space.child events, in the order of the specification}."""
    found: dict[str, list[Json]] = defaultdict(list)
    for some in batches(spaces, _AT_ONCE):
        rows = tx.sql.execute(_CHILDREN, {"room_ids": some})
        for row in tx.pausing(rows, _CHILDREN_BETWEEN_PAUSES):
            pdu = orjson.loads(row.pdu)
            if not is_child(pdu["content"]):
                continue
            if is_suggested_only and pdu["content"].get("suggested") is not True:
                continue
            shown = client_events.stripped(pdu)
            found[row.room_id].append({**shown, "origin_server_ts": pdu["origin_server_ts"]})
    return {space: sorted(events, key=place) for space, events in found.items()}


def is_child(content: Json) -> bool:
    """Return whether the event adds a child; without `via` it removes one."""
    via = content.get("via")
    return isinstance(via, list) and bool(via) and all(isinstance(it, str) for it in via)


def place(child: Json) -> tuple[bool, str, int, str]:
    """Return a sort key: children with a valid `order` first, by that; others by time; then by id.

    Spec: client-server-api#ordering-of-children-within-a-space
    """
    order = child["content"].get("order")
    is_valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    return not is_valid, order if is_valid else "", child["origin_server_ts"], child["state_key"]
