"""The joined rooms of an answer of sliding sync: those that have news, and what of them is told.

Nothing here goes through all rooms of a user but over the few that are new to the connection, have
events, or are wanted in greater detail than before.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass

from homebody.core.events import aggregations, client_events, visibility
from homebody.core.sliding_sync import state, summaries
from homebody.core.sliding_sync.order import Changes
from homebody.core.sliding_sync.requests import MAX_DIFFERENT_PATTERNS, Config, Configs
from homebody.core.sliding_sync.sent import Told, ToldRoom
from homebody.core.sliding_sync.state import News
from homebody.core.sync import spans
from homebody.core.sync.spans import ROOMS_BETWEEN_BREATHS, Span
from homebody.core.sync.tokens import SyncToken
from homebody.spec.events import Json
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader


@dataclass(frozen=True, slots=True)
class Rooms:
    """What there is to tell of joined rooms."""

    entries: dict[str, Json]
    told: dict[str, ToldRoom]
    """What the connection then knows of those that were looked at."""
    events: Mapping[str, Set[str]]
    """{room_id: ids of the events shown} where some are older than the last answer."""


def load(
    tx: Reader,
    asker: Requester,
    wanted: Mapping[str, Config],
    told: Told,
    changes: Changes,
    regrouped: Set[str],
) -> Rooms:
    """The entries of joined rooms with news; `regrouped` are those that (no longer) are for two."""
    found = [
        one
        for room_id, config in wanted.items()
        if (one := _news(tx, room_id, config, told, changes)) is not None
    ]
    _fill(tx, asker.user_id, found)
    held = state.load(tx, asker.user_id, found)
    shown = [one for one in found if _is_news(one, held[one.span.room_id])]
    entries = _entries(tx, asker, shown, held, told)
    bumps = summaries.bumps(tx, asker.user_id, shown, changes.order)
    for room_id, bump in bumps.items():
        entries[room_id]["bump_stamp"] = bump
    counted = {room for room in changes.read | regrouped if room in wanted and room in told.rooms}
    for room_id in counted - entries.keys():
        entries[room_id] = {"membership": "join", "bump_stamp": told.rooms[room_id].bump}
    summaries.add_counts(tx, asker.user_id, entries)
    configs = Configs()
    after = {one.span.room_id: _after(one, bumps, configs) for one in found}
    older = {
        one.span.room_id: {event.event_id for event in one.span.timeline}
        for one in shown
        if one.is_initial or one.is_expanded
    }
    return Rooms(entries, after, older)


def _news(tx: Reader, room_id: str, config: Config, told: Told, changes: Changes) -> News | None:
    """The room if there may be something to tell of it."""
    before = told.rooms.get(room_id)
    if before is None or before.membership != "join" or room_id in changes.anew:
        return News(Span(room_id, 0, tx.position), config, 0, None)
    is_expanded = config.limit > before.config.limit
    is_busy = room_id in changes.busy or before.behind_since is not None
    if not is_busy and before.config.covers(config):
        return None
    since = told.position if before.behind_since is None else before.behind_since
    span = Span(room_id, 0 if is_expanded else since, tx.position)
    return News(span, config, since, before, is_expanded=is_expanded)


def _fill(tx: Reader, user_id: str, found: Collection[News]) -> None:
    """Find the timelines; rooms of which equally much is wanted go together."""
    for limit in {one.config.limit for one in found}:
        some = [one.span for one in found if one.config.limit == limit]
        spans.fill(tx, user_id, some, RoomEventFilter(limit=limit))
    for one in found:  # only of a limited timeline clients expect events that they have already
        one.span.is_limited |= one.is_expanded


def _is_news(one: News, held: list[ClientEvent]) -> bool:
    if one.is_initial or one.is_expanded or held:
        return True
    if one.before is not None and one.before.behind_since is not None:
        return True  # its counts may be others
    return bool(one.span.timeline) or one.span.is_limited


def _entries(
    tx: Reader,
    asker: Requester,
    shown: list[News],
    held: Mapping[str, list[ClientEvent]],
    told: Told,
) -> dict[str, Json]:
    # where there is no gap, the timeline itself tells what relates to its events
    gappy = [one for one in shown if one.is_initial or one.has_gap]
    bundles = aggregations.bundles(tx, asker, [it for one in gappy for it in one.span.timeline])
    own = visibility.memberships(
        tx, asker.user_id, (it for one in shown for it in one.span.timeline)
    )
    entries: dict[str, Json] = {}
    for one in tx.breathing(shown, ROOMS_BETWEEN_BREATHS):
        span = one.span
        entry: Json = {"initial": True} if one.is_initial else {}
        if one.is_expanded:
            entry["unstable_expanded_timeline"] = True
        entries[span.room_id] = entry | {
            "membership": "join",
            "required_state": client_events.encode_state(
                tx, asker, held[span.room_id], with_room_id=False
            ),
            "timeline": client_events.encode_all(
                tx,
                asker,
                span.timeline,
                with_room_id=False,
                bundles=bundles,
                memberships=own,
            ),
            "prev_batch": str(SyncToken(span.boundary)),
            "limited": span.is_limited,
            "num_live": _live(span, told.position),
            **summaries.names(tx, one),
        }
    summaries.add_members(tx, asker.user_id, shown, entries)
    return entries


def _live(span: Span, position: int) -> int:
    """How many events have happened since the last answer."""
    return sum(position < event.position for event in span.timeline) if position else 0


def _after(one: News, bumps: Mapping[str, int], configs: Configs) -> ToldRoom:
    """What the connection knows of the room with this answer."""
    before, wanted = one.before, one.config
    if before is None:
        return ToldRoom(wanted, "join", bumps[one.span.room_id], members=one.members)
    # what it was told of and does not want now it still knows, as long as that stays as it is
    is_known = not any(before.config.wants(key) and not wanted.wants(key) for key in one.changed)
    required = wanted.required | before.config.required if is_known else wanted.required
    limit = wanted.limit if one.has_gap else max(wanted.limit, before.config.limit)
    if len(required) > MAX_DIFFERENT_PATTERNS:  # of many requests: some is sent again
        required = wanted.required
    config = Config(limit, required)
    config = before.config if before.config == config else configs.shared(config)
    bump = bumps.get(one.span.room_id, before.bump)
    return ToldRoom(config, "join", bump, members=one.members)
