"""Simplified sliding sync: the most active rooms first, and of each no more than is asked for.

As deployed for Element X (MSC4186's unstable form). A list is a window onto the user's rooms, which
are sorted by their last event. What a connection was told stands in its `Told`; an answer says what
has happened since. Where nothing has, that costs a few statements and nothing for each room.

    what is asked           sliding_asks.py      what was sent      sliding_told.py
    the connections         sliding_connections.py
    the sorted rooms        sliding_order.py     filters of lists   sliding_filters.py
    joined rooms            sliding_rooms.py     their state        sliding_state.py
    names, counts, stamps   sliding_summaries.py
    invites, rooms left     sliding_others.py    extensions         sliding_extensions.py

Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field

from homebody.core.sliding_sync import filters, others, requests
from homebody.core.sliding_sync import order as sliding_order
from homebody.core.sliding_sync import rooms as sliding_rooms
from homebody.core.sliding_sync.order import Changes, Order
from homebody.core.sliding_sync.others import GONE
from homebody.core.sliding_sync.requests import Config, Configs, RoomList, Windows
from homebody.core.sliding_sync.sent import Told, ToldRoom
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

_DIRECT = "m.direct"


@dataclass(frozen=True, slots=True)
class Found:
    """The rooms of an answer."""

    rooms: dict[str, Json]
    told: Told
    """What the connection then knows; not yet of extensions."""
    changes: Changes
    windows: Mapping[str, Set[str]]
    """The rooms in sight, by the name of the list."""
    events: Mapping[str, Set[str]] = field(default_factory=dict)
    """{room_id: ids of the events shown} where some are older than the last answer."""
    subscribed: Set[str] = frozenset()
    """The rooms that the request names; not filled in where nothing has changed."""


@dataclass(frozen=True, slots=True)
class _Sight:
    """What of the user's rooms is looked at."""

    wanted: dict[str, Config]
    counted: dict[str, Json]
    windows: dict[str, Set[str]]


def rooms(tx: Reader, asker: Requester, asked: Windows, told: Told) -> Found:
    """What is new in the windows and subscribed rooms."""
    user_id = asker.user_id
    are_wanted = bool(asked.lists or asked.room_subscriptions or told.rooms)
    changes = sliding_order.since(
        tx, user_id, told.order, told.position, are_rooms_wanted=are_wanted
    )
    digest = asked.digest()
    now = dataclasses.replace(told, position=tx.position, asked=digest, order=changes.order)
    is_same = bool(told.position) and digest == told.asked
    if is_same and not changes.is_something:
        return Found({}, now, changes, {})
    for_two = told.direct
    if not told.position or any(it["type"] == _DIRECT for it in changes.data.get("", ())):
        for_two = filters.direct(tx, user_id)
    kinds = told.kinds
    if filters.asks_for_kinds(asked.lists.values()):
        kinds = filters.kinds(tx, user_id, changes.order, kinds, changes.busy)
    now = dataclasses.replace(now, direct=for_two, kinds=kinds)
    sight = _sight(tx, user_id, asked, now)
    regrouped = told.direct ^ for_two if told.position else frozenset[str]()
    found = _found(tx, asker, sight, told, changes, regrouped)
    for room_id, entry in found.rooms.items():
        before = told.rooms.get(room_id)
        was_out_of_sight = before is not None and before.behind_since is not None
        if room_id in for_two or room_id in regrouped or was_out_of_sight:
            entry["is_dm"] = room_id in for_two
    known = {**told.rooms, **found.told}
    _note_missed(known, told, sight.wanted, changes, regrouped)
    for room_id in found.gone:
        known.pop(room_id, None)
    now = dataclasses.replace(now, rooms=known, lists=sight.counted)
    subscribed = asked.room_subscriptions.keys()
    return Found(found.rooms, now, changes, sight.windows, found.events, subscribed)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What was found of rooms of all kinds."""

    rooms: dict[str, Json]
    told: dict[str, ToldRoom]
    gone: Set[str]
    """Rooms that the connection need not know any more."""
    events: Mapping[str, Set[str]]


def _found(
    tx: Reader,
    asker: Requester,
    sight: _Sight,
    told: Told,
    changes: Changes,
    regrouped: Set[str],
) -> _Parts:
    order = changes.order
    joined: dict[str, Config] = {}
    shown: dict[str, Json] = {}
    known: dict[str, ToldRoom] = {}
    gone = _gone(told, changes)
    for room_id in gone:
        entry = others.left(tx, asker, room_id, told.rooms[room_id], told)
        if entry is not None:
            shown[room_id] = entry
        if room_id in order.rooms and entry is not None:
            config = told.rooms[room_id].config
            room = order.rooms[room_id]
            known[room_id] = ToldRoom(config, room.membership, room.since)
    for room_id, config in sight.wanted.items():
        room = order.rooms[room_id]
        if room.membership == "join":
            joined[room_id] = config
        elif room_id not in gone and _is_news_of_other(told.rooms.get(room_id), order, room_id):
            entry = _other(tx, asker, order, room_id, config)
            if entry is not None:
                shown[room_id] = entry
                behind = _behind_since(told, room_id)
                known[room_id] = ToldRoom(config, room.membership, room.since, behind)
    mine = sliding_rooms.load(tx, asker, joined, told, changes, regrouped)
    return _Parts(shown | mine.entries, known | mine.told, gone - known.keys(), mine.events)


def _sight(tx: Reader, user_id: str, asked: Windows, now: Told) -> _Sight:
    """Put the windows onto the sorted rooms."""
    sight, configs = _Sight({}, {}, {}), Configs()
    for name, one in asked.lists.items():
        ids = filters.matching(tx, user_id, now.order, one.filters, now.direct, now.kinds)
        sight.counted[name] = {"count": len(ids)}
        seen = set(_in_ranges(ids, one))
        sight.windows[name] = seen
        _want(sight.wanted, seen, requests.config(user_id, one), configs)
    for room_id, subscription in asked.room_subscriptions.items():
        if room_id in now.order.rooms:
            _want(sight.wanted, [room_id], requests.config(user_id, subscription), configs)
    # in the order of the rooms, as clients like to show them so before they have sorted them
    sight_ids = [room_id for room_id in now.order.ids if room_id in sight.wanted]
    return dataclasses.replace(sight, wanted={room: sight.wanted[room] for room in sight_ids})


def _in_ranges(ids: list[str], one: RoomList) -> Iterable[str]:
    if one.ranges is None:
        yield from ids
        return
    for first, last in one.ranges:
        yield from ids[first : last + 1]


def _want(
    wanted: dict[str, Config], room_ids: Iterable[str], config: Config, configs: Configs
) -> None:
    for room_id in room_ids:
        both = wanted[room_id] | config if room_id in wanted else config
        wanted[room_id] = configs.shared(both)


def _gone(told: Told, changes: Changes) -> set[str]:
    """The rooms that the connection knows and in which the user is no more, nor is invited."""
    now = changes.order.rooms
    return {
        room_id
        for room_id in changes.moved & told.rooms.keys()
        if room_id not in now
        or (now[room_id].membership in GONE and told.rooms[room_id].membership not in GONE)
    }


def _is_news_of_other(before: ToldRoom | None, order: Order, room_id: str) -> bool:
    """Whether an invite, a knock or a kick is not known."""
    room = order.rooms[room_id]
    return before is None or (before.membership, before.bump) != (room.membership, room.since)


def _behind_since(told: Told, room_id: str) -> int | None:
    """Return since when the connection has not heard of a room that the user had joined.

    Somebody may leave and be invited again between two looks: the invite alone is shown, and what
    was said before the leave comes when the invite ends.
    """
    before = told.rooms.get(room_id)
    if before is None or before.behind_since is not None:
        return None if before is None else before.behind_since
    return told.position if before.membership == "join" else None


def _other(tx: Reader, asker: Requester, order: Order, room_id: str, config: Config) -> Json | None:
    room = order.rooms[room_id]
    if room.membership in GONE:
        return others.kicked(tx, asker, room_id, room, config)
    return others.preview(tx, asker.user_id, room_id, room)


def _note_missed(
    known: dict[str, ToldRoom],
    told: Told,
    wanted: Mapping[str, Config],
    changes: Changes,
    regrouped: Set[str],
) -> None:
    """Remember of rooms out of sight since when the connection knows less than all of them."""
    for room_id in (changes.busy | changes.read | regrouped) & told.rooms.keys():
        room = known[room_id]
        if room_id not in wanted and room.membership == "join" and room.behind_since is None:
            known[room_id] = dataclasses.replace(room, behind_since=told.position)
    for room_id in (changes.anew & told.rooms.keys()) - wanted.keys():
        del known[room_id]  # it was left in between: all of it is new
