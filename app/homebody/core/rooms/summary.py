"""Room summaries: rooms as shown to outsiders in the directory, in spaces and before a join.

All rooms of a response are read by one batch of queries.
Spec: client-server-api#published-room-directory, client-server-api#room-summaries
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from typing import Final

import orjson
from sqlalchemy import bindparam, func, select

from homebody import errors
from homebody.core.events import state
from homebody.core.rooms import membership
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.spec.room_versions import VERSIONS
from homebody.storage.database import Reader
from homebody.storage.expressions import batches

INSIDE: Final = frozenset({"join", "invite", "knock"})
_ROOMS_AT_ONCE: Final = 50
_CAPABLE: Final = VERSIONS["11"]
"""Taken for a room whose version is not known, as that has all the join rules."""

CURRENT_STATE: Final = (
    select(Room.room_id, StateInterval.type, StateInterval.state_key, StoredEvent.pdu)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.to_position == NOW_AND_LATER,
    )
)
"""The state events of the rooms `room_ids`; callers add the types."""
_SHOWN_STATE = CURRENT_STATE.where(
    StateInterval.state_key == "",
    StateInterval.type.in_(
        (
            "m.room.avatar",
            "m.room.canonical_alias",
            "m.room.create",
            "m.room.encryption",
            "m.room.guest_access",
            "m.room.history_visibility",
            "m.room.join_rules",
            "m.room.name",
            "m.room.topic",
        )
    ),
)
_CREATE_EVENTS = CURRENT_STATE.where(
    StateInterval.type == "m.room.create", StateInterval.state_key == ""
)
_MEMBERS = (
    select(Room.room_id, func.count().label("members"))
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.membership == "join",
        StateInterval.to_position == NOW_AND_LATER,
    )
    .group_by(Room.room_id)
)
_VERSIONS = select(Room.room_id, Room.version).where(
    Room.room_id.in_(bindparam("room_ids", expanding=True))
)


def public_chunks(tx: Reader, room_ids: Sequence[str]) -> list[Json]:
    """Return the known ones of these rooms as the directory lists them, in the same order."""
    return [
        _public(room_id, contents, members)
        for room_id, _, contents, members in _look_up(tx, room_ids)
    ]


def full(tx: Reader, room_ids: Sequence[str]) -> list[Json]:
    """Return `public_chunks` with the version, encryption and allowed rooms of each."""
    return [
        _public(room_id, contents, members) | _more(version, contents)
        for room_id, version, contents, members in _look_up(tx, room_ids)
    ]


def unfederated(tx: Reader, room_ids: Sequence[str]) -> set[str]:
    """Return those of the rooms that users of other servers can't join."""
    return {
        row.room_id
        for row in tx.sql.execute(_CREATE_EVENTS, {"room_ids": list(room_ids)})
        if orjson.loads(row.pdu)["content"].get("m.federate") is False
    }


def _look_up(tx: Reader, room_ids: Sequence[str]) -> list[tuple[str, str, dict[str, Json], int]]:
    """Return (room ID, version, {type: content}, joined members) of each known room."""
    versions: dict[str, str] = {}
    members: dict[str, int] = {}
    contents: dict[str, dict[str, Json]] = defaultdict(dict)
    for some in tx.pausing(batches(room_ids, _ROOMS_AT_ONCE), every=1):
        params = {"room_ids": some}
        versions |= {row.room_id: row.version for row in tx.sql.execute(_VERSIONS, params)}
        members |= {row.room_id: row.members for row in tx.sql.execute(_MEMBERS, params)}
        for row in tx.sql.execute(_SHOWN_STATE, params):
            contents[row.room_id][row.type] = orjson.loads(row.pdu)["content"]
    return [
        (room_id, versions[room_id], contents[room_id], members.get(room_id, 0))
        for room_id in room_ids
        if room_id in versions
    ]


def _public(room_id: str, contents: dict[str, Json], members: int) -> Json:
    shown = {
        "avatar_url": _text(contents, "m.room.avatar", "url"),
        "canonical_alias": _text(contents, "m.room.canonical_alias", "alias"),
        "join_rule": _text(contents, "m.room.join_rules", "join_rule") or "invite",
        "name": _text(contents, "m.room.name", "name"),
        "room_type": _text(contents, "m.room.create", "type"),
        "topic": _text(contents, "m.room.topic", "topic"),
    }
    visibility = _text(contents, "m.room.history_visibility", "history_visibility")
    return {
        "room_id": room_id,
        "num_joined_members": members,
        "world_readable": visibility == "world_readable",
        "guest_can_join": _text(contents, "m.room.guest_access", "guest_access") == "can_join",
        **{key: value for key, value in shown.items() if value is not None},
    }


def _more(version: str, contents: dict[str, Json]) -> Json:
    more: Json = {"room_version": version}
    encryption = _text(contents, "m.room.encryption", "algorithm")
    if encryption is not None:
        more["encryption"] = encryption
    if _text(contents, "m.room.join_rules", "join_rule") in membership.RESTRICTED:
        more["allowed_room_ids"] = membership.allowed_rooms(contents["m.room.join_rules"])
    return more


def _text(contents: dict[str, Json], event_type: str, key: str) -> str | None:
    """Return a string from the state, or None: clients may send any content."""
    value = contents.get(event_type, {}).get(key)
    return value if isinstance(value, str) and value else None


def preview(tx: Reader, room_id: str, user_id: str | None) -> Json:
    """Return a room's summary with the user's membership, if any. user_id None: no account.

    Raises M_NOT_FOUND for a room that is unknown or that the user may not see.
    """
    found = full(tx, [room_id])
    if not found:
        raise errors.not_found("This room does not exist, or you may not join it")
    return shown_to(tx, found[0], user_id)


def shown_to(tx: Reader, room: Json, user_id: str | None) -> Json:
    """Return a summary with the user's membership, if any. user_id None: no account.

    Banned users see no more than users without an account. The summary may be another server's.
    Raises M_NOT_FOUND for a room that the user may not see.
    """
    own, joined = None, frozenset[str]()
    if user_id is not None:
        own = state.membership_of(tx, room["room_id"], user_id)
        joined = frozenset() if own == "ban" else state.joined_rooms(tx, user_id)
    if not (own in INSIDE or room["world_readable"] or is_open_to(room, joined)):
        raise errors.not_found("This room does not exist, or you may not join it")
    return room | ({} if own is None else {"membership": own})


def is_open_to(room: Json, joined: Set[str]) -> bool:
    """Return whether a user who has joined these rooms may join or knock without an invite.

    `room` is a summary as `full` returns it, or another server, which may leave something out.
    """
    rule = room.get("join_rule", "public")
    version = VERSIONS.get(room.get("room_version", ""), _CAPABLE)
    is_open = {
        "public": True,
        "knock": version.may_knock,
        "knock_restricted": version.may_knock_restricted,
    }
    if is_open.get(rule, False):
        return True
    return version.may_restrict_joins and not joined.isdisjoint(room.get("allowed_room_ids", ()))
