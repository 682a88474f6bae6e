"""Which of the user's rooms a list of sliding sync is about.

What a filter asks of a room (whether it is encrypted, its type, its name) is kept with the
connection, and asked again only where something has happened.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Set
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select, text

from homebody.core.events import visibility
from homebody.core.sliding_sync.order import Order
from homebody.core.sliding_sync.requests import Filters, RoomList
from homebody.core.user_data import account_data
from homebody.models.account_data import AccountData
from homebody.models.base import NOW_AND_LATER
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader

# As of a position: nobody finds out by a filter what a room is called that they have left.
# The sums keep SQLite from an index by which it would read all members of the room.
_KINDS = text(
    "SELECT rooms.room_id, held.type, events.pdu FROM json_each(:rooms) AS one"
    " JOIN rooms ON rooms.room_id = one.key"
    " JOIN state_intervals AS held ON held.room_number = rooms.number AND held.state_key = ''"
    " AND held.type IN ('m.room.create', 'm.room.encryption', 'm.room.name')"
    " AND held.from_position <= one.value AND held.to_position + 0 > one.value"
    " JOIN events ON events.position = held.event_position"
)
_CHILDREN = text(
    "SELECT held.state_key, events.pdu FROM json_each(:spaces) AS space"
    " JOIN rooms ON rooms.room_id = space.value"
    " JOIN state_intervals AS held ON held.room_number = rooms.number"
    " AND held.type = 'm.space.child' AND held.to_position + 0 = :now"
    " JOIN events ON events.position = held.event_position"
)
_TAGGED = select(AccountData.room_id, AccountData.content).where(
    AccountData.user_id == bindparam("user_id"), AccountData.type == account_data.TAGS
)

Check = Callable[[str], bool]


class Kind(NamedTuple):
    """What filters ask of a room."""

    is_encrypted: bool = False
    type: str | None = None
    name: str = ""

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return 200 + 4 * (len(self.name) + len(self.type or ""))


PLAIN: Final = Kind()
MAX_NAME_LENGTH: Final = 255
"""Of what is kept of a room's name to search in; other names of rooms fill whole events."""


def direct(tx: Reader, user_id: str) -> frozenset[str]:
    """The rooms that the user keeps for two, whatever nonsense a client has put there."""
    content = account_data.find(tx, user_id, "m.direct") or {}
    named = [ids for ids in content.values() if isinstance(ids, list)]
    return frozenset(room_id for ids in named for room_id in ids if identifiers.is_room_id(room_id))


def asks_for_kinds(lists: Collection[RoomList]) -> bool:
    """Whether any list has a filter that has to know the rooms' kinds."""
    asked = [one.filters for one in lists if one.filters is not None]
    return any(
        it.is_encrypted is not None
        or it.room_types is not None
        or it.not_room_types
        or it.room_name_like is not None
        for it in asked
    )


def kinds(
    tx: Reader, user_id: str, order: Order, known: Mapping[str, Kind], busy: Set[str]
) -> Mapping[str, Kind]:
    """{room_id: its kind} of all rooms; asks for those that are not known, or may have changed.

    Of rooms that the user has left, as they were then: a ban may come much later.
    """
    asked = {
        room_id: tx.position for room_id in order.rooms if room_id not in known or room_id in busy
    }
    if not asked:
        return known
    gone = [room_id for room_id in asked if order.rooms[room_id].membership in {"leave", "ban"}]
    if gone:
        histories = visibility.histories(tx, user_id, gone)
        asked |= {room_id: history.joined_until for room_id, history in histories.items()}
    found = dict.fromkeys(asked, PLAIN)
    for room_id, event_type, pdu in tx.sql.execute(_KINDS, {"rooms": orjson.dumps(asked).decode()}):
        if event_type == "m.room.encryption":
            found[room_id] = found[room_id]._replace(is_encrypted=True)
            continue
        content = orjson.loads(pdu)["content"]
        if event_type == "m.room.create":
            found[room_id] = found[room_id]._replace(type=_text(content.get("type")))
        else:
            found[room_id] = found[room_id]._replace(name=_text(content.get("name")) or "")
    return {**{room_id: it for room_id, it in known.items() if room_id in order.rooms}, **found}


def _text(value: object) -> str | None:
    return value[:MAX_NAME_LENGTH] if isinstance(value, str) else None


def matching(
    tx: Reader,
    user_id: str,
    order: Order,
    wanted: Filters | None,
    for_two: Set[str],
    known: Mapping[str, Kind],
) -> list[str]:
    """The rooms that a list's filters admit, in their order."""
    if wanted is None:
        return order.ids
    checks = [
        *_checks_of_kind(wanted, known),
        *_checks_of_tags(tx, user_id, wanted),
        *_checks_of_place(tx, order, wanted, for_two),
    ]
    if not checks:
        return order.ids
    return [room_id for room_id in order.ids if all(check(room_id) for check in checks)]


def _checks_of_kind(wanted: Filters, known: Mapping[str, Kind]) -> list[Check]:
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


def _checks_of_place(tx: Reader, order: Order, wanted: Filters, for_two: Set[str]) -> list[Check]:
    checks: list[Check] = []
    if wanted.is_dm is not None:
        checks.append(lambda room: (room in for_two) == wanted.is_dm)
    if wanted.is_invite is not None:
        own = order.rooms
        checks.append(lambda room: (own[room].membership == "invite") == wanted.is_invite)
    if wanted.spaces is not None:
        children = _children(tx, set(wanted.spaces) & order.joined)
        checks.append(lambda room: room in children)
    return checks


def _children(tx: Reader, spaces: Set[str]) -> set[str]:
    """The rooms that stand in these spaces; one without `via` was taken out.

    Spec: client-server-api#mspacechild-relationship
    """
    asked = {"spaces": orjson.dumps(sorted(spaces)).decode(), "now": NOW_AND_LATER}
    found = tx.sql.execute(_CHILDREN, asked) if spaces else ()
    return {room_id for room_id, pdu in found if orjson.loads(pdu)["content"].get("via")}
