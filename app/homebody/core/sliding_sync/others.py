"""Rooms in an answer of sliding sync that the user is not in: invites, knocks, and what was left.

Spec: client-server-api#syncing, client-server-api#stripped-state
"""

from __future__ import annotations

from typing import Any

from homebody.core.events import client_events, state, visibility
from homebody.core.sliding_sync.order import OwnRoom
from homebody.core.sliding_sync.requests import Config
from homebody.core.sliding_sync.sent import Told, ToldRoom
from homebody.core.sync import spans
from homebody.core.sync.spans import Span
from homebody.core.sync.sync import STRIPPED_STATE
from homebody.core.sync.tokens import SyncToken
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

GONE = frozenset({"leave", "ban"})


def preview(tx: Reader, user_id: str, room_id: str, room: OwnRoom) -> Json | None:
    """The room as somebody sees it who is not in it yet; None: they no longer could be."""
    own: StateKey = (state.MEMBER, user_id)
    held = state.current_many(tx, room_id, [*STRIPPED_STATE, own])
    member = held.pop(own, None)
    if member is None:
        return None
    held |= state.current_many(tx, room_id, [(state.MEMBER, member.sender)])
    held.pop(own, None)  # who knocks is their own sender
    events: list[Any] = [client_events.stripped(event.pdu) for event in held.values()]
    events.append(
        client_events.stripped(member.pdu)
        | {"event_id": member.event_id, "origin_server_ts": member.origin_server_ts}
    )
    return {
        "initial": True,
        "membership": room.membership,
        "invite_state": events,
        "bump_stamp": room.since,
        **_named(held),
    }


def left(tx: Reader, asker: Requester, room_id: str, before: ToldRoom, told: Told) -> Json | None:
    """What happened up to the user's leave, in a room that the connection knows; the leave at last.

    None where they have not left, but want to hear nothing of the room.
    """
    own: StateKey = (state.MEMBER, asker.user_id)
    entry = state.entries(tx, room_id, [own])[own]
    if entry.event is None or entry.event.content["membership"] not in GONE:
        return None
    since = told.position if before.behind_since is None else before.behind_since
    span = Span(room_id, since, entry.since)
    span.history = visibility.history(tx, asker.user_id, room_id)
    if before.membership == "join" or before.behind_since is not None:
        filled = RoomEventFilter(limit=before.config.limit)
        spans.fill(tx, asker.user_id, [span], filled)
    return _gone(tx, asker, span, entry.event, [entry.position])


def kicked(
    tx: Reader, asker: Requester, room_id: str, room: OwnRoom, config: Config
) -> Json | None:
    """The room as it was when the user left it, for a connection that knows nothing of it.

    A ban, or the end of an invite, may have come long after the leave: it shows nothing of what has
    happened in between. None where they have forgotten the room, or are back.
    """
    own: StateKey = (state.MEMBER, asker.user_id)
    entry = state.entries(tx, room_id, [own])[own]
    is_gone = entry.event is not None and entry.event.content["membership"] in GONE
    if entry.event is None or not is_gone or visibility.has_forgotten(tx, asker.user_id, room_id):
        return None
    history = visibility.history(tx, asker.user_id, room_id)
    span = Span(room_id, 0, min(room.since, history.joined_until), history=history)
    spans.fill(tx, asker.user_id, [span], RoomEventFilter(limit=config.limit))
    held = state.at_position(tx, room_id, span.upto)
    held.pop(own, None)  # it may be a leave before the ban
    lazy = {event.sender for event in span.timeline} if config.is_lazy else set()
    wanted = [
        event.event_id
        for key, event in held.items()
        if config.wants(key) or (key[0] == state.MEMBER and key[1] in lazy)
    ]
    events = [client_events.find(tx, event_id) for event_id in wanted]
    positions = {event.position for event in events if event is not None} | {entry.position}
    shown = _gone(tx, asker, span, entry.event, sorted(positions))
    return {"initial": True, **shown, "bump_stamp": room.since, **_named(held)}


def _gone(tx: Reader, asker: Requester, span: Span, member: Event, positions: list[int]) -> Json:
    held = client_events.hide(tx, asker.user_id, client_events.load(tx, positions))
    return {
        "membership": member.content["membership"],
        "bump_stamp": span.upto,
        "required_state": client_events.encode_state(tx, asker, held, with_room_id=False),
        "timeline": client_events.encode_all(tx, asker, span.timeline, with_room_id=False),
        "prev_batch": str(SyncToken(span.boundary or span.upto)),
        "limited": span.is_limited,
    }


def _named(held: dict[StateKey, Event]) -> Json:
    found: Json = {}
    for key, field, name in (("m.room.name", "name", "name"), ("m.room.avatar", "url", "avatar")):
        event = held.get((key, ""))
        value = event.content.get(field) if event is not None else None
        if isinstance(value, str) and value:
            found[name] = value
    return found
