"""Room summaries: heroes and numbers of members, from which clients make display names.

Spec: client-server-api#calculating-the-display-name-for-a-room
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, bindparam, case, func, select
from sqlalchemy.orm import aliased

from homebody.core.events import client_events, state, state_changes, stripped_state
from homebody.core.events.state_changes import MAX_HEROES, MemberSummary
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, listed

_COUNTS = (
    select(Room.room_id, StateInterval.membership, func.count())
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.in_(["join", "invite"]),
    )
    .group_by(Room.room_id, StateInterval.membership)
)
_SAYS = case((StateInterval.type == "m.room.name", "$.content.name"), else_="$.content.alias")
_NAMED = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.type.in_(["m.room.name", "m.room.canonical_alias"]),
        StateInterval.state_key == "",
        StateInterval.to_position == NOW_AND_LATER,
        # neither a removed name, nor one that is not a text
        func.json_type(StoredEvent.pdu, _SAYS) == "text",
        func.json_extract(StoredEvent.pdu, _SAYS) != "",
    )
)
_ROOMS = listed("room_ids")
_Member = aliased(StateInterval)
_FIRST_OF_ROOM = (
    select(_Member.state_key)
    .where(
        _Member.room_number == Room.number,
        _Member.to_position == NOW_AND_LATER,
        _Member.membership.is_not(None),
    )
    .order_by(
        _Member.membership.in_(sorted(state_changes.PRESENT)).desc(),
        _Member.from_position,
        _Member.state_key,
    )
    .limit(MAX_HEROES + 1)
    .correlate(Room)
)
_FIRST = (
    select(Room.room_id, StateInterval.state_key, StateInterval.membership)
    .select_from(_ROOMS)
    .join(Room, Room.room_id == _ROOMS.c.value)
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.type == state.MEMBER,
            StateInterval.state_key.in_(_FIRST_OF_ROOM),
            StateInterval.to_position == NOW_AND_LATER,
        ),
    )
    .order_by(StateInterval.from_position, StateInterval.state_key)
)
_AT_ONCE = 500


def load(tx: Reader, user_id: str, room_ids: Collection[str]) -> dict[str, Json]:
    """Return {room_id: current summary}, with heroes only if the room has no name or alias."""
    summaries: dict[str, Json] = {}
    for some in batches(room_ids, _AT_ONCE):
        named = set(tx.sql.execute(_NAMED, {"room_ids": some}).scalars())
        for room_id, summary in members(tx, some).items():
            summaries[room_id] = {
                "m.joined_member_count": summary.joined,
                "m.invited_member_count": summary.invited,
            }
            if room_id not in named:
                summaries[room_id]["m.heroes"] = _heroes(summary, user_id)
    return summaries


def _heroes(summary: MemberSummary, user_id: str) -> list[str]:
    """Return the first members other than the user, former members only if there are no others."""
    others = [(member, is_there) for member, is_there in summary.first if member != user_id]
    present = [member for member, is_there in others if is_there]
    return (present or [member for member, _ in others])[:MAX_HEROES]


def members(tx: Reader, room_ids: list[str]) -> dict[str, MemberSummary]:
    """Return {room_id: the members by whom the room is called}."""
    found: dict[str, MemberSummary] = {}
    missing: list[str] = []
    for room_id in room_ids:
        known = tx.cached(state_changes.SUMMARIES, room_id)
        if known is None:
            missing.append(room_id)
        else:
            found[room_id] = known
    if missing:
        read = read_members(tx, missing)
        for room_id, summary in read.items():
            tx.fill(state_changes.SUMMARIES, room_id, summary)
        found |= read
    return found


def read_members(tx: Reader, room_ids: list[str]) -> dict[str, MemberSummary]:
    """Return the same from the database."""
    counted: dict[str, dict[str, int]] = {room_id: {} for room_id in room_ids}
    for room_id, membership, count in tx.sql.execute(_COUNTS, {"room_ids": room_ids}):
        counted[room_id][membership] = count
    first: dict[str, list[tuple[str, bool]]] = {room_id: [] for room_id in room_ids}
    for room_id, user_id, membership in tx.sql.execute(_FIRST, {"room_ids": room_ids}):
        first[room_id].append((user_id, membership in state_changes.PRESENT))
    return {
        room_id: MemberSummary(
            counts.get("join", 0),
            counts.get("invite", 0),
            tuple(sorted(first[room_id], key=lambda it: not it[1])),
        )
        for room_id, counts in counted.items()
    }


def preview(tx: Reader, room_id: str, user_id: str) -> list[Json]:
    """Return the stripped state of a room that the user may join, with their own membership."""
    own: StateKey = (state.MEMBER, user_id)
    known = state.current_many(tx, room_id, [*client_events.STRIPPED_STATE, own])
    member = known[own]
    known |= state.current_many(tx, room_id, [(state.MEMBER, member.sender)])
    del known[own]  # of a knock, the user is the sender
    events = [client_events.stripped(event.pdu) for event in known.values()]
    if (from_elsewhere := stripped_state.find(tx, room_id, user_id)) is not None:
        events = from_elsewhere.events
    own_event = client_events.stripped(member.pdu) | {
        "event_id": member.event_id,
        "origin_server_ts": member.origin_server_ts,
    }
    return [*events, own_event]
