"""The filters of lists in sliding sync.

The properties of rooms that filters need (encryption, type, name) are kept in the connection state
and queried again only for rooms with new events.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from homebody.core.events import stripped_state, visibility
from homebody.core.sliding_sync.order import RoomOrder
from homebody.core.sliding_sync.requests import Filters, RoomList
from homebody.core.user_data import account_data
from homebody.models.account_data import AccountData
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import in_effect, item, listed, unindexed

_ROOMS = listed("rooms")  # [room_id, position]
# As of a position, so that filters don't reveal the new name of a room that the user has left.
# `unindexed` keeps SQLite from an index by which it would read all members of the room.
_PROPERTIES = (
    select(Room.room_id, StateInterval.type, StoredEvent.pdu)
    .select_from(_ROOMS)
    .join(Room, Room.room_id == item(_ROOMS, 0))
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.type.in_(("m.room.create", "m.room.encryption", "m.room.name")),
        StateInterval.state_key == "",
        in_effect(StateInterval, item(_ROOMS, 1), is_end_indexed=False),
    )
)
_CHILDREN = (
    select(StateInterval.state_key, StoredEvent.pdu)
    .join(Room, Room.number == StateInterval.room_number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        Room.room_id.in_(bindparam("spaces", expanding=True)),
        StateInterval.type == "m.space.child",
        unindexed(StateInterval.to_position) == NOW_AND_LATER,
    )
)
_TAGGED = select(AccountData.room_id, AccountData.content).where(
    AccountData.user_id == bindparam("user_id"), AccountData.type == account_data.TAGS
)

Check = Callable[[str], bool]


class RoomProperties(NamedTuple):
    """The properties of a room that filters need."""

    is_encrypted: bool = False
    type: str | None = None
    name: str = ""

    @property
    def size_bytes(self) -> int:
        """The approximate size in memory."""
        return 200 + 4 * (len(self.name) + len(self.type or ""))


DEFAULT: Final = RoomProperties()
MAX_NAME_LENGTH: Final = 255
"""The part of a room's name that is kept; a name may fill a whole event."""


def direct_rooms(tx: Reader, user_id: str) -> frozenset[str]:
    """Return the room IDs in m.direct, whose content is not validated."""
    content = account_data.find(tx, user_id, "m.direct") or {}
    named = [ids for ids in content.values() if isinstance(ids, list)]
    return frozenset(room_id for ids in named for room_id in ids if identifiers.is_room_id(room_id))


def need_properties(lists: Collection[RoomList]) -> bool:
    """Return whether any list has a filter on properties of rooms."""
    wanted = [one.filters for one in lists if one.filters is not None]
    return any(
        it.is_encrypted is not None
        or it.room_types is not None
        or it.not_room_types
        or it.room_name_like is not None
        for it in wanted
    )


def properties(
    tx: Reader, user_id: str, order: RoomOrder, known: Mapping[str, RoomProperties], busy: Set[str]
) -> Mapping[str, RoomProperties]:
    """Return {room_id: properties} of all rooms; queries unknown and possibly changed ones.

    Rooms that the user has left have the properties of that time; a ban may come much later.
    """
    positions = {
        room_id: tx.position for room_id in order.rooms if room_id not in known or room_id in busy
    }
    if not positions:
        return known
    gone = [room_id for room_id in positions if order.rooms[room_id].membership in {"leave", "ban"}]
    if gone:
        histories = visibility.histories(tx, user_id, gone)
        positions |= {room_id: history.joined_until for room_id, history in histories.items()}
    found = dict.fromkeys(positions, DEFAULT)
    for room_id, event_type, pdu in tx.sql.execute(_PROPERTIES, {"rooms": positions.items()}):
        found[room_id] = _with(found[room_id], event_type, orjson.loads(pdu)["content"])
    for room_id in positions:
        if order.rooms[room_id].membership in {"invite", "knock"}:
            elsewhere = stripped_state.find(tx, room_id, user_id)
            for event in elsewhere.events if elsewhere is not None else ():
                found[room_id] = _with(found[room_id], event["type"], event["content"])
    if known.keys() == order.rooms.keys() and all(known[it] == found[it] for it in found):
        return known
    return {**{room_id: it for room_id, it in known.items() if room_id in order.rooms}, **found}


def _with(known: RoomProperties, event_type: str, content: Json) -> RoomProperties:
    """Return the properties of a room with another state event."""
    if event_type == "m.room.encryption":
        return known._replace(is_encrypted=True)
    if event_type == "m.room.create":
        return known._replace(type=_text(content.get("type")))
    if event_type == "m.room.name":
        return known._replace(name=_text(content.get("name")) or "")
    return known


def _text(value: object) -> str | None:
    return value[:MAX_NAME_LENGTH] if isinstance(value, str) else None


def matching(
    tx: Reader,
    user_id: str,
    order: RoomOrder,
    wanted: Filters | None,
    direct: Set[str],
    known: Mapping[str, RoomProperties],
) -> list[str]:
    """Return the rooms that match the filters of a list, in order."""
    if wanted is None:
        return order.ids
    checks = [
        *_checks_of_properties(wanted, known),
        *_checks_of_tags(tx, user_id, wanted),
        *_checks_of_place(tx, order, wanted, direct),
    ]
    found = order.ids
    for check in checks:
        found = list(filter(check, found))
    return found


def _checks_of_properties(wanted: Filters, known: Mapping[str, RoomProperties]) -> list[Check]:
    checks: list[Check] = []
    if wanted.is_encrypted is not None:
        checks.append(lambda room: known[room].is_encrypted == wanted.is_encrypted)
    if wanted.room_types is not None:
        admitted = set(wanted.room_types)
        checks.append(lambda room: known[room].type in admitted)
    if wanted.not_room_types:
        refused = set(wanted.not_room_types)
        checks.append(lambda room: known[room].type not in refused)
    if wanted.room_name_like is not None:
        part = wanted.room_name_like.casefold()
        checks.append(lambda room: part in known[room].name.casefold())
    return checks


def _checks_of_tags(tx: Reader, user_id: str, wanted: Filters) -> list[Check]:
    if wanted.tags is None and not wanted.not_tags:
        return []
    tagged = {
        room_id: _tags(orjson.loads(content))
        for room_id, content in tx.sql.execute(_TAGGED, {"user_id": user_id})
    }
    nothing = frozenset[str]()
    checks: list[Check] = []
    if wanted.tags is not None:
        admitted = frozenset(wanted.tags)
        checks.append(lambda room: bool(tagged.get(room, nothing) & admitted))
    if wanted.not_tags:
        refused = frozenset(wanted.not_tags)
        checks.append(lambda room: not tagged.get(room, nothing) & refused)
    return checks


def _tags(content: Json) -> frozenset[str]:
    tags = content.get("tags")
    return frozenset(tags) if isinstance(tags, dict) else frozenset()


def _checks_of_place(
    tx: Reader, order: RoomOrder, wanted: Filters, direct: Set[str]
) -> list[Check]:
    checks: list[Check] = []
    if wanted.is_dm is not None:
        checks.append(lambda room: (room in direct) == wanted.is_dm)
    if wanted.is_invited is not None:
        own = order.rooms
        checks.append(lambda room: (own[room].membership == "invite") == wanted.is_invited)
    if wanted.spaces is not None:
        children = _children(tx, set(wanted.spaces) & order.joined)
        checks.append(lambda room: room in children)
    return checks


def _children(tx: Reader, spaces: Set[str]) -> set[str]:
    """Return the children of these spaces; one without `via` has been removed.

    Spec: client-server-api#mspacechild-relationship
    """
    found = tx.sql.execute(_CHILDREN, {"spaces": sorted(spaces)}) if spaces else ()
    return {room_id for room_id, pdu in found if orjson.loads(pdu)["content"].get("via")}
