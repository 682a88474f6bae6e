"""Simplified sliding sync: the most active rooms first, with only as much data as requested.

A list is a window onto the rooms sorted by their last event. What was sent on a connection is its
`ConnectionState`; a response has the changes since. If nothing has changed, it takes a few queries,
none of them per room. Two dialects of MSC4186 are translated from and to what is used here.

    requests.py         what is wanted          connections.py      states, by `pos`
    merged.py           the proposal's dialect  deployed.py         that of Element X
    order.py            the sorted rooms        filters.py          filters of lists
    joined.py           joined rooms            required_state.py   their state
    summaries.py        name, members, counts   not_joined.py       invites and rooms left
    extensions.py       everything but rooms    profile_updates.py  profiles
    states.py           what was sent           kept_states.py      connections over a restart

Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final

from homebody.core.sliding_sync import filters, joined, not_joined
from homebody.core.sliding_sync import order as room_order
from homebody.core.sliding_sync.joined import LoadedRooms
from homebody.core.sliding_sync.not_joined import GONE
from homebody.core.sliding_sync.order import Changes, OwnMembership
from homebody.core.sliding_sync.requests import RoomConfig, RoomList, SlidingSyncRequest
from homebody.core.sliding_sync.states import ConnectionState, SentRoom
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

LISTS_BETWEEN_PAUSES: Final = 5
_DIRECT: Final = "m.direct"


@dataclass(frozen=True, slots=True)
class RoomsResult:
    """The rooms of a response."""

    rooms: dict[str, Json]
    state: ConnectionState
    """The new state of the connection, without extensions."""
    changes: Changes
    windows: Mapping[str, Set[str]] = field(default_factory=dict)
    """{list name: the rooms in its window}; empty if nothing has changed, as are the others."""
    timelines: Mapping[str, Set[str]] = field(default_factory=dict)
    """{room_id: event IDs} of timelines that may have events older than the last response."""
    subscribed: Set[str] = frozenset()
    joined: frozenset[str] = frozenset()
    """Joined rooms that were sent on the connection."""


@dataclass(frozen=True, slots=True)
class _Selection:
    """The rooms in windows and subscriptions."""

    configs: dict[str, RoomConfig]
    """In the order of the rooms, as clients show them before they have sorted them."""
    counts: dict[str, Json]
    windows: dict[str, Set[str]]
    left: dict[str, OwnMembership]
    """Subscribed rooms that no list has, as the user has left them."""


def rooms(
    tx: Reader, requester: Requester, request: SlidingSyncRequest, previous: ConnectionState
) -> RoomsResult:
    """Return the changes in the windows and subscribed rooms since the previous state."""
    user_id = requester.user_id
    with_rooms = bool(request.lists or request.room_subscriptions or previous.rooms)
    position = previous.position
    changes = room_order.since(tx, user_id, previous.order, position, with_rooms=with_rooms)
    is_same_request = bool(position) and request.digest == previous.request_digest
    state = dataclasses.replace(
        previous,
        position=tx.position,
        request_digest=request.digest,
        order=changes.order,
        touched=frozenset(),
        received=0,
    )
    if is_same_request and not changes.has_any:
        return RoomsResult({}, state, changes)
    state = _with_properties(tx, user_id, request, state, changes, is_first=not position)
    selection = _select(tx, user_id, request, state)
    if position:
        changes = dataclasses.replace(changes, direct=previous.direct ^ state.direct)
    gone = _gone(previous, changes)
    loaded = _load(tx, requester, request, selection, previous, changes, gone)
    _add_is_dm(loaded.entries, previous, state, changes)
    sent = {**previous.rooms, **loaded.sent}
    _mark_stale(sent, previous, selection.configs, changes)
    for room_id in gone - loaded.sent.keys():
        sent.pop(room_id, None)
    touched = frozenset(loaded.entries)
    return RoomsResult(
        loaded.entries,
        dataclasses.replace(state, rooms=sent, lists=selection.counts, touched=touched),
        changes,
        selection.windows,
        loaded.timelines,
        request.room_subscriptions.keys(),
        frozenset(sent.keys() & changes.order.joined),
    )


def _add_is_dm(
    entries: Mapping[str, Json], previous: ConnectionState, state: ConnectionState, changes: Changes
) -> None:
    """Say which rooms are direct chats, and which may not be any more."""
    for room_id, entry in entries.items():
        before = previous.rooms.get(room_id)
        was_stale = before is not None and before.stale_since is not None
        if room_id in state.direct or room_id in changes.direct or was_stale:
            entry["is_dm"] = room_id in state.direct


def _with_properties(
    tx: Reader,
    user_id: str,
    request: SlidingSyncRequest,
    state: ConnectionState,
    changes: Changes,
    *,
    is_first: bool,
) -> ConnectionState:
    """Return the state with the properties of rooms that filters need."""
    direct, properties = state.direct, state.properties
    if is_first or any(it["type"] == _DIRECT for it in changes.account_data.get("", ())):
        direct = filters.direct_rooms(tx, user_id)
    if filters.need_properties(request.lists.values()):
        busy = changes.with_new_events
        properties = filters.properties(tx, user_id, changes.order, properties, busy)
    return dataclasses.replace(state, direct=direct, properties=properties)


def _select(
    tx: Reader, user_id: str, request: SlidingSyncRequest, state: ConnectionState
) -> _Selection:
    """Apply lists and subscriptions to the sorted rooms."""
    configs: dict[str, RoomConfig] = {}
    counts: dict[str, Json] = {}
    windows: dict[str, Set[str]] = {}
    shared: dict[RoomConfig, RoomConfig] = {}

    def add(room_ids: Set[str], config: RoomConfig) -> None:
        config = shared.setdefault(config, config)  # one object for equal configs
        again = room_ids & configs.keys()
        for room_id in again:
            both = configs[room_id] | config
            configs[room_id] = shared.setdefault(both, both)
        configs.update(dict.fromkeys(room_ids - again, config))

    for name, one in tx.pausing(request.lists.items(), LISTS_BETWEEN_PAUSES):
        ids = filters.matching(
            tx, user_id, state.order, one.filters, state.direct, state.properties
        )
        counts[name] = {"count": len(ids)}
        windows[name] = set(_in_ranges(ids, one))
        add(windows[name], one.config)
    order, subscribed = state.order, request.room_subscriptions
    left = room_order.left(tx, user_id, [it for it in subscribed if it not in order.rooms])
    for room_id, config in subscribed.items():
        if room_id in order.rooms or room_id in left:
            add({room_id}, config)
    ids = [*order.ids, *left] if left else order.ids
    in_order = {room_id: configs[room_id] for room_id in ids if room_id in configs}
    return _Selection(in_order, counts, windows, left)


def _in_ranges(ids: list[str], one: RoomList) -> Iterable[str]:
    if one.ranges is None:
        yield from ids
        return
    for first, last in one.ranges:
        yield from ids[first : last + 1]


def _gone(previous: ConnectionState, changes: Changes) -> set[str]:
    """Return the rooms on the connection that the user has left or is no longer invited to."""
    now = changes.order.rooms
    return {
        room_id
        for room_id in changes.membership_changed & previous.rooms.keys()
        if room_id not in now
        or (now[room_id].membership in GONE and previous.rooms[room_id].membership not in GONE)
    }


def _load(
    tx: Reader,
    requester: Requester,
    request: SlidingSyncRequest,
    selection: _Selection,
    previous: ConnectionState,
    changes: Changes,
    gone: Set[str],
) -> LoadedRooms:
    memberships = (
        {**changes.order.rooms, **selection.left} if selection.left else changes.order.rooms
    )
    entries: dict[str, Json] = {}
    sent: dict[str, SentRoom] = {}
    for room_id in gone:
        before = previous.rooms[room_id]
        entry = not_joined.left(tx, requester, room_id, before, previous.position)
        if entry is not None:
            entries[room_id] = entry
            if (own := memberships.get(room_id)) is not None:
                sent[room_id] = SentRoom(before.config, own.membership, own.since)
    joined_configs: dict[str, RoomConfig] = {}
    for room_id, config in selection.configs.items():
        own = memberships[room_id]
        if own.membership == "join":
            joined_configs[room_id] = config
        elif room_id not in gone and _is_new(previous.rooms.get(room_id), own):
            entry = not_joined.load(tx, requester, room_id, own, config)
            if entry is not None:
                entries[room_id] = entry
                stale_since = _stale_since(previous, room_id)
                sent[room_id] = SentRoom(config, own.membership, own.since, stale_since)
    has_counts = not request.is_merged
    rooms = joined.load(tx, requester, joined_configs, previous, changes, has_counts=has_counts)
    return LoadedRooms(entries | rooms.entries, sent | rooms.sent, rooms.timelines)


def _is_new(before: SentRoom | None, own: OwnMembership) -> bool:
    """Return whether an invite, knock or leave has not been sent."""
    return before is None or (before.membership, before.bump_stamp) != (own.membership, own.since)


def _stale_since(previous: ConnectionState, room_id: str) -> int | None:
    """Return the last position sent of a room that the user is invited to again.

    Between two requests a user may leave a room and be invited again. Then only the invite is
    sent, and the events before the leave follow when the invite ends.
    """
    before = previous.rooms.get(room_id)
    if before is None or before.stale_since is not None:
        return None if before is None else before.stale_since
    return previous.position if before.membership == "join" else None


def _mark_stale(
    sent: dict[str, SentRoom],
    previous: ConnectionState,
    configs: Mapping[str, RoomConfig],
    changes: Changes,
) -> None:
    """Record for rooms outside all windows since when the client misses changes."""
    changed = changes.with_new_events | changes.read | changes.direct
    for room_id in changed & previous.rooms.keys():
        room = sent[room_id]
        if room_id not in configs and room.membership == "join" and room.stale_since is None:
            sent[room_id] = dataclasses.replace(room, stale_since=previous.position)
    anew = changes.newly_joined | changes.completed  # left in between, or without all members
    for room_id in (anew & previous.rooms.keys()) - configs.keys():
        del sent[room_id]
