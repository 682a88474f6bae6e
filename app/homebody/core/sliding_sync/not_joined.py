"""Rooms of a sliding sync response that the user is not joined to: invites, knocks, left rooms.

Spec: client-server-api#syncing, client-server-api#stripped-state
"""

from __future__ import annotations

import orjson

from homebody.core.events import client_events, state, visibility
from homebody.core.events.state import StateEntry
from homebody.core.sliding_sync import summaries
from homebody.core.sliding_sync.order import OwnMembership
from homebody.core.sliding_sync.requests import RoomConfig
from homebody.core.sliding_sync.states import SentRoom
from homebody.core.sync import memberships, spans, state_sections
from homebody.core.sync import summaries as sync_summaries
from homebody.core.sync.spans import Span, SyncToken
from homebody.models.base import EventNumber
from homebody.spec.events import Json, StateKey
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

GONE = frozenset({"leave", "ban"})


def load(
    tx: Reader, requester: Requester, room_id: str, own: OwnMembership, config: RoomConfig
) -> Json | None:
    """Return the entry of an invite, a knock, or a room that the user was kicked from.

    None if the user was kicked and has forgotten the room.
    """
    if own.membership in GONE:
        return _kicked(tx, requester, room_id, own, config)
    events = sync_summaries.preview(tx, room_id, requester.user_id)
    contents = {(it["type"], it["state_key"]): it["content"] for it in events}
    return {
        "initial": True,
        "membership": own.membership,
        "stripped_state": events,
        "bump_stamp": own.since,
        **summaries.name_and_avatar(contents),
    }


def left(
    tx: Reader, requester: Requester, room_id: str, before: SentRoom, position: int
) -> Json | None:
    """Return the events of a room on the connection up to the user's leave, or its deletion.

    None if the user has not left but ignores the room's invite.
    """
    user_id = requester.user_id
    own: StateKey = (state.MEMBER, user_id)
    entry = state.entries(tx, room_id, [own])[own]
    if entry.membership not in {*GONE, None}:  # None: the room is deleted
        return None
    since = position if before.stale_since is None else before.stale_since
    span = Span(room_id, since, entry.since or tx.position)
    span.history = visibility.history(tx, user_id, room_id)
    if before.membership == "join" or before.stale_since is not None:
        spans.fill(tx, user_id, [span], RoomEventFilter(limit=before.config.limit))
    shown = _gone(tx, requester, span, entry, [])
    if before.membership in {"invite", "knock"} and before.stale_since is None:
        shown["stripped_state"] = [client_events.stripped(_own_leave(tx, user_id, span, entry))]
    return shown


def _kicked(
    tx: Reader, requester: Requester, room_id: str, room: OwnMembership, config: RoomConfig
) -> Json | None:
    """Return the room as of the time the user left it, for a connection that does not have it yet.

    A ban or the end of an invite may have come long after the leave: events in between are not
    included. None if the user has forgotten the room.
    """
    user_id = requester.user_id
    if visibility.has_forgotten(tx, user_id, room_id):
        return None
    history = visibility.history(tx, user_id, room_id)
    span = Span(room_id, 0, min(room.since, history.joined_until), history=history)
    spans.fill(tx, user_id, [span], RoomEventFilter(limit=config.limit))
    lazy = {event.sender for event in span.timeline} if config.is_lazy else set()
    members = None if config.wants_all_members else config.named_members() | lazy
    held = {
        (event.type, event.state_key or ""): event
        for event in state_sections.at(tx, room_id, span.upto, members)
    }
    own: StateKey = (state.MEMBER, user_id)
    held.pop(own, None)  # it may be a leave before the ban
    wanted = [
        event.number
        for key, event in held.items()
        if config.wants(key) or (key[0] == state.MEMBER and key[1] in lazy)
    ]
    shown = _gone(tx, requester, span, state.entries(tx, room_id, [own])[own], wanted)
    contents = {key: event.content for key, event in held.items()}
    return {
        "initial": True,
        **shown,
        "bump_stamp": room.since,
        **summaries.name_and_avatar(contents),
    }


def _gone(
    tx: Reader, requester: Requester, span: Span, own: StateEntry, numbers: list[EventNumber]
) -> Json:
    """Return a room with this state and the user's own membership."""
    events = client_events.load(tx, sorted([*numbers, own.number]))
    held = client_events.hide(tx, requester.user_id, events)
    required = list(client_events.encode_state(tx, requester, held, with_room_id=False))
    if own.event is None:
        leave = _own_leave(tx, requester.user_id, span, own)
        required.append(orjson.Fragment(orjson.dumps(leave)))
    return {
        "membership": own.membership or "leave",
        "bump_stamp": span.upto,
        "required_state": required,
        "timeline": client_events.encode_all(tx, requester, span.timeline, with_room_id=False),
        "prev_batch": str(SyncToken(span.boundary or span.upto)),
        "limited": span.is_limited,
    }


def _own_leave(tx: Reader, user_id: str, span: Span, own: StateEntry) -> Json:
    if own.event is not None:
        return own.event.pdu
    return memberships.leave_without_event(tx, span.room_id, user_id, span.upto)
