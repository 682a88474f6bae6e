"""Spaces of this server as other servers may know them: what their users could join or read.

Spec: server-server-api#get_matrixfederationv1hierarchyroomid
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import bindparam, func, select

from homebody import errors
from homebody.core.events import state
from homebody.core.rooms import spaces, summary
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.database import Reader

MAX_CHILDREN: Final = 1000
_INVITED = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.membership == "invite",
        func.substr(StateInterval.state_key, bindparam("offset")) == bindparam("ending"),
        StateInterval.to_position == NOW_AND_LATER,
    )
    .distinct()
)


def hierarchy(tx: Reader, server_name: str, room_id: str, *, is_suggested_only: bool) -> Json:
    """Return a room, its children, and which of those the server's users could not get into.

    Children that this server is not in are left out, as it knows nothing of them.
    Raises M_NOT_FOUND for a room that is unknown, or that they could not get into.
    """
    found = _known(tx, [room_id])
    if not found or not _accessible(tx, server_name, found):
        raise errors.not_found("This room does not exist, or your users may not join it")
    (room,) = found
    events: list[Json] = []
    if room.get("room_type") == spaces.SPACE:
        listed = spaces.children(tx, [room_id], is_suggested_only=is_suggested_only)
        events = listed.get(room_id, [])[:MAX_CHILDREN]
    children = _known(tx, [it["state_key"] for it in events if it["state_key"] != room_id])
    accessible = _accessible(tx, server_name, children)
    return {
        "room": {**room, "children_state": events},
        "children": [it for it in children if it["room_id"] in accessible],
        "inaccessible_children": [
            it["room_id"] for it in children if it["room_id"] not in accessible
        ],
    }


def _known(tx: Reader, room_ids: Sequence[str]) -> list[Json]:
    """Return the summaries of those rooms that this server is in, and others can be."""
    here = [it for it in dict.fromkeys(room_ids) if spaces.is_here(tx, it)]
    unfederated = summary.unfederated(tx, here)
    return summary.full(tx, [it for it in here if it not in unfederated])


def _accessible(tx: Reader, server_name: str, rooms: Collection[Json]) -> set[str]:
    """Return the ids of those rooms that users of a server are in, or could join or read."""
    allowed = {it for room in rooms for it in room.get("allowed_room_ids", ())}
    joined = frozenset(
        it
        for it in {*allowed, *(room["room_id"] for room in rooms)}
        if server_name in state.joined(tx, it).servers
    )
    accessible = {
        room["room_id"]
        for room in rooms
        if room["room_id"] in joined or room["world_readable"] or summary.is_open_to(room, joined)
    }
    rest = [room["room_id"] for room in rooms if room["room_id"] not in accessible]
    if rest:
        ending = f":{server_name}"
        values = {"room_ids": rest, "offset": -len(ending), "ending": ending}
        accessible |= set(tx.sql.execute(_INVITED, values).scalars())
    return accessible
