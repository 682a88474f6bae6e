"""/sync: what is new for one device since its token.

The work is proportional to what has changed, not to the number or the length of rooms. `respond`
lists the steps; each section of the response has a module of its own:

    rooms with news       memberships.py     the events of each       spans.py
    state sections        state_sections.py  heroes and counts        summaries.py
    account data          account_data.py    receipts                 receipts.py
    typing                typing.py          presence                 presence.py
    unread counts         push/counts.py     messages to the device   to_device.py
    device lists          sync/device_lists.py
    one-time key counts   encryption/one_time_keys.py

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
from homebody.core.sync import (
    device_lists,
    memberships,
    spans,
    state_sections,
    sticky_section,
    summaries,
)
from homebody.core.sync.memberships import LeftRoom, Memberships
from homebody.core.sync.spans import ROOMS_BETWEEN_PAUSES, Span, SyncToken
from homebody.core.sync.state_sections import LazyMembers, StateRequest
from homebody.core.timeline import sticky_events, store
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.spec import filters, sticky
from homebody.spec.events import Json
from homebody.spec.filters import EventFilter, Filter, RoomEventFilter
from homebody.spec.invite_filter import ALL_ALLOWED
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader

NAMING = frozenset({state.MEMBER, "m.room.name", "m.room.canonical_alias", store.REDACTION})
"""Types of events that may change a room's display name; a redaction may remove the name."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """One request for news."""

    requester: Requester
    filter: Filter
    position: int = 0
    """The last position that the client has seen; 0: none."""
    ephemeral: int = 0
    """The same on the counter of what is kept in memory only."""
    is_quiet: bool = False
    """The client shows nobody who types."""
    is_initial: bool = True
    """It has no token."""
    full_state: bool = False
    state_section: str = "state"
    """The name of the section of state; since v1.16 also `state_after`, which is the state as of
    the end of the timeline."""


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """The response to one request, without waiting for news."""

    body: Json
    is_empty: bool
    """Nothing is new: a long poll goes on."""
    token: SyncToken
    """Its next_batch."""
    truncated_after: int | None
    """The position of the last message to the device in it, if there are more."""
    needs_new_token: bool
    """It has messages to the device that an earlier response lacked, and nothing else has happened
    since: its token is still that of the earlier response."""

    def at(self, position: int) -> SyncResponse:
        """Return it with a later token, up to which nothing else has happened."""
        token = replace(self.token, position=position)
        body = {**self.body, "next_batch": str(token)}
        return replace(self, body=body, token=token, needs_new_token=False)


def respond(
    tx: Reader, request: SyncRequest, ephemeral: Ephemeral, lazy_members: LazyMembers
) -> SyncResponse:
    """Return what is new for the device. The body may contain `orjson.Fragment`s."""
    user_id, wanted = request.requester.user_id, request.filter
    began = ephemeral.position
    mine = memberships.since(tx, user_id, request.position, wanted.room)
    if (mine.partial or mine.completed) and not wanted.room.state.lazy_load_members:
        memberships.leave_partial_out(mine)
    data = _account_data(tx, request, mine)
    joined = _joined_spans(tx, request, mine)
    rooms = _rooms(tx, request, mine, joined, lazy_members)
    since, was_quiet = request.ephemeral, request.is_quiet
    typers = typing.since(tx, ephemeral, user_id, mine.joined, since, was_quiet=was_quiet)
    if mine.newly_joined:  # also if nobody has begun since: the client knows of nobody
        typers |= typing.since(tx, ephemeral, user_id, mine.newly_joined, 0)
    token = SyncToken(tx.position, began, is_quiet=ephemeral.typed_in.isdisjoint(mine.joined))
    _add_what_is_no_event(tx, request, mine, joined, rooms, data, typers)
    _add_counts(tx, request, rooms["join"])
    lists = _device_lists(tx, request, mine, joined)
    messages = to_device.after(tx, user_id, request.requester.device_id, request.position)
    keys = one_time_keys.counts(tx, user_id, request.requester.device_id)
    own_data = _admitted(data.get("", []), wanted.account_data)
    online = presence.since(tx, ephemeral, user_id, request.ephemeral, lists.came)
    online = _admitted(online, wanted.presence)
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
    is_empty = is_empty and keys.claimed_at <= request.position
    is_same_token = bool(messages.events) and token.position == request.position
    return SyncResponse(
        body, is_empty, token, messages.truncated_after, needs_new_token=is_same_token
    )


def _rooms(
    tx: Reader,
    request: SyncRequest,
    mine: Memberships,
    joined: list[Span],
    lazy_members: LazyMembers,
) -> dict[str, dict[str, Any]]:
    """Return the four sections of rooms, of the joined ones those with events; fill the spans."""
    left = [Span(room.room_id, room.since, room.upto) for room in mine.left]
    for span in left:
        span.history = visibility.history(tx, request.requester.user_id, span.room_id)
    is_after = request.state_section != "state"
    timeline = request.filter.room.timeline
    spans.fill(tx, request.requester.user_id, [*joined, *left], timeline, is_after=is_after)
    joined = [span for span in joined if span.is_new or request.full_state or not span.is_ignored]
    both = [*joined, *left]
    for span in both:  # a client that knows some of the room must discard it after a gap
        span.is_limited |= span.is_new and span.state_upto != 0 and not request.is_initial
    names = _summaries(tx, request, joined)
    wanted = StateRequest(
        request.requester,
        request.filter.room.state,
        lazy_members,
        heroes={room_id: summary.get("m.heroes", ()) for room_id, summary in names.items()},
        since=request.position,
        is_full=request.full_state,
        is_after=is_after,
    )
    states = state_sections.load(tx, wanted, both)
    entries = _entries(tx, request, both, states)
    for span, room in zip(left, mine.left, strict=True):
        entry, there = entries[span.room_id], states[span.room_id]
        if room.member_event == state.NO_EVENT:
            _add_leave_without_event(tx, request, entry, room)
        else:
            _add_own_leave(tx, request, entry, span, there, room.member_event)
    for span in joined:
        entries[span.room_id]["summary"] = names.get(span.room_id, {})
    return {
        "join": {span.room_id: entries[span.room_id] for span in joined},
        **_previews(tx, request, mine.invited, "invite"),
        **_previews(tx, request, mine.knocked, "knock"),
        "leave": {span.room_id: entries[span.room_id] for span in left},
    }


def _joined_spans(tx: Reader, request: SyncRequest, mine: Memberships) -> list[Span]:
    """Return spans of the joined rooms that have new events or are new to the client."""
    upto = tx.position
    found = [Span(room_id, 0, upto) for room_id in sorted(mine.newly_joined)]
    others = mine.joined - mine.newly_joined
    if request.full_state:
        busy: Collection[str] = others
    else:
        busy = memberships.with_events_since(tx, others, request.position, upto)
    return found + [Span(room_id, request.position, upto) for room_id in sorted(busy)]


def _account_data(tx: Reader, request: SyncRequest, mine: Memberships) -> dict[str, list[Json]]:
    """Return {room_id: account data}, "" for global: new data, and all data of new rooms.

    A room may have data before the user joins: the tag of server notices, or from an earlier stay.
    """
    user_id = request.requester.user_id
    found = account_data.since(tx, user_id, request.position, tx.position)
    new = mine.newly_joined | {room.room_id for room in mine.left if not room.since}
    if new and not request.is_initial:
        found |= account_data.of_rooms(tx, user_id, new, with_deleted=request.position > 0)
    return found


def _entries(
    tx: Reader, request: SyncRequest, both: list[Span], states: Mapping[str, list[ClientEvent]]
) -> dict[str, Json]:
    """Return {room_id: timeline and state} of the rooms."""
    user_id = request.requester.user_id
    # without a gap, the timeline itself contains what relates to its events
    gappy = [span for span in both if span.is_limited or span.is_filtered or span.is_new]
    some = [event for span in gappy for event in span.timeline]
    bundles = (
        aggregations.bundles(tx, request.requester, some) if some else client_events.NO_BUNDLES
    )
    own = visibility.memberships(tx, user_id, [it for span in both for it in span.timeline])
    entries: dict[str, Json] = {}
    for span in tx.pausing(both, ROOMS_BETWEEN_PAUSES):
        room_state = client_events.hide(tx, user_id, states[span.room_id])
        entries[span.room_id] = {
            "timeline": {
                "events": _encoded(tx, request, span.timeline, bundles, own),
                "limited": span.is_limited,
                "prev_batch": str(SyncToken(span.boundary)),
            },
            request.state_section: {"events": _encoded(tx, request, room_state)},
        }
    return entries


def _add_own_leave(
    tx: Reader,
    request: SyncRequest,
    entry: Json,
    span: Span,
    there: list[ClientEvent],
    leave: EventNumber,
) -> None:
    """Add the event by which the user is not in the room, if the filter admits it.

    A user who was only invited may not see the room, and one banned after a leave nothing that came
    after the leave, but all users may see their own membership.
    """
    in_timeline = any(event.number == leave for event in span.timeline)
    in_state = any(event.number == leave for event in there)
    wanted = request.filter.room
    for event in client_events.load(tx, [leave]):
        shown = _encoded(tx, request, [event], own=None)
        if not (in_timeline or in_state) and _admits(wanted.timeline, event):
            entry["timeline"]["events"] += shown
            in_timeline = True
        is_to_be_in_state = request.state_section != "state" or not in_timeline
        if is_to_be_in_state and not in_state and _admits(wanted.state, event):
            entry[request.state_section]["events"] += shown


def _add_leave_without_event(tx: Reader, request: SyncRequest, entry: Json, room: LeftRoom) -> None:
    user_id, wanted = request.requester.user_id, request.filter.room.state
    event = memberships.leave_without_event(tx, room.room_id, user_id, room.upto)
    is_match = filters.matches(wanted, state.MEMBER, user_id, room.room_id, event["content"])
    if is_match and wanted.limit != 0:
        fields = request.filter.event_fields
        shown = event if fields is None else filters.pick(event, fields)
        entry[request.state_section]["events"].append(shown)


def _admits(wanted: RoomEventFilter, event: ClientEvent) -> bool:
    """Return whether a filter admits the event."""
    is_match = filters.matches(
        wanted, event.type, event.sender, event.room_id, event.content, event.rel_type
    )
    return is_match and wanted.limit != 0


def _add_what_is_no_event(
    tx: Reader,
    request: SyncRequest,
    mine: Memberships,
    joined: list[Span],
    rooms: dict[str, dict[str, Any]],
    data: dict[str, list[Json]],
    typers: dict[str, Json],
) -> None:
    """Add receipts, typing, account data and sticky events, also of rooms without other news."""
    wanted, user_id = request.filter.room, request.requester.user_id
    read = _receipts(tx, request, mine)
    for room_id in mine.joined & (read.keys() | typers.keys() | data.keys()):
        events = [part[room_id] for part in (read, typers) if room_id in part]
        events = _admitted(events, wanted.ephemeral)
        own_data = _admitted(data.get(room_id, []), wanted.account_data)
        if events or own_data:
            entry = rooms["join"].setdefault(room_id, _without_events(request))
            entry["ephemeral"] = {"events": events}
            entry["account_data"] = {"events": own_data}
    until_ts = tx.cached(sticky_events.UNTIL, sticky_events.ALL)
    if until_ts is None or until_ts > tx.now_ms:
        missing = sticky_section.load(tx, user_id, mine, joined, request.position)
        for room_id, sticky_ones in missing.items():
            entry = rooms["join"].setdefault(room_id, _without_events(request))
            entry[sticky.KEY] = {"events": _encoded(tx, request, sticky_ones)}
    for room_id, entry in rooms["leave"].items():
        own_data = _admitted(data.get(room_id, []), wanted.account_data)
        entry["account_data"] = {"events": own_data}


def _summaries(tx: Reader, request: SyncRequest, joined: list[Span]) -> dict[str, Json]:
    """Return {room_id: summary} of the rooms whose display names may have changed."""
    renamed = [
        span.room_id
        for span in joined
        if span.is_new
        or request.full_state
        or span.is_limited
        or span.is_filtered
        or span.reset_at
        or any(event.type in NAMING for event in span.timeline)
    ]
    return summaries.load(tx, request.requester.user_id, renamed) if renamed else {}


def _add_counts(tx: Reader, request: SyncRequest, joined: dict[str, Json]) -> None:
    """Add unread counts to every room of the response, and the sections that it lacks."""
    unread = counts.unread_in(tx, request.requester.user_id, joined.keys())
    by_thread = request.filter.room.timeline.unread_thread_notifications
    for room_id, entry in joined.items():
        entry.setdefault("ephemeral", {"events": []})
        entry.setdefault("account_data", {"events": []})
        entry.setdefault("summary", {})
        entry.update(_unread(unread.get(room_id, {}), is_by_thread=by_thread))


def _without_events(request: SyncRequest) -> Json:
    """Return the entry of a room without new events."""
    prev_batch = str(SyncToken(request.position))
    return {
        "timeline": {"events": [], "limited": False, "prev_batch": prev_batch},
        request.state_section: {"events": []},
    }


def _receipts(tx: Reader, request: SyncRequest, mine: Memberships) -> dict[str, Json]:
    """Return {room_id: its m.receipt}: all receipts of rooms new to the client, else new ones."""
    user_id, new = request.requester.user_id, mine.newly_joined
    found = receipts.in_rooms(tx, user_id, new) if new else {}
    if not request.is_initial:
        known = mine.joined - new
        found = found | receipts.since(tx, user_id, known, request.position, tx.position)
    return found


def _unread(by_thread: dict[str, tuple[int, int]], *, is_by_thread: bool) -> Json:
    """Return the counts of a room: of all of it, or of the main timeline and of each thread."""
    if not is_by_thread:
        return {"unread_notifications": _count(by_thread.values())}
    threads = {thread: _count([count]) for thread, count in by_thread.items() if thread != "main"}
    counted = {"unread_notifications": _count([by_thread.get("main", (0, 0))])}
    # left out where no thread has any: clients take that as none, and Complement requires it
    return counted | ({"unread_thread_notifications": threads} if threads else {})


def _count(pairs: Collection[tuple[int, int]]) -> Json:
    return {
        "notification_count": sum(pair[0] for pair in pairs),
        "highlight_count": sum(pair[1] for pair in pairs),
    }


def _previews(
    tx: Reader, request: SyncRequest, room_ids: Iterable[str], kind: str
) -> dict[str, dict[str, Json]]:
    """Return {kind: {room_id: what is shown of the room}}."""
    user_id = request.requester.user_id
    found = {
        room_id: {f"{kind}_state": {"events": summaries.preview(tx, room_id, user_id)}}
        for room_id in tx.pausing(room_ids, ROOMS_BETWEEN_PAUSES)
    }
    if kind == "invite" and not found:
        settings = tx.cached(account_data.COMPILED, user_id)
        settings = settings or account_data.settings_of(tx, [user_id])[user_id]
        # Users who filter invites have no empty section of them: tests of MSC4155 expect none, and
        # the tutorials of the first versions of the specification expect one
        if settings.invites is not ALL_ALLOWED:
            return {}
    return {kind: found}


def _device_lists(
    tx: Reader, request: SyncRequest, mine: Memberships, joined: list[Span]
) -> device_lists.DeviceLists:
    """Return the users whose keys the device should query; nothing in a first response."""
    if request.is_initial:
        return device_lists.NOTHING
    wanted = request.filter.room
    if wanted.rooms is not None or wanted.not_rooms:  # a filter of rooms does not apply to keys
        return device_lists.since(tx, request.requester.user_id, request.position)
    user_id = request.requester.user_id
    return device_lists.in_response(tx, user_id, request.position, mine, joined)


def _admitted(events: list[Json], wanted: EventFilter) -> list[Json]:
    """Return those of a section's events (not of a timeline) that a filter admits."""
    # Deviates: "the maximum number of events to return". Those left out would never be sent: the
    # next token is behind them, and no request asks for them alone.
    if wanted.limit == 0:
        return []
    return [it for it in events if filters.matches(wanted, it["type"], it.get("sender"))]


def _encoded(
    tx: Reader,
    request: SyncRequest,
    events: list[ClientEvent],
    bundles: Mapping[str, Json] = client_events.NO_BUNDLES,
    own: Mapping[EventNumber, str] | None = client_events.NO_MEMBERSHIPS,
) -> list[Any]:
    """Return events in the format that the filter asks for."""
    if request.filter.event_format == "federation":
        return list(client_events.pdus(tx, request.requester.user_id, events))
    encoded = client_events.encode_all(
        tx, request.requester, events, with_room_id=False, bundles=bundles, memberships=own
    )
    if request.filter.event_fields is None:
        return list(encoded)
    fields = request.filter.event_fields
    return [filters.pick(orjson.loads(orjson.dumps(one)), fields) for one in encoded]
