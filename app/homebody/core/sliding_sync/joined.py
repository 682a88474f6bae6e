"""The joined rooms of a sliding sync response.

Only rooms that are new to the connection, have changes, or are wanted in more detail than before
are processed, never all rooms of the user.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

from homebody.core.events import aggregations, client_events, visibility
from homebody.core.sliding_sync import required_state, summaries
from homebody.core.sliding_sync.order import Changes
from homebody.core.sliding_sync.requests import MAX_DIFFERENT_PATTERNS, RoomConfig
from homebody.core.sliding_sync.required_state import RoomUpdate
from homebody.core.sliding_sync.states import ConnectionState, SentRoom
from homebody.core.sync import spans
from homebody.core.sync.spans import ROOMS_BETWEEN_PAUSES, Span, SyncToken
from homebody.spec.events import Json
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader


@dataclass(frozen=True, slots=True)
class LoadedRooms:
    """The rooms to send."""

    entries: dict[str, Json]
    sent: dict[str, SentRoom]
    """The new state of the rooms that were processed, for the connection state."""
    timelines: Mapping[str, Set[str]]
    """{room_id: event IDs} of timelines that may have events older than the last response."""


def load(
    tx: Reader,
    requester: Requester,
    wanted: Mapping[str, RoomConfig],
    previous: ConnectionState,
    changes: Changes,
    *,
    has_counts: bool,
) -> LoadedRooms:
    """Return the changed joined rooms; with `has_counts`, their unread counts."""
    found = [
        update
        for room_id in _candidates(wanted, previous, changes)
        if (update := _update(tx, room_id, wanted[room_id], previous, changes)) is not None
    ]
    _load_timelines(tx, requester.user_id, found)
    held = required_state.load(tx, requester.user_id, found)
    shown = [update for update in found if _is_update(update, held[update.span.room_id])]
    entries = _entries(tx, requester, shown, held, previous)
    bumps = summaries.bumps(tx, requester.user_id, shown, changes.order)
    for room_id, bump in bumps.items():
        entries[room_id]["bump_stamp"] = bump
    counted = changes.read | changes.direct if has_counts else changes.direct
    counted = counted & wanted.keys() & previous.rooms.keys()
    for room_id in counted - entries.keys():
        entries[room_id] = {"membership": "join", "bump_stamp": previous.rooms[room_id].bump_stamp}
    if has_counts:
        summaries.add_counts(tx, requester.user_id, entries)
    configs: dict[RoomConfig, RoomConfig] = {}
    after = {update.span.room_id: _after(update, bumps, configs) for update in found}
    timelines = {
        update.span.room_id: {event.event_id for event in update.span.timeline}
        for update in shown
        if update.is_initial or update.is_expanded
    }
    return LoadedRooms(entries, after, timelines)


def _candidates(
    wanted: Mapping[str, RoomConfig], previous: ConnectionState, changes: Changes
) -> Iterator[str]:
    """Yield the rooms of which there may be something to send; of a thousand rooms usually one."""
    before, changed = previous.rooms, changes.with_new_events | changes.newly_joined
    covered: dict[tuple[int, int], bool] = {}
    for room_id, config in wanted.items():
        sent = before.get(room_id)
        if sent is None or sent.stale_since is not None or room_id in changed:
            yield room_id
            continue
        pair = id(sent.config), id(config)
        if pair not in covered:
            covered[pair] = sent.config.covers(config)
        if not covered[pair] or sent.membership != "join":
            yield room_id


def _update(
    tx: Reader, room_id: str, config: RoomConfig, previous: ConnectionState, changes: Changes
) -> RoomUpdate | None:
    """Return the update of a room if there may be something to send."""
    before = previous.rooms.get(room_id)
    is_new = room_id in changes.newly_joined
    if room_id in changes.completed:  # for a client that wants all members
        is_new |= config.wants_all_members
    if before is None or before.membership != "join" or before.stale_since == 0 or is_new:
        return RoomUpdate(Span(room_id, 0, tx.position), config, 0, None)
    is_expanded = config.limit > before.config.limit
    is_busy = room_id in changes.with_new_events or before.stale_since is not None
    if not is_busy and before.config.covers(config):
        return None
    since = previous.position if before.stale_since is None else before.stale_since
    span = Span(room_id, 0 if is_expanded else since, tx.position)
    return RoomUpdate(span, config, since, before, is_expanded=is_expanded)


def _load_timelines(tx: Reader, user_id: str, found: Collection[RoomUpdate]) -> None:
    """Load the timelines, with one query for all rooms with the same limit."""
    for limit in {update.config.limit for update in found}:
        some = [update.span for update in found if update.config.limit == limit]
        spans.fill(tx, user_id, some, RoomEventFilter(limit=limit))
    for update in found:  # clients expect events that they already have only in limited timelines
        update.span.is_limited |= update.is_expanded


def _is_update(update: RoomUpdate, held: list[ClientEvent]) -> bool:
    if update.is_initial or update.is_expanded or update.has_reset or held:
        return True
    if update.before is not None and update.before.stale_since is not None:
        return True  # its counts may have changed
    return bool(update.span.timeline) or update.span.is_limited


def _entries(
    tx: Reader,
    requester: Requester,
    shown: list[RoomUpdate],
    held: Mapping[str, list[ClientEvent]],
    previous: ConnectionState,
) -> dict[str, Json]:
    # without a gap, the timeline itself has everything related to its events
    gappy = [update for update in shown if update.is_initial or update.has_gap]
    gappy_events = [event for update in gappy for event in update.span.timeline]
    bundles = aggregations.bundles(tx, requester, gappy_events)
    events = (event for update in shown for event in update.span.timeline)
    own = visibility.memberships(tx, requester.user_id, events)
    entries: dict[str, Json] = {}
    for update in tx.pausing(shown, ROOMS_BETWEEN_PAUSES):
        span = update.span
        entry: Json = {"initial": True} if update.is_initial else {}
        if update.is_expanded:
            entry["expanded_timeline"] = True
        entries[span.room_id] = entry | {
            "membership": "join",
            "required_state": [
                *client_events.encode_state(tx, requester, held[span.room_id], with_room_id=False),
                *({"type": kind, "state_key": key} for kind, key in sorted(update.removed)),
            ],
            "timeline": client_events.encode_all(
                tx, requester, span.timeline, with_room_id=False, bundles=bundles, memberships=own
            ),
            "prev_batch": str(SyncToken(span.boundary)),
            "limited": span.is_limited,
            "num_live": sum(0 < previous.live_since < event.position for event in span.timeline),
            **summaries.names(tx, update),
        }
    summaries.add_members(tx, requester.user_id, shown, entries)
    return entries


def _after(
    update: RoomUpdate, bumps: Mapping[str, int], configs: dict[RoomConfig, RoomConfig]
) -> SentRoom:
    """Return the new state of a room."""
    before, wanted = update.before, update.config
    if before is None:
        return SentRoom(wanted, "join", bumps[update.span.room_id], members=update.members)
    # State that was sent and is no longer wanted counts as sent as long as it doesn't change.
    is_known = not any(before.config.wants(key) and not wanted.wants(key) for key in update.changed)
    limit = wanted.limit if update.has_gap else max(wanted.limit, before.config.limit)
    config = RoomConfig(
        limit,
        wanted.required | before.config.required,
        wanted.selections | before.config.selections,
    )
    # one that has grown over many requests is dropped: some state is sent again
    if not is_known or config.pattern_count > MAX_DIFFERENT_PATTERNS:
        config = RoomConfig(limit, wanted.required, wanted.selections)
    config = before.config if before.config == config else configs.setdefault(config, config)
    bump = bumps.get(update.span.room_id, before.bump_stamp)
    return SentRoom(config, "join", bump, members=update.members)
