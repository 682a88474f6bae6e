"""The joined rooms of an answer of sliding sync: those that have news, and what of them is told.

Nothing here goes through all rooms of a user but over the few that are new to the connection, have
events, or are wanted in greater detail than before.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import text

from app.caches import ClientEvent, Requester
from app.core.people import ignored_users
from app.core.push import counts
from app.core.rooms import aggregations, client_events, state, visibility
from app.core.sync import sliding_state, spans, summaries
from app.core.sync.sliding_asks import Config
from app.core.sync.sliding_order import Changes
from app.core.sync.sliding_state import News
from app.core.sync.sliding_told import Told, ToldRoom
from app.core.sync.spans import Span
from app.core.sync.tokens import SyncToken
from app.db import Reader
from app.spec.events import Json, StateKey
from app.spec.filters import RoomEventFilter

_BUMPING: Final = frozenset(
    {
        "m.room.create",
        "m.room.message",
        "m.room.encrypted",
        "m.sticker",
        "m.call.invite",
        "m.poll.start",
        "m.beacon_info",
    }
)
_MAX_SCANNED: Final = 5000
# In a room where for so long nobody has said anything, the oldest event looked at counts: it only
# ever moves forward, as the newest message does
_BUMPS = text(
    "SELECT room.key AS room_id, coalesce("
    " (SELECT position FROM (SELECT position, type, sender FROM events"
    "   WHERE room_id = room.key AND position <= :upto ORDER BY position DESC LIMIT :most)"
    "  WHERE type IN (SELECT value FROM json_each(:types))"
    "  AND sender NOT IN (SELECT value FROM json_each(:ignored)) LIMIT 1),"
    " (SELECT position FROM events WHERE room_id = room.key AND position <= :upto"
    "  ORDER BY position DESC LIMIT 1 OFFSET :most - 1),"
    " room.value) AS bump FROM json_each(:rooms) AS room"
)
_NAME: Final[StateKey] = ("m.room.name", "")
_AVATAR: Final[StateKey] = ("m.room.avatar", "")


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
    held = sliding_state.load(tx, asker.user_id, found)
    shown = [one for one in found if _is_news(one, held[one.span.room_id])]
    entries = _entries(tx, asker, shown, held, told)
    bumps = _bumps(tx, asker.user_id, shown, changes)
    for room_id, bump in bumps.items():
        entries[room_id]["bump_stamp"] = bump
    counted = {room for room in changes.read | regrouped if room in wanted and room in told.rooms}
    for room_id in counted - entries.keys():
        entries[room_id] = {"membership": "join", "bump_stamp": told.rooms[room_id].bump}
    _add_counts(tx, asker.user_id, entries)
    after = {one.span.room_id: _after(one, bumps) for one in found}
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
    entries: dict[str, Json] = {}
    for one in shown:
        span = one.span
        entry: Json = {"initial": True} if one.is_initial else {}
        if one.is_expanded:
            entry["unstable_expanded_timeline"] = True
        own = visibility.memberships(tx, asker.user_id, span.room_id, span.timeline, is_quick=True)
        entries[span.room_id] = entry | {
            "membership": "join",
            "required_state": client_events.encode_all(
                held[span.room_id], tx.now_ms, asker, with_room_id=False
            ),
            "timeline": client_events.encode_all(
                span.timeline,
                tx.now_ms,
                asker,
                with_room_id=False,
                bundles=bundles,
                memberships=own,
            ),
            "prev_batch": str(SyncToken(span.boundary)),
            "limited": span.is_limited,
            "num_live": _live(span, told.position),
            **names(tx, span.room_id, one),
        }
    _add_summaries(tx, asker.user_id, shown, entries)
    return entries


def _live(span: Span, position: int) -> int:
    """How many events have happened since the last answer."""
    return sum(position < event.position for event in span.timeline) if position else 0


def names(tx: Reader, room_id: str, one: News | None) -> Json:
    """Name and avatar, where the client does not know them; None: it has been taken away."""
    held = state.current_many(tx, room_id, [_NAME, _AVATAR])
    found: Json = {}
    for key, field, name in ((_NAME, "name", "name"), (_AVATAR, "url", "avatar")):
        if one is not None and not one.is_initial and key not in one.changed:
            continue
        value = held[key].content.get(field) if key in held else None
        if isinstance(value, str) and value:
            found[name] = value
        elif one is not None and not one.is_initial:
            found[name] = None
    return found


def _add_summaries(
    tx: Reader, user_id: str, shown: Iterable[News], entries: dict[str, Json]
) -> None:
    """Who is there, and after whom the room is called, where that may have changed."""
    changed = [
        one.span.room_id
        for one in shown
        if one.is_initial or any(key[0] == state.MEMBER or key == _NAME for key in one.changed)
    ]
    for room_id, summary in summaries.load(tx, user_id, changed).items() if changed else ():
        entry = entries[room_id]
        entry["joined_count"] = summary["m.joined_member_count"]
        entry["invited_count"] = summary["m.invited_member_count"]
        if summary.get("m.heroes"):
            keys = [(state.MEMBER, user) for user in summary["m.heroes"]]
            members = state.current_many(tx, room_id, keys)
            entry["heroes"] = [_hero(key[1], event.content) for key, event in members.items()]


def _hero(user_id: str, content: Json) -> Json:
    named = {key: content.get(key) for key in ("displayname", "avatar_url")}
    return {"user_id": user_id, **{key: value for key, value in named.items() if value}}


def _add_counts(tx: Reader, user_id: str, entries: dict[str, Json]) -> None:
    unread = counts.unread_in(tx, user_id, entries.keys()) if entries else {}
    for room_id, entry in entries.items():
        pairs = unread.get(room_id, {}).values()
        entry["notification_count"] = sum(pair[0] for pair in pairs)
        entry["highlight_count"] = sum(pair[1] for pair in pairs)


def _bumps(tx: Reader, user_id: str, shown: list[News], changes: Changes) -> dict[str, int]:
    """{room_id: the position of the last thing that was said in it}; it never goes back."""
    found: dict[str, int] = {}
    asked: dict[str, int] = {}
    for one in shown:
        room_id = one.span.room_id
        if one.before is None:
            asked[room_id] = changes.order.rooms[room_id].since
        elif one.has_gap:
            asked[room_id] = one.before.bump
        else:
            said = [it.position for it in one.span.timeline if it.type in _BUMPING]
            found[room_id] = max([one.before.bump, *said])
    if not asked:
        return found
    values = {
        "rooms": orjson.dumps(asked).decode(),
        "types": orjson.dumps(sorted(_BUMPING)).decode(),
        "ignored": orjson.dumps(sorted(ignored_users.of(tx, user_id))).decode(),
        "upto": tx.position,
        "most": _MAX_SCANNED,
    }
    before = {one.span.room_id: one.before.bump for one in shown if one.before is not None}
    for room_id, bump in tx.sql.execute(_BUMPS, values):
        found[room_id] = max(bump, before.get(room_id, 0))
    return found


def _after(one: News, bumps: Mapping[str, int]) -> ToldRoom:
    """What the connection knows of the room with this answer."""
    before, wanted = one.before, one.config
    if before is None:
        return ToldRoom(wanted, "join", bumps[one.span.room_id], members=one.members)
    # what it was told of and does not want now it still knows, as long as that stays as it is
    is_known = not any(before.config.wants(key) and not wanted.wants(key) for key in one.changed)
    required = wanted.required | before.config.required if is_known else wanted.required
    limit = wanted.limit if one.has_gap else max(wanted.limit, before.config.limit)
    config = Config(limit, required)
    if before.config == config:
        config = before.config
    bump = bumps.get(one.span.room_id, before.bump)
    return ToldRoom(config, "join", bump, members=one.members)
