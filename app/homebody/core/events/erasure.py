"""What erased users have said is shown redacted to who came into the room after the erasure.

"Users which had visibility on those events prior to the erasure are still able to see unredacted
copies": these are who was in the room at some time between the event and the erasure. Nothing in
the database changes, and no redaction is sent.

Every reader of events asks here, so who is erased is kept in memory by accounts/accounts.py; mostly
that is nobody, and nothing more is asked.
Spec: client-server-api#post_matrixclientv3accountdeactivate (`erase`)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from homebody.core.accounts import accounts
from homebody.core.events import client_events, state, visibility
from homebody.spec.events import Json, redact
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader


class Sent(Protocol):
    """What has to be known of an event: a ClientEvent, or something with these attributes."""

    @property
    def position(self) -> int:
        """Its position on the clock."""

    @property
    def room_id(self) -> str:
        """Its room."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def state_key(self) -> str | None:
        """Its state key; None for an event that is not state."""

    @property
    def sender(self) -> str:
        """Its sender."""


def hide(tx: Reader, user_id: str, events: Sequence[ClientEvent]) -> list[ClientEvent]:
    """The events as this user may see them, in their order; they may be of several rooms."""
    positions = hidden(tx, user_id, events)
    if not positions:
        return list(events)
    return [redacted(tx, event) if event.position in positions else event for event in events]


def hidden(tx: Reader, user_id: str, events: Collection[Sent]) -> set[int]:
    """The positions of those events of which this user sees only what a redaction leaves."""
    erased = accounts.erased(tx)
    if not erased:
        return set()
    by_room: dict[str, list[Sent]] = {}
    for event in events:
        if event.sender in erased and _is_personal(event):
            by_room.setdefault(event.room_id, []).append(event)
    return {
        position
        for room_id, some in by_room.items()
        for position in _hidden_in(tx, user_id, room_id, some, erased)
    }


def redacted(tx: Reader, event: ClientEvent) -> ClientEvent:
    """What a redaction leaves of an event, without one."""
    pdu = redact(state.pdus(tx, [event.position])[0], state.version(tx, event.room_id))
    return client_events.build(event.position, event.event_id, event.room_id, pdu)


def pdus(tx: Reader, user_id: str, events: Sequence[ClientEvent]) -> list[Json]:
    """The events as servers exchange them, in their order, hidden as far."""
    positions = hidden(tx, user_id, events)
    found = zip(events, state.pdus(tx, [event.position for event in events]), strict=True)
    return [
        redact(pdu, state.version(tx, event.room_id)) if event.position in positions else pdu
        for event, pdu in found
    ]


def _is_personal(event: Sent) -> bool:
    """Whether it is a message, or tells who somebody is.

    Deviates: "the events sent by this account" are others as well. But a room keeps its name and
    topic for newcomers whoever set them: they are the room's.
    """
    return event.state_key is None or (event.type, event.state_key) == (state.MEMBER, event.sender)


def _hidden_in(
    tx: Reader,
    user_id: str,
    room_id: str,
    events: Sequence[Sent],
    erased: Mapping[str, int],
) -> list[int]:
    own = (state.MEMBER, user_id)
    entry = state.entries(tx, room_id, [own])[own]
    is_joined = entry.event is not None and entry.event.content["membership"] == "join"
    if is_joined and entry.since <= min(event.position for event in events):
        return []
    course = visibility.history(tx, user_id, room_id).membership

    def was_there(event: Sent) -> bool:
        until = erased[event.sender]
        changes = course.starts_after(event.position)
        times = [event.position, *(at for at in changes if at < until)]
        return any(course.at(at) == "join" for at in times)

    return [event.position for event in events if not was_there(event)]
