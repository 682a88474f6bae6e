"""Rooms of a sliding sync response that the user is not joined to: invites, knocks, left rooms.

Spec: client-server-api#syncing, client-server-api#stripped-state
"""

from __future__ import annotations

from typing import Any

from homebody.core.events import client_events, state, stripped_state, visibility
from homebody.core.events.state import StateEntry
from homebody.core.sliding_sync import summaries
from homebody.core.sliding_sync.order import OwnMembership
from homebody.core.sliding_sync.requests import RoomConfig
from homebody.core.sliding_sync.states import SentRoom
from homebody.core.sync import spans
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

    None if that is no longer the case.
    """
    if own.membership in GONE:
        return _kicked(tx, requester, room_id, own, config)
    return _preview(tx, requester.user_id, room_id, own)


def _preview(tx: Reader, user_id: str, room_id: str, room: OwnMembership) -> Json | None:
    """Return the stripped state of an invite or knock; None if the user has no membership."""
    own: StateKey = (state.MEMBER, user_id)
    held = state.current_many(tx, room_id, [*client_events.STRIPPED_STATE, own])
    member = held.pop(own, None)
    if member is None:
        return None
    held |= state.current_many(tx, room_id, [(state.MEMBER, member.sender)])
    held.pop(own, None)  # the sender of a knock is the user
    events: list[Any] = [client_events.stripped(event.pdu) for event in held.values()]
    if (from_elsewhere := stripped_state.find(tx, room_id, user_id)) is not None:
        events = list(from_elsewhere.events)
    contents = {(it["type"], it["state_key"]): it["content"] for it in events}
    events.append(
        client_events.stripped(member.pdu)
        | {"event_id": member.event_id, "origin_server_ts": member.origin_server_ts}
    )
    return {
        "initial": True,
        "membership": room.membership,
        "stripped_state": events,
        "bump_stamp": room.since,
        **summaries.name_and_avatar(contents),
    }


def left(
    tx: Reader, requester: Requester, room_id: str, before: SentRoom, position: int
) -> Json | None:
    """Return the events of a room on the connection up to the user's leave.

    None if the user has not left but ignores the room's invite.
    """
    own: StateKey = (state.MEMBER, requester.user_id)
    entry = state.entries(tx, room_id, [own])[own]
    if entry.membership not in GONE:
        return None
    since = position if before.stale_since is None else before.stale_since
    span = Span(room_id, since, entry.since)
    span.history = visibility.history(tx, requester.user_id, room_id)
    if before.membership == "join" or before.stale_since is not None:
        spans.fill(tx, requester.user_id, [span], RoomEventFilter(limit=before.config.limit))
    shown = _gone(tx, requester, span, entry, [entry.number])
    if before.membership != "join" and before.stale_since is None and entry.event is not None:
        shown["stripped_state"] = [client_events.stripped(entry.event.pdu)]  # of a rejected invite
    return shown


def _kicked(
    tx: Reader, requester: Requester, room_id: str, room: OwnMembership, config: RoomConfig
) -> Json | None:
    """Return the room as of the time the user left it, for a connection that does not have it yet.

    A ban or the end of an invite may have come long after the leave: events in between are not
    included. None if the user has forgotten the room or has joined again.
    """
    own: StateKey = (state.MEMBER, requester.user_id)
    entry = state.entries(tx, room_id, [own])[own]
    if entry.event is None or entry.event.content["membership"] not in GONE:
        return None
    if visibility.has_forgotten(tx, requester.user_id, room_id):
        return None
    history = visibility.history(tx, requester.user_id, room_id)
    span = Span(room_id, 0, min(room.since, history.joined_until), history=history)
    spans.fill(tx, requester.user_id, [span], RoomEventFilter(limit=config.limit))
    held = state.at_position(tx, room_id, span.upto)
    held.pop(own, None)  # it may be a leave before the ban
    lazy = {event.sender for event in span.timeline} if config.is_lazy else set()
    wanted = [
        event.event_id
        for key, event in held.items()
        if config.wants(key) or (key[0] == state.MEMBER and key[1] in lazy)
    ]
    events = [state.find_any(tx, event_id) for event_id in wanted]
    numbers = {event.number for event in events if event is not None} | {entry.number}
    shown = _gone(tx, requester, span, entry, sorted(numbers))
    contents = {key: event.content for key, event in held.items()}
    return {
        "initial": True,
        **shown,
        "bump_stamp": room.since,
        **summaries.name_and_avatar(contents),
    }


def _gone(
    tx: Reader, requester: Requester, span: Span, member: StateEntry, numbers: list[EventNumber]
) -> Json:
    held = client_events.hide(tx, requester.user_id, client_events.load(tx, numbers))
    return {
        "membership": member.membership,
        "bump_stamp": span.upto,
        "required_state": client_events.encode_state(tx, requester, held, with_room_id=False),
        "timeline": client_events.encode_all(tx, requester, span.timeline, with_room_id=False),
        "prev_batch": str(SyncToken(span.boundary or span.upto)),
        "limited": span.is_limited,
    }
