"""What a room is called by who is in it: heroes and counts of members.

Spec: client-server-api#calculating-the-display-name-for-a-room
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import orjson
from sqlalchemy import bindparam, func, select, text

from app.db import Reader
from app.models.base import NOW_AND_LATER
from app.models.state import StateInterval
from app.spec.events import Json

MAX_HEROES = 5
_COUNTS = (
    select(StateInterval.room_id, StateInterval.membership, func.count())
    .where(
        StateInterval.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.in_(["join", "invite"]),
    )
    .group_by(StateInterval.room_id, StateInterval.membership)
)
_NAMED = select(StateInterval.room_id).where(
    StateInterval.room_id.in_(bindparam("room_ids", expanding=True)),
    StateInterval.type.in_(["m.room.name", "m.room.canonical_alias"]),
    StateInterval.state_key == "",
    StateInterval.to_position == NOW_AND_LATER,
)
_HEROES = text(
    "SELECT state_intervals.room_id, state_intervals.state_key, state_intervals.membership"
    " FROM json_each(:room_ids) AS room JOIN state_intervals"
    " ON state_intervals.room_id = room.value AND state_intervals.type = 'm.room.member'"
    " AND state_intervals.state_key IN ("
    "  SELECT state_key FROM state_intervals AS member WHERE member.room_id = room.value"
    "  AND member.to_position = :now AND member.membership IS NOT NULL"
    "  AND member.state_key <> :user_id"
    "  ORDER BY member.membership IN ('join', 'invite') DESC, member.from_position LIMIT :most)"
    " AND state_intervals.to_position = :now ORDER BY state_intervals.from_position"
)
_AT_ONCE = 500


def load(tx: Reader, user_id: str, room_ids: Collection[str]) -> dict[str, Json]:
    """{room_id: its summary as it is now}, heroes only where the room has no name of its own."""
    summaries: dict[str, Json] = {}
    for some in _pieces(list(room_ids)):
        for room_id in some:
            summaries[room_id] = {"m.joined_member_count": 0, "m.invited_member_count": 0}
        for room_id, membership, count in tx.sql.execute(_COUNTS, {"room_ids": some}):
            key = "m.joined_member_count" if membership == "join" else "m.invited_member_count"
            summaries[room_id][key] = count
        named = set(tx.sql.execute(_NAMED, {"room_ids": some}).scalars())
        nameless = [room_id for room_id in some if room_id not in named]
        for room_id, heroes in _heroes(tx, user_id, nameless).items():
            summaries[room_id]["m.heroes"] = heroes
    return summaries


def _heroes(tx: Reader, user_id: str, room_ids: list[str]) -> dict[str, list[str]]:
    """{room_id: the first members, of those who are there or at least were}."""
    if not room_ids:
        return {}
    present: dict[str, list[str]] = {}
    former: dict[str, list[str]] = {}
    asked = {
        "room_ids": orjson.dumps(room_ids).decode(),
        "now": NOW_AND_LATER,
        "user_id": user_id,
        "most": MAX_HEROES,
    }
    for room_id, member, membership in tx.sql.execute(_HEROES, asked):
        place = present if membership in {"join", "invite"} else former
        place.setdefault(room_id, []).append(member)
    return {room: present.get(room) or former.get(room) or [] for room in room_ids}


def _pieces(room_ids: list[str]) -> Iterable[list[str]]:
    for at in range(0, len(room_ids), _AT_ONCE):
        yield room_ids[at : at + _AT_ONCE]
