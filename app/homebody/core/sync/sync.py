"""/sync: what is new for one device since its token.

The work is proportional to what has changed, never to how many rooms there are or how long they
are. `answer` is the list of steps; each part of the answer has a module of its own:

    rooms with news       memberships.py     the events of each       spans.py
    state sections        state_sections.py  heroes and counts        summaries.py
    account data          account_data.py    receipts                 receipts.py
    typing                typing.py          presence                 presence.py
    unread counts         push/counts.py     messages to the device   to_device.py
    device lists          sync/device_lists.py
    keys left to claim    encryption/one_time_keys.py

Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from homebody.core.encryption import one_time_keys, to_device
from homebody.core.ephemeral import presence, receipts, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.events import aggregations, client_events, state, visibility
from homebody.core.push import counts
from homebody.core.sync import device_lists, memberships, spans, summaries
from homebody.core.sync import state_sections as sections
from homebody.core.sync.spans import ROOMS_BETWEEN_BREATHS, Span
from homebody.core.sync.state_sections import LazyMembers
from homebody.core.sync.tokens import SyncToken
from homebody.core.timeline import store
from homebody.core.user_data import account_data
from homebody.spec import filters
from homebody.spec.events import Json, StateKey
from homebody.spec.filters import EventFilter, Filter, RoomEventFilter
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader

STRIPPED_STATE: list[StateKey] = [
    ("m.room.create", ""),
    ("m.room.join_rules", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
]
"""What somebody invited is told of a room. Spec: client-server-api#stripped-state"""
NAMING = frozenset({state.MEMBER, "m.room.name", "m.room.canonical_alias", store.REDACTION})
"""What may change how a room is called; a redaction may take its name away."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request for news."""

    requester: Requester
    filter: Filter
    since: SyncToken | None
    """None: the client knows nothing yet."""
    full_state: bool = False
    state_section: str = "state"
    """What the section of state is called: since v1.16 also `state_after`."""

    @property
    def use_state_after(self) -> bool:
        """Whether state is told as of the end of the timeline."""
        return self.state_section != "state"

    @property
    def position(self) -> int:
        """What the client has seen; 0: nothing."""
        return 0 if self.since is None else self.since.position

    @property
    def ephemeral(self) -> int:
        """The same of what is kept in memory only."""
        return 0 if self.since is None else self.since.ephemeral or 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What /sync says."""

    body: Json
    is_empty: bool
    """Nothing is new: a request that may wait waits on."""
    token: SyncToken
    """The one that it gives."""
    truncated_after: int | None
    """Not all messages to the device are in it: the position of the last that is."""
    needs_new_token: bool
    """It has messages to the device, those that an earlier answer did not hold, and nothing has
    happened since: its token is still that of the earlier one."""

    def at(self, position: int) -> Answer:
        """The same with a later token, up to which nothing else has happened."""
        token = replace(self.token, position=position)
        body = {**self.body, "next_batch": str(token)}
        return replace(self, body=body, token=token, needs_new_token=False)


def answer(tx: Reader, ask: Ask, ephemeral: Ephemeral, lazy_members: LazyMembers) -> Answer:
    """What is new for the device. The body may have `orjson.Fragment`s in it."""
    user_id, wanted = ask.requester.user_id, ask.filter
    token = SyncToken(tx.position, ephemeral.position)
    mine = memberships.since(tx, user_id, ask.position, wanted.room)
    data = _account_data(tx, ask, mine, token.position)
    joined = _joined_spans(tx, ask, mine)
    rooms = _rooms(tx, ask, mine, joined, data, ephemeral, lazy_members)
    lists = _device_lists(tx, ask, mine, joined)
    messages = to_device.after(tx, user_id, ask.requester.device_id, ask.position)
    keys = one_time_keys.counts(tx, user_id, ask.requester.device_id)
    own_data = _admitted(data.pop("", []), wanted.account_data)
    online = _presence(tx, ask, lists.came, ephemeral)
    body: Json = {  # empty sections too: the r0 tutorial shows them, and its readers rely on them
        "next_batch": str(token),
        "account_data": {"events": own_data},
        "presence": {"events": online},
        "rooms": rooms,
        "to_device": {"events": messages.events},
        "device_lists": {"changed": lists.changed, "left": lists.left},
        "device_one_time_keys_count": keys.one_time_keys,
        "device_unused_fallback_key_types": keys.unused_fallback_types,
    }
    is_empty = not (own_data or online or any(rooms.values()) or messages.events or lists)
    is_same_token = bool(messages.events) and token.position == ask.position
    return Answer(body, is_empty, token, messages.truncated_after, needs_new_token=is_same_token)


def _rooms(
    tx: Reader,
    ask: Ask,
    mine: memberships.Memberships,
    joined: list[Span],
    data: dict[str, list[Json]],
    ephemeral: Ephemeral,
    lazy_members: LazyMembers,
) -> dict[str, dict[str, Any]]:
    """The four sections of rooms; fills the spans."""
    left = [Span(room.room_id, room.since, room.upto) for room in mine.left]
    for span in left:
        span.history = visibility.history(tx, ask.requester.user_id, span.room_id)
    both = [*joined, *left]
    spans.fill(tx, ask.requester.user_id, both, ask.filter.room.timeline)
    joined = [span for span in joined if span.is_new or ask.full_state or not span.is_ignored]
    both = [*joined, *left]
    for span in both:  # who was in a room before may know some of it: a gap tells to start anew
        was_there = span.state_upto != 0
        span.is_limited |= span.is_new and was_there and ask.since is not None
    told = _summaries(tx, ask, joined)
    states = sections.load(
        tx,
        ask.requester,
        both,
        ask.filter.room.state,
        lazy_members,
        heroes={room_id: summary.get("m.heroes", ()) for room_id, summary in told.items()},
        since=ask.position,
        is_full=ask.full_state,
        is_after=ask.use_state_after,
    )
    # where there is no gap, the timeline itself tells what relates to its events
    gappy = (span for span in both if span.is_limited or span.is_filtered or span.is_new)
    some = [event for span in gappy for event in span.timeline]
    bundles = aggregations.bundles(tx, ask.requester, some)
    shown_events = [event for span in both for event in span.timeline]
    own = visibility.memberships(tx, ask.requester.user_id, shown_events)
    entries = {
        span.room_id: _entry(tx, ask, span, states[span.room_id], bundles, own)
        for span in tx.breathing(both, ROOMS_BETWEEN_BREATHS)
    }
    own_leaves = {room.room_id: room.member_position for room in mine.left}
    for span in left:
        entry, there = entries[span.room_id], states[span.room_id]
        _add_own_leave(tx, ask, entry, span, there, own_leaves[span.room_id])
        own_data = _admitted(data.get(span.room_id, []), ask.filter.room.account_data)
        entry["account_data"] = {"events": own_data}
    shown = {span.room_id: entries[span.room_id] for span in joined}
    _add_what_is_no_event(tx, ask, mine, shown, data, ephemeral)
    _add_counts(tx, ask, shown, told)
    return {
        "join": shown,
        "invite": _previews(tx, ask, mine.invited, "invite_state"),
        "knock": _previews(tx, ask, mine.knocked, "knock_state"),
        "leave": {span.room_id: entries[span.room_id] for span in left},
    }


def _joined_spans(tx: Reader, ask: Ask, mine: memberships.Memberships) -> list[Span]:
    """The joined rooms that have new events, or are new to the client."""
    upto = tx.position
    found = [Span(room_id, 0, upto) for room_id in sorted(mine.newly_joined)]
    others = mine.joined - mine.newly_joined
    if ask.full_state:
        busy: Collection[str] = others
    else:
        busy = memberships.with_events_since(tx, others, ask.position, upto)
    return found + [Span(room_id, ask.position, upto) for room_id in sorted(busy)]


def _account_data(
    tx: Reader, ask: Ask, mine: memberships.Memberships, upto: int
) -> dict[str, list[Json]]:
    """{room_id: account data}, "" for global: what is new, and all about rooms new to the client.

    Rooms may have some before the user is in: the tag of the server's notices, or one's own of old.
    """
    user_id = ask.requester.user_id
    found = account_data.since(tx, user_id, ask.position, upto)
    new = mine.newly_joined | {room.room_id for room in mine.left if not room.since}
    if ask.since is not None and new:
        found |= account_data.of_rooms(tx, user_id, new)
    return found


def _entry(
    tx: Reader,
    ask: Ask,
    span: Span,
    room_state: list[ClientEvent],
    bundles: Mapping[str, Json],
    own: Mapping[int, str],
) -> Json:
    """A room's own part of the answer: its timeline and the state before it."""
    user_id = ask.requester.user_id
    return {
        "timeline": {
            "events": _shown(tx, ask, span.timeline, bundles, own),
            "limited": span.is_limited,
            "prev_batch": str(SyncToken(span.boundary)),
        },
        ask.state_section: {"events": _shown(tx, ask, client_events.hide(tx, user_id, room_state))},
    }


def _add_own_leave(
    tx: Reader, ask: Ask, entry: Json, span: Span, there: list[ClientEvent], position: int
) -> None:
    """Add the event by which the user is not in the room, where the filter admits it.

    Somebody who was only invited may not see the room, and somebody banned after a leave what came
    after it, but all are told what they are in it themselves.
    """
    in_timeline = any(event.position == position for event in span.timeline)
    in_state = any(event.position == position for event in there)
    wanted = ask.filter.room
    for event in client_events.load(tx, [position]):
        shown = _shown(tx, ask, [event], own=None)
        if not (in_timeline or in_state) and _admits(wanted.timeline, event):
            entry["timeline"]["events"] += shown
            in_timeline = True
        is_to_be_in_state = ask.use_state_after or not in_timeline
        if is_to_be_in_state and not in_state and _admits(wanted.state, event):
            entry[ask.state_section]["events"] += shown


def _admits(wanted: RoomEventFilter, event: ClientEvent) -> bool:
    """Whether a filter admits the event, and any at all."""
    is_match = filters.matches(wanted, event.type, event.sender, event.room_id, event.content)
    return is_match and wanted.limit != 0


def _add_what_is_no_event(
    tx: Reader,
    ask: Ask,
    mine: memberships.Memberships,
    shown: dict[str, Json],
    data: dict[str, list[Json]],
    ephemeral: Ephemeral,
) -> None:
    """Receipts, typing and account data; a room may be in the answer for these alone."""
    room_filter = ask.filter.room
    read = _receipts(tx, ask, mine)
    typers = typing.since(tx, ephemeral, ask.requester.user_id, mine.joined, ask.ephemeral)
    if mine.newly_joined:  # also where nobody has begun since: the client knows of nobody
        typers |= typing.since(tx, ephemeral, ask.requester.user_id, mine.newly_joined, 0)
    for room_id in mine.joined & (read.keys() | typers.keys() | data.keys()):
        events = [part[room_id] for part in (read, typers) if room_id in part]
        events = _admitted(events, room_filter.ephemeral)
        own_data = _admitted(data.get(room_id, []), room_filter.account_data)
        if events or own_data:
            entry = shown.setdefault(room_id, _silent(ask))
            entry["ephemeral"] = {"events": events}
            entry["account_data"] = {"events": own_data}


def _summaries(tx: Reader, ask: Ask, joined: list[Span]) -> dict[str, Json]:
    """{room_id: what the room is called by}, where that may have changed."""
    renamed = [
        span.room_id
        for span in joined
        if span.is_new
        or ask.full_state
        or span.is_limited
        or span.is_filtered
        or any(event.type in NAMING for event in span.timeline)
    ]
    return summaries.load(tx, ask.requester.user_id, renamed)


def _add_counts(tx: Reader, ask: Ask, shown: dict[str, Json], told: Mapping[str, Json]) -> None:
    """Unread counts for every room of the answer, and the summaries."""
    unread = counts.unread_in(tx, ask.requester.user_id, shown.keys())
    by_thread = ask.filter.room.timeline.unread_thread_notifications
    for room_id, entry in shown.items():
        entry.setdefault("ephemeral", {"events": []})
        entry.setdefault("account_data", {"events": []})
        entry.update(_unread(unread.get(room_id, {}), is_by_thread=by_thread))
        entry["summary"] = told.get(room_id, {})


def _silent(ask: Ask) -> Json:
    """The entry of a room without new events."""
    return {
        "timeline": {"events": [], "limited": False, "prev_batch": str(SyncToken(ask.position))},
        ask.state_section: {"events": []},
    }


def _receipts(tx: Reader, ask: Ask, mine: memberships.Memberships) -> dict[str, Json]:
    """{room_id: its m.receipt}: all receipts of rooms new to the client, else what is new."""
    user_id, new = ask.requester.user_id, mine.newly_joined
    found = receipts.in_rooms(tx, user_id, new) if new else {}
    if ask.since is not None:
        known = mine.joined - new
        found = found | receipts.since(tx, user_id, known, ask.position, tx.position)
    return found


def _unread(by_thread: dict[str, tuple[int, int]], *, is_by_thread: bool) -> Json:
    """The counts of a room: in all, or for the main timeline and each thread apart."""
    if not is_by_thread:
        return {"unread_notifications": _count(by_thread.values())}
    threads = {thread: _count([count]) for thread, count in by_thread.items() if thread != "main"}
    counted = {"unread_notifications": _count([by_thread.get("main", (0, 0))])}
    # left out where no thread has any: clients take that as nothing, and Complement asks for it
    return counted | ({"unread_thread_notifications": threads} if threads else {})


def _count(pairs: Collection[tuple[int, int]]) -> Json:
    return {
        "notification_count": sum(pair[0] for pair in pairs),
        "highlight_count": sum(pair[1] for pair in pairs),
    }


def _previews(tx: Reader, ask: Ask, room_ids: Iterable[str], section: str) -> dict[str, Json]:
    return {
        room_id: _preview(tx, room_id, ask, section)
        for room_id in tx.breathing(room_ids, ROOMS_BETWEEN_BREATHS)
    }


def _preview(tx: Reader, room_id: str, ask: Ask, section: str) -> Json:
    """The room as somebody sees it who is not in it yet, with their own membership."""
    own: StateKey = (state.MEMBER, ask.requester.user_id)
    known = state.current_many(tx, room_id, [*STRIPPED_STATE, own])
    member = known.pop(own)
    inviter: StateKey = (state.MEMBER, member.sender)
    known |= state.current_many(tx, room_id, [inviter])
    events = [client_events.stripped(event.pdu) for event in known.values()]
    own_event = client_events.stripped(member.pdu) | {
        "event_id": member.event_id,
        "origin_server_ts": member.origin_server_ts,
    }
    return {section: {"events": [*events, own_event]}}


def _presence(tx: Reader, ask: Ask, came: frozenset[str], ephemeral: Ephemeral) -> list[Json]:
    """Return m.presence of users who share a room with the user."""
    wanted = ask.filter.presence
    found = presence.since(tx, ephemeral, ask.requester.user_id, ask.ephemeral, came)
    admitted = [event for event in found if filters.matches(wanted, event["type"], event["sender"])]
    return _all_or_none(admitted, wanted)


def _device_lists(
    tx: Reader, ask: Ask, mine: memberships.Memberships, joined: list[Span]
) -> device_lists.DeviceLists:
    """Whose keys the device should ask for; a first answer says nothing of that."""
    if ask.since is None:
        return device_lists.NOTHING
    wanted = ask.filter.room
    if wanted.rooms is not None or wanted.not_rooms:  # keys are not a matter of rooms
        return device_lists.since(tx, ask.requester.user_id, ask.position)
    return device_lists.in_answer(tx, ask.requester.user_id, ask.position, mine, joined)


def _admitted(events: list[Json], wanted: EventFilter) -> list[Json]:
    """The events without a sender (account data, receipts, typing) that a filter admits."""
    admitted = [event for event in events if filters.matches(wanted, event["type"], None)]
    return _all_or_none(admitted, wanted)


def _all_or_none(events: list[Json], wanted: EventFilter) -> list[Json]:
    """Return the events of a section through which nobody can page, as far as a limit allows it."""
    # Deviates: "the maximum number of events to return". Those left out would never come: the next
    # token is behind them, and no request asks for them alone.
    return [] if wanted.limit == 0 else events


def _shown(
    tx: Reader,
    ask: Ask,
    events: list[ClientEvent],
    bundles: Mapping[str, Json] = client_events.NO_BUNDLES,
    own: Mapping[int, str] | None = client_events.NO_MEMBERSHIPS,
) -> list[Any]:
    """Events in the form that the filter asks for."""
    if ask.filter.event_format == "federation":
        return list(client_events.pdus(tx, ask.requester.user_id, events))
    encoded = client_events.encode_all(
        tx, ask.requester, events, with_room_id=False, bundles=bundles, memberships=own
    )
    if ask.filter.event_fields is None:
        return list(encoded)
    fields = ask.filter.event_fields
    return [filters.pick(orjson.loads(orjson.dumps(one)), fields) for one in encoded]
