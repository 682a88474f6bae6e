"""Rooms as administrators see them: a list that is sorted and searched, and the details of one.

Only what the list is sorted and searched by is read of all rooms, and the rest of those on the
page: each in one statement, however many rooms there are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import and_, bindparam, case, func, select, true

from homebody import errors
from homebody.core.events import state
from homebody.core.rooms import upgrade
from homebody.models.base import NOW_AND_LATER
from homebody.models.devices import Device
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import in_order, listed, unindexed

Contents = dict[str, Json]
"""{event type: PDU} of current state."""
ORDERS: Final = (
    "name",
    "canonical_alias",
    "joined_members",
    "joined_local_members",
    "version",
    "creator",
    "encryption",
    "federatable",
    "public",
    "join_rules",
    "guest_access",
    "history_visibility",
    "state_events",
    "alphabetical",
    "size",
)
"""What the list can be sorted by. The last two are older names of `name` and `joined_members`."""
_OLDER_NAMES: Final = {"alphabetical": "name", "size": "joined_members"}
_HIGHEST_FIRST: Final = {"joined_members", "joined_local_members", "version", "state_events"}
_BETWEEN_PAUSES: Final = 500

_NUMBERS, _TYPES = listed("numbers"), listed("types")
_ROOMS = select(Room.number, Room.room_id, Room.version, Room.is_published).order_by(Room.room_id)
_ROOM = _ROOMS.where(Room.room_id == bindparam("room_id"))
_CONTENTS = select(StateInterval.room_number, StateInterval.type, StoredEvent.pdu).select_from(
    in_order(
        in_order(
            in_order(_NUMBERS, _TYPES, true()),
            StateInterval,
            and_(
                StateInterval.room_number == _NUMBERS.c.value,
                StateInterval.type == _TYPES.c.value,
                StateInterval.state_key == "",
                # else SQLite reads all of the room's current state
                unindexed(StateInterval.to_position) == NOW_AND_LATER,
            ),
        ),
        StoredEvent,
        StoredEvent.number == StateInterval.event_number,
    )
)
_IN_ROOMS = (
    StateInterval.room_number.in_(select(_NUMBERS.c.value)),
    StateInterval.to_position == NOW_AND_LATER,
)
_IS_LOCAL = StateInterval.state_key.endswith(bindparam("domain"))
_MEMBERS = (
    select(
        StateInterval.room_number,
        func.count().label("joined"),
        func.sum(case((_IS_LOCAL, 1), else_=0)).label("local"),
    )
    .where(*_IN_ROOMS, StateInterval.membership == "join")
    .group_by(StateInterval.room_number)
)
_STATE_EVENTS = (
    select(StateInterval.room_number, func.count().label("events"))
    .where(*_IN_ROOMS, StateInterval.event_number != state.NO_EVENT)
    .group_by(StateInterval.room_number)
)
_USERS = listed("users")
_DEVICES = (
    select(func.count()).select_from(Device).where(Device.user_id.in_(select(_USERS.c.value)))
)
_NOT_FORGOTTEN = (
    select(StateInterval.state_key)
    .join(Room, Room.number == StateInterval.room_number)
    .where(
        Room.room_id == bindparam("room_id"),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.is_not(None),
        _IS_LOCAL,
        ~select(ForgottenRoom.room_id)
        .where(
            ForgottenRoom.room_id == Room.room_id,
            ForgottenRoom.user_id == StateInterval.state_key,
        )
        .exists(),
    )
    .limit(1)
)


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request for the list."""

    start: int = 0
    limit: int = 100
    order_by: str = "name"
    is_backwards: bool = False
    search_term: str | None = None
    is_published: bool | None = None
    is_empty: bool | None = None
    """Whether the room has no members."""


class Page(NamedTuple):
    """A part of the list, and the number of rooms in all of it."""

    rooms: list[Json]
    total: int


class _Members(NamedTuple):
    joined: int = 0
    local: int = 0


class _Shown(NamedTuple):
    """A value of a room that its list shows: the event in which it is, and how it is read."""

    event_type: str
    read: Callable[[Json], Any]


def _text(key: str) -> Callable[[Json], Any]:
    """Return a function that reads a string from an event's content; it may be anything."""

    def read(pdu: Json) -> str | None:
        value = pdu["content"].get(key)
        return value if isinstance(value, str) and value else None

    return read


SHOWN: Final[dict[str, _Shown]] = {
    "name": _Shown("m.room.name", _text("name")),
    "canonical_alias": _Shown("m.room.canonical_alias", _text("alias")),
    "creator": _Shown("m.room.create", lambda pdu: pdu["sender"]),
    "encryption": _Shown("m.room.encryption", _text("algorithm")),
    "federatable": _Shown(
        "m.room.create", lambda pdu: pdu["content"].get("m.federate") is not False
    ),
    "join_rules": _Shown("m.room.join_rules", _text("join_rule")),
    "guest_access": _Shown("m.room.guest_access", _text("guest_access")),
    "history_visibility": _Shown("m.room.history_visibility", _text("history_visibility")),
    "room_type": _Shown("m.room.create", _text("type")),
}
_DETAILS: Final[dict[str, _Shown]] = {
    "avatar": _Shown("m.room.avatar", _text("url")),
    "topic": _Shown("m.room.topic", _text("topic")),
    "replacement_room": _Shown(upgrade.TOMBSTONE, _text("replacement_room")),
}


def page(tx: Reader, query: Query) -> Page:
    """Return a part of the list of all rooms, sorted by a property and then by their ids."""
    found = list(tx.sql.execute(_ROOMS))
    if query.is_published is not None:
        found = [row for row in found if row.is_published == query.is_published]
    if query.search_term is not None:
        found = _search(tx, found, query.search_term)
    if query.is_empty is not None:
        members = _members(tx, found)
        found = [
            row
            for row in found
            if (members.get(row.number, _Members()).joined == 0) == query.is_empty
        ]
    found = _sorted(tx, found, query)
    return Page(_described(tx, found[query.start : query.start + query.limit]), len(found))


def details(tx: Reader, room_id: str) -> Json:
    """Return a room as in the list, with what only its page shows. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_ROOM, {"room_id": room_id}).first()
    if row is None:
        raise errors.not_found("This server does not know the room")
    pdus = _pdus(tx, [row], {it.event_type for it in _DETAILS.values()})[row.number]
    local = state.joined(tx, room_id).local
    asked = {"room_id": room_id, "domain": f":{tx.server.name}"}
    return {
        **_described(tx, [row])[0],
        **_values(_DETAILS, pdus),
        "tombstoned": upgrade.TOMBSTONE in pdus,
        "joined_local_devices": tx.sql.execute(_DEVICES, {"users": local}).scalar_one(),
        "forgotten": tx.sql.execute(_NOT_FORGOTTEN, asked).first() is None,
    }


def _search(tx: Reader, rooms: Sequence[Any], term: str) -> list[Any]:
    """Return the rooms with this id, or with the term in the name or the alias's localpart."""
    pdus = _pdus(tx, rooms, {SHOWN["name"].event_type, SHOWN["canonical_alias"].event_type})
    wanted = term.casefold()

    def matches(row: Any) -> bool:
        shown = _values({key: SHOWN[key] for key in ("name", "canonical_alias")}, pdus[row.number])
        localpart = (shown["canonical_alias"] or "").partition(":")[0].removeprefix("#")
        return row.room_id == term or any(
            wanted in text.casefold() for text in (shown["name"] or "", localpart)
        )

    return [row for row in rooms if matches(row)]


def _sorted(tx: Reader, rooms: list[Any], query: Query) -> list[Any]:
    """Return the rooms in the wanted order; those without the property come first."""
    order = _OLDER_NAMES.get(query.order_by, query.order_by)
    values: dict[int, Any]
    if order in SHOWN:
        pdus = _pdus(tx, rooms, {SHOWN[order].event_type})
        values = {number: _values({order: SHOWN[order]}, pdus[number])[order] for number in pdus}
    elif order == "state_events":
        values = _state_events(tx, rooms)
    elif order in {"joined_members", "joined_local_members"}:
        place = order == "joined_local_members"
        values = {number: it[place] for number, it in _members(tx, rooms).items()}
    else:
        values = {
            row.number: row.version if order == "version" else row.is_published for row in rooms
        }

    def key(row: Any) -> tuple[bool, Any]:
        value = values.get(row.number)
        return value is not None, value

    return sorted(rooms, key=key, reverse=(order in _HIGHEST_FIRST) != query.is_backwards)


def _described(tx: Reader, rooms: Sequence[Any]) -> list[Json]:
    pdus = _pdus(tx, rooms, {it.event_type for it in SHOWN.values()})
    members, state_events = _members(tx, rooms), _state_events(tx, rooms)
    return [
        {
            "room_id": row.room_id,
            **_values(SHOWN, pdus[row.number]),
            "joined_members": members.get(row.number, _Members()).joined,
            "joined_local_members": members.get(row.number, _Members()).local,
            "version": row.version,
            "public": row.is_published,
            "state_events": state_events.get(row.number, 0),
        }
        for row in rooms
    ]


def _values(shown: dict[str, _Shown], pdus: Contents) -> Json:
    """Return {name: value, None where the room has no such event}."""
    return {
        name: it.read(pdus[it.event_type]) if it.event_type in pdus else None
        for name, it in shown.items()
    }


def _pdus(tx: Reader, rooms: Sequence[Any], types: Collection[str]) -> dict[int, Contents]:
    """Return {room number: {event type: PDU}} of the current state."""
    found: dict[int, Contents] = defaultdict(dict)
    asked = {"numbers": [row.number for row in rooms], "types": sorted(types)}
    for row in tx.pausing(tx.sql.execute(_CONTENTS, asked), _BETWEEN_PAUSES):
        found[row.room_number][row.type] = orjson.loads(row.pdu)
    return found


def _members(tx: Reader, rooms: Sequence[Any]) -> dict[int, _Members]:
    asked = {"numbers": [row.number for row in rooms], "domain": f":{tx.server.name}"}
    return {number: _Members(*it) for number, *it in tx.sql.execute(_MEMBERS, asked)}


def _state_events(tx: Reader, rooms: Sequence[Any]) -> dict[int, int]:
    asked = {"numbers": [row.number for row in rooms]}
    return {row.room_number: row.events for row in tx.sql.execute(_STATE_EVENTS, asked)}
