"""Simplified sliding sync: the newest rooms first, and of each no more than the client asks for.

As deployed for Element X (MSC4186's unstable form). Rooms are sorted by their last message; lists
are windows onto that order. What a connection was told stands in its `Told`, by which the next
answer leaves out what is known.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import orjson
from sqlalchemy import text

from app.caches import ClientEvent, Requester
from app.core.push import counts
from app.core.rooms import client_events, erasure, state
from app.core.sync import account_data, memberships, spans, summaries
from app.core.sync.spans import Span
from app.core.sync.sync import STRIPPED_STATE
from app.core.sync.tokens import SyncToken
from app.db import Reader
from app.models.base import NOW_AND_LATER
from app.spec import filters
from app.spec.events import Json, StateKey
from app.spec.filters import RoomEventFilter

_MAX_TIMELINE: Final = 100
_NAMES: Final[list[StateKey]] = [("m.room.name", ""), ("m.room.avatar", "")]
# The inner limit bounds the walk through a room where nobody has said anything for long
_ROOMS = text(
    "SELECT own.room_id, own.membership, own.from_position, own.event_position, coalesce("
    " (SELECT max(position) FROM (SELECT position, type FROM events"
    "  WHERE events.room_id = own.room_id ORDER BY position DESC LIMIT 200)"
    "  WHERE type IN ('m.room.create', 'm.room.message', 'm.room.encrypted', 'm.sticker',"
    "   'm.call.invite', 'm.poll.start', 'm.beacon_info')), own.from_position) AS bump"
    " FROM state_intervals AS own WHERE own.state_key = :user_id AND own.to_position = :now"
    " AND own.membership IN ('join', 'invite', 'knock')"
)
_STATE = (
    "SELECT held.room_id, held.type, held.state_key, held.event_position"
    " FROM json_each(:rooms) AS room JOIN state_intervals AS held ON held.room_id = room.key"
    " AND held.to_position = :now AND held.from_position > room.value"
)
_ALL_STATE = text(_STATE)
_STATE_WITHOUT_MEMBERS = text(_STATE + " AND held.membership IS NULL")
_KINDS = text(
    "SELECT held.room_id, held.type, events.pdu FROM json_each(:rooms) AS room"
    " JOIN state_intervals AS held ON held.room_id = room.value AND held.state_key = ''"
    " AND held.type IN ('m.room.create', 'm.room.encryption') AND held.to_position = :now"
    " JOIN events ON events.position = held.event_position"
)


class Filters(msgspec.Struct):
    """Which rooms a list is about."""

    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] = []


class Subscription(msgspec.Struct):
    """How much of a room the client wants to know."""

    timeline_limit: int = 0
    required_state: list[tuple[str, str]] = []


class RoomList(Subscription):
    """A window onto the sorted rooms."""

    ranges: list[tuple[int, int]] = []
    filters: Filters | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """What is asked of one room by all lists and subscriptions together."""

    limit: int
    required: frozenset[StateKey]

    def __or__(self, other: Config) -> Config:
        return Config(max(self.limit, other.limit), self.required | other.required)

    def covers(self, other: Config) -> bool:
        """Whether who asked for this has got all of the other."""
        return self.limit >= other.limit and self.required >= other.required


@dataclass(frozen=True, slots=True)
class ToldRoom:
    """What a connection knows of a room: all up to a position, as far as it asked."""

    upto: int
    config: Config
    is_joined: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a connection knows when it shows a `pos`."""

    position: int
    ephemeral: int
    rooms: Mapping[str, ToldRoom]


@dataclass(frozen=True, slots=True)
class OwnRoom:
    """A room of the user's, as lists sort it."""

    room_id: str
    membership: str
    since: int
    bump: int


@dataclass(frozen=True, slots=True)
class Found:
    """The rooms of an answer."""

    lists: dict[str, Json]
    rooms: dict[str, Json]
    told: dict[str, ToldRoom]
    """What the connection will know of all rooms."""


NOTHING: Final = Told(0, 0, {})


def rooms(
    tx: Reader,
    asker: Requester,
    lists: Mapping[str, RoomList],
    subscriptions: Mapping[str, Subscription],
    told: Told,
) -> Found:
    """What is new in the windows and subscribed rooms."""
    own = _own_rooms(tx, asker.user_id)
    direct = _direct(tx, asker.user_id)
    wanted: dict[str, Config] = {}
    counted: dict[str, Json] = {}
    for name, one in lists.items():
        matching = _matching(tx, list(own.values()), one.filters, direct)
        counted[name] = {"count": len(matching)}
        for first, last in one.ranges:
            for room in matching[max(0, first) : max(0, last + 1)]:
                _want(wanted, room.room_id, one)
    for room_id in subscriptions.keys() & own.keys():
        _want(wanted, room_id, subscriptions[room_id])
    shown: dict[str, Json] = {}
    known = dict(told.rooms)
    for room_id, config in wanted.items():
        if own[room_id].membership != "join":
            before = known.get(room_id)
            if before is None or before.upto < own[room_id].since:
                shown[room_id] = _preview(tx, asker.user_id, own[room_id])
                known[room_id] = ToldRoom(tx.position, config, is_joined=False)
    joined = {room: config for room, config in wanted.items() if own[room].membership == "join"}
    shown |= _joined(tx, asker, joined, own, told, known)
    for room_id in shown:
        shown[room_id] |= {"bump_stamp": own[room_id].bump, "is_dm": room_id in direct}
    shown |= _left(tx, asker, told, known, own.keys())
    return Found(counted, shown, known)


def _own_rooms(tx: Reader, user_id: str) -> dict[str, OwnRoom]:
    """The user's rooms, those with the newest message first."""
    mine = memberships.since(tx, user_id, 0, filters.EVERYTHING.room)
    welcome = {*mine.joined, *mine.invited, *mine.knocked}
    asked = {"user_id": user_id, "now": NOW_AND_LATER}
    found = [
        OwnRoom(row.room_id, row.membership, row.from_position, row.bump)
        for row in tx.sql.execute(_ROOMS, asked)
        if row.room_id in welcome
    ]
    return {room.room_id: room for room in sorted(found, key=lambda room: -room.bump)}


def _direct(tx: Reader, user_id: str) -> set[str]:
    content = account_data.find(tx, user_id, "m.direct") or {}
    named = [ids for ids in content.values() if isinstance(ids, list)]
    return {room_id for ids in named for room_id in ids if isinstance(room_id, str)}


def _matching(
    tx: Reader, own: list[OwnRoom], wanted: Filters | None, direct: Set[str]
) -> list[OwnRoom]:
    """The rooms that a list's filters admit."""
    if wanted is None:
        return own
    if wanted.is_dm is not None:
        own = [room for room in own if (room.room_id in direct) == wanted.is_dm]
    if wanted.is_invite is not None:
        own = [room for room in own if (room.membership == "invite") == wanted.is_invite]
    if wanted.is_encrypted is None and wanted.room_types is None and not wanted.not_room_types:
        return own
    encrypted, types = _kinds(tx, [room.room_id for room in own])
    if wanted.is_encrypted is not None:
        own = [room for room in own if (room.room_id in encrypted) == wanted.is_encrypted]
    if wanted.room_types is not None:
        own = [room for room in own if types.get(room.room_id) in wanted.room_types]
    return [room for room in own if types.get(room.room_id) not in wanted.not_room_types]


def _kinds(tx: Reader, room_ids: list[str]) -> tuple[set[str], dict[str, str | None]]:
    """(which are encrypted, {room_id: its type})."""
    encrypted: set[str] = set()
    types: dict[str, str | None] = {}
    asked = {"rooms": orjson.dumps(room_ids).decode(), "now": NOW_AND_LATER}
    for room_id, event_type, pdu in tx.sql.execute(_KINDS, asked):
        if event_type == "m.room.encryption":
            encrypted.add(room_id)
        else:
            types[room_id] = orjson.loads(pdu)["content"].get("type")
    return encrypted, types


def _want(wanted: dict[str, Config], room_id: str, one: Subscription) -> None:
    limit = max(0, min(one.timeline_limit, _MAX_TIMELINE))
    config = Config(limit, frozenset(one.required_state))
    wanted[room_id] = wanted[room_id] | config if room_id in wanted else config


def _joined(
    tx: Reader,
    asker: Requester,
    wanted: Mapping[str, Config],
    own: Mapping[str, OwnRoom],
    told: Told,
    known: dict[str, ToldRoom],
) -> dict[str, Json]:
    """The joined rooms with news; `known` learns of them."""
    starts: dict[str, int] = {}
    for room_id, config in wanted.items():
        before = told.rooms.get(room_id)
        if before is None or not before.is_joined or not before.config.covers(config):
            starts[room_id] = 0
        else:
            starts[room_id] = before.upto
    oldest = min((at for at in starts.values() if at), default=tx.position)
    busy = set(memberships.with_events_since(tx, starts.keys(), oldest, tx.position))
    found = [Span(room, at, tx.position) for room, at in starts.items() if not at or room in busy]
    for limit in {wanted[span.room_id].limit for span in found}:
        some = [span for span in found if wanted[span.room_id].limit == limit]
        spans.fill(tx, asker.user_id, some, RoomEventFilter(limit=limit))
    found = [span for span in found if span.is_new or span.timeline or span.is_limited]
    states = _states(tx, asker, found, wanted)
    told_of = summaries.load(tx, asker.user_id, starts.keys() & {span.room_id for span in found})
    unread = counts.unread_in(tx, asker.user_id, told_of.keys())
    shown: dict[str, Json] = {}
    for span in found:
        room_id = span.room_id
        before = told.rooms.get(room_id)
        config = wanted[room_id] if before is None else wanted[room_id] | before.config
        known[room_id] = ToldRoom(tx.position, config, is_joined=True)
        entry = _entry(tx, asker, span, states[room_id], told_of[room_id])
        pairs = unread.get(room_id, {}).values()
        entry["notification_count"] = sum(pair[0] for pair in pairs)
        entry["highlight_count"] = sum(pair[1] for pair in pairs)
        live = [event for event in span.timeline if told.position < event.position]
        entry["num_live"] = len(live) if told.position else 0
        if span.is_new and before is not None and before.is_joined:
            entry["unstable_expanded_timeline"] = True
        shown[room_id] = entry
    return shown


def _entry(
    tx: Reader, asker: Requester, span: Span, held: list[ClientEvent], summary: Json
) -> Json:
    entry: Json = {
        "initial": span.is_new,
        "membership": "join",
        "required_state": client_events.encode_all(held, tx.now_ms, asker, with_room_id=False),
        "timeline": client_events.encode_all(span.timeline, tx.now_ms, asker, with_room_id=False),
        "prev_batch": str(SyncToken(span.boundary)),
        "limited": span.is_limited,
        "joined_count": summary["m.joined_member_count"],
        "invited_count": summary["m.invited_member_count"],
        **_names(tx, span.room_id),
    }
    heroes = summary.get("m.heroes")
    if heroes:
        keys = [(state.MEMBER, user) for user in heroes]
        members = state.current_many(tx, span.room_id, keys)
        entry["heroes"] = [_hero(key[1], event.content) for key, event in members.items()]
    return entry


def _hero(user_id: str, content: Json) -> Json:
    named = {key: content.get(key) for key in ("displayname", "avatar_url")}
    return {"user_id": user_id, **{key: value for key, value in named.items() if value}}


def _names(tx: Reader, room_id: str) -> Json:
    held = state.current_many(tx, room_id, _NAMES)
    found: Json = {}
    for key, field, name in ((_NAMES[0], "name", "name"), (_NAMES[1], "url", "avatar")):
        value = held[key].content.get(field) if key in held else None
        if isinstance(value, str) and value:
            found[name] = value
    return found


def _states(
    tx: Reader, asker: Requester, found: list[Span], wanted: Mapping[str, Config]
) -> dict[str, list[ClientEvent]]:
    """{room_id: what the client wants of its state and does not know}."""
    positions: dict[str, set[int]] = {span.room_id: set() for span in found}
    full = {span.room_id for span in found if _wants_all_members(wanted[span.room_id])}
    for query, is_full in ((_ALL_STATE, True), (_STATE_WITHOUT_MEMBERS, False)):
        asked = {it.room_id: it.since for it in found if (it.room_id in full) == is_full}
        values = {"rooms": orjson.dumps(asked).decode(), "now": NOW_AND_LATER}
        for room_id, event_type, key, position in tx.sql.execute(query, values) if asked else ():
            if _is_required(wanted[room_id].required, event_type, key):
                positions[room_id].add(position)
    for span in found:
        positions[span.room_id] |= _members(tx, asker.user_id, span, wanted[span.room_id])
    return {
        room: erasure.hide(tx, asker.user_id, client_events.load(tx, sorted(some)))
        for room, some in positions.items()
    }


def _wants_all_members(config: Config) -> bool:
    return bool(config.required & {("*", "*"), (state.MEMBER, "*")})


def _is_required(required: frozenset[StateKey], event_type: str, key: str) -> bool:
    patterns = {(event_type, key), (event_type, "*"), ("*", key), ("*", "*")}
    return bool(required & patterns)


def _members(tx: Reader, user_id: str, span: Span, config: Config) -> set[int]:
    """Where the members stand whom the client names, or needs to show the timeline."""
    named = {key for kind, key in config.required if kind in {state.MEMBER, "*"}}
    users = named - {"*", "$ME", "$LAZY", ""}
    if "$ME" in named:
        users.add(user_id)
    lazy = {event.sender for event in span.timeline} if "$LAZY" in named else set()
    keys = [(state.MEMBER, user) for user in sorted(users | lazy)]
    held = state.entries(tx, span.room_id, keys)
    return {
        entry.position
        for (_, user), entry in held.items()
        if entry.event is not None and (user in lazy or entry.since > span.since)
    }


def _preview(tx: Reader, user_id: str, room: OwnRoom) -> Json:
    """The room as somebody sees it who is not in it yet."""
    own: StateKey = (state.MEMBER, user_id)
    held = state.current_many(tx, room.room_id, [*STRIPPED_STATE, own])
    inviter: StateKey = (state.MEMBER, held[own].sender)
    held |= state.current_many(tx, room.room_id, [inviter])
    events: list[Any] = [client_events.stripped(event.pdu) for event in held.values()]
    names = _names(tx, room.room_id)
    return {"initial": True, "membership": room.membership, "invite_state": events, **names}


def _left(
    tx: Reader, asker: Requester, told: Told, known: dict[str, ToldRoom], own: Set[str]
) -> dict[str, Json]:
    """The rooms that the connection knows and the user has left: told once more, then forgotten."""
    gone = told.rooms.keys() - own
    for room_id in gone:
        del known[room_id]
    shown: dict[str, Json] = {}
    for room_id in sorted(gone):
        key = (state.MEMBER, asker.user_id)
        entry = state.entries(tx, room_id, [key])[key]
        span = Span(room_id, told.rooms[room_id].upto, entry.since)
        if told.rooms[room_id].is_joined:
            limit = told.rooms[room_id].config.limit
            spans.fill(tx, asker.user_id, [span], RoomEventFilter(limit=limit))
        own_event = client_events.load(tx, [entry.position])
        shown[room_id] = {
            "initial": False,
            "membership": entry.event.content["membership"] if entry.event else "leave",
            "required_state": client_events.encode_all(
                own_event, tx.now_ms, asker, with_room_id=False
            ),
            "timeline": client_events.encode_all(
                span.timeline, tx.now_ms, asker, with_room_id=False
            ),
            "limited": span.is_limited,
        }
    return shown
