"""The form in which clients see events: built once, cached, and completed for each reader.

All events are sent by way of `encode_all`. A cached event is the same for all readers, but its
`unsigned` contains parts of other events: the content that a state event replaced, the redaction.
A reader may be allowed to see the event and not those, so each part is decided per reader, and
added to the cached form as bytes:

    prev_content, prev_sender   if the reader may see the replaced event, or knew it as state
    redacted_because            the redaction; only what a redaction leaves of it, if the reader
                                may not see it, ignores its sender, or its sender is erased
    transaction_id              for the device that sent the event
    delay_id                    for the user who scheduled the event
    m.relations                 as aggregations.py has decided for this reader
    membership                  of the reader

Most events have none of the first two, and for most of the others the cache of current state says
that the reader was in the room already, so the database is rarely read.
Spec: client-server-api#room-event-format
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson
from sqlalchemy import and_, bindparam, select
from sqlalchemy.orm import aliased

from homebody.core.events import state, visibility
from homebody.core.user_data import account_data
from homebody.models.base import EventNumber
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import sticky
from homebody.spec.events import Json, StateKey, client_json, redact
from homebody.storage.caches import (
    NOWHERE,
    CacheKind,
    ClientEvent,
    PreviousState,
    Requester,
    declare,
)
from homebody.storage.database import Reader
from homebody.storage.expressions import item, listed

CLIENT_EVENTS: CacheKind[EventNumber, ClientEvent] = declare(
    "client_events", 19, lambda event: event.size_bytes
)
"""By number; written by timeline/store.py."""

_ReplacedEvent = aliased(StoredEvent)
_COLUMNS = (
    StoredEvent.number,
    StoredEvent.position,
    StoredEvent.event_id,
    StoredEvent.room_id,
    StoredEvent.pdu,
    StoredEvent.relates_to,
    StoredEvent.rel_type,
    StoredEvent.thread_id,
    StoredEvent.device_id,
    StoredEvent.txn_id,
    StoredEvent.replaces,
    StoredEvent.redacted_by,
    _ReplacedEvent.event_id.label("replaces_state"),
    _ReplacedEvent.position.label("replaced_position"),
    _ReplacedEvent.pdu.label("replaced_pdu"),
)
_LOAD = (
    select(*_COLUMNS)
    .outerjoin(_ReplacedEvent, _ReplacedEvent.number == StoredEvent.replaces)
    .where(StoredEvent.number.in_(bindparam("numbers", expanding=True)))
)
_NUMBER = select(StoredEvent.number).where(
    StoredEvent.event_id == bindparam("event_id"), StoredEvent.position.is_not(None)
)
_PLACES = listed("places")
_AT = (
    select(StoredEvent.room_id, StoredEvent.position, StoredEvent.number)
    .select_from(_PLACES)
    .join(
        StoredEvent,
        and_(StoredEvent.room_id == item(_PLACES, 0), StoredEvent.position == item(_PLACES, 1)),
    )
)
STRIPPED_STATE: list[StateKey] = [
    ("m.room.create", ""),
    ("m.room.join_rules", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
]
"""The state that an invite or a knock shows. Spec: client-server-api#stripped-state"""
_INVITES_AT = (
    select(Room.room_id, StateInterval.from_position, StateInterval.event_number)
    .select_from(_PLACES)
    .join(Room, Room.room_id == item(_PLACES, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.type == state.MEMBER,
            StateInterval.from_position == item(_PLACES, 1),
            StateInterval.membership == "invite",
        ),
    )
)
NO_BUNDLES: Final[Mapping[str, Json]] = MappingProxyType({})
NO_MEMBERSHIPS: Final[Mapping[EventNumber, str]] = MappingProxyType({})

_MEMBERSHIPS: Final = {
    membership: b',"membership":"%b"' % membership.encode()
    for membership in ("invite", "join", "knock", "leave", "ban")
}
_DELAY_ID: Final = b',"delay_id":%(id)b,"org.matrix.msc4140.delay_id":%(id)b'
Place = tuple[str, int]
"""(room_id, position) of an event."""
_ENCODED_AT_ONCE: Final = 200
"""In a large room the section of state has thousands; other requests go on between two parts."""
_LOADED_AT_ONCE: Final = 100
"""Each may have 64 KiB."""


class _Replaced(NamedTuple):
    """A state event that another one replaced, as visibility.hidden_by_erasure needs it."""

    number: EventNumber
    position: int
    room_id: str
    type: str
    state_key: str | None
    sender: str


def load(tx: Reader, numbers: Sequence[EventNumber]) -> list[ClientEvent]:
    """Return the events with these numbers, in this order; numbers without one are left out."""
    if not numbers:
        return []
    found, missing = tx.cached_many(CLIENT_EVENTS, numbers)
    for at in tx.pausing(range(0, len(missing), _LOADED_AT_ONCE), every=1):
        some = missing[at : at + _LOADED_AT_ONCE]
        for row in tx.sql.execute(_LOAD, {"numbers": some}):
            event = _from_row(row)
            found[event.number] = event
            tx.fill(CLIENT_EVENTS, event.number, event)
    return [found[number] for number in numbers if number in found]


def numbers_at(tx: Reader, places: Collection[Place]) -> dict[Place, EventNumber]:
    """Return {place: number} of the events at these places.

    The place of an invite to a room that this server is not in is where it took effect.
    """
    if not places:
        return {}
    rows = tx.sql.execute(_AT, {"places": places})
    found = {(room_id, position): number for room_id, position, number in rows}
    if missing := [place for place in places if place not in found]:
        for room_id, position, number in tx.sql.execute(_INVITES_AT, {"places": missing}):
            found[room_id, position] = number
    return found


def find(tx: Reader, event_id: str) -> ClientEvent | None:
    """Return the event of this id, if it stands in the timeline of its room."""
    number = tx.sql.execute(_NUMBER, {"event_id": event_id}).scalar()
    events = [] if number is None else load(tx, [number])
    return events[0] if events else None


def hide(tx: Reader, user_id: str, events: Sequence[ClientEvent]) -> list[ClientEvent]:
    """Return events with those of erased users redacted where this user may not see them.

    They keep their order, and may be of several rooms.
    """
    hidden = visibility.hidden_by_erasure(tx, user_id, events) if visibility.erased(tx) else ()
    if not hidden:
        return list(events)
    return [redacted(tx, event) if event.number in hidden else event for event in events]


def redacted(tx: Reader, event: ClientEvent) -> ClientEvent:
    """Return what a redaction would leave of an event."""
    pdu = redact(state.pdus(tx, [event.number])[0], state.version(tx, event.room_id))
    left = client_json(event.event_id, pdu)
    return ClientEvent(event.number, event.position, event.event_id, event.room_id, pdu, left)


def pdus(tx: Reader, user_id: str, events: Sequence[ClientEvent]) -> list[Json]:
    """Return events in the federation format, hidden as by `hide`, in their order."""
    hidden = visibility.hidden_by_erasure(tx, user_id, events)
    found = zip(events, state.pdus(tx, [event.number for event in events]), strict=True)
    return [
        redact(pdu, state.version(tx, event.room_id)) if event.number in hidden else pdu
        for event, pdu in found
    ]


def encode_all(
    tx: Reader,
    requester: Requester | None,
    events: Collection[ClientEvent],
    *,
    with_room_id: bool = True,
    bundles: Mapping[str, Json] = NO_BUNDLES,
    memberships: Mapping[EventNumber, str] | None = None,
) -> list[orjson.Fragment]:
    """Return events as JSON for one device. /sync leaves out the room ID, as it is their parent.

    `bundles` is the result of aggregations.bundles; `memberships` that of visibility.memberships,
    where a response has read them for all of its rooms at once. Without a requester the reader is
    an application service, which may see all of the rooms that concern it.
    """
    if memberships is None:
        memberships = NO_MEMBERSHIPS
        if requester is not None:
            memberships = visibility.memberships(tx, requester.user_id, events)
    hidden = _hidden_previous(tx, requester, events)
    redactions = _redactions(tx, requester, events)
    device = None if requester is None else (requester.user_id, requester.device_id)
    encoded = []
    for event in tx.pausing(events, _ENCODED_AT_ONCE):
        unsigned = b""
        if event.previous is not None and event.number not in hidden:
            unsigned = event.previous.body
        if event.redacted_by in redactions:
            unsigned += redactions[event.redacted_by]
        if event.txn_id is not None and device is not None and event.sender == device[0]:
            unsigned += _transaction(event, device[1])
        if event.event_id in bundles:
            unsigned += b',"m.relations":' + orjson.dumps(bundles[event.event_id])
        if event.number in memberships:
            unsigned += _MEMBERSHIPS[memberships[event.number]]
        encoded.append(_render(event, tx.now_ms, unsigned, with_room_id=with_room_id))
    return encoded


def encode_state(
    tx: Reader, requester: Requester, events: Collection[ClientEvent], *, with_room_id: bool = True
) -> list[orjson.Fragment]:
    """Return the events of a section of state as JSON, without the reader's memberships.

    "Homeservers … MAY omit it if necessary (for example, if calculating the value is expensive)":
    such a section has, in a large room, thousands of events from all of its history.
    """
    return encode_all(tx, requester, events, with_room_id=with_room_id, memberships=NO_MEMBERSHIPS)


def encode(
    tx: Reader,
    requester: Requester | None,
    event: ClientEvent,
    *,
    bundles: Mapping[str, Json] = NO_BUNDLES,
) -> orjson.Fragment:
    """Return one event as JSON."""
    return encode_all(tx, requester, [event], bundles=bundles)[0]


def as_json(tx: Reader, requester: Requester | None, event: ClientEvent) -> Json:
    """Return the event as an object, for the few responses that need its parts."""
    decoded: Json = orjson.loads(orjson.dumps(encode(tx, requester, event)))
    return decoded


def is_redacted(event: ClientEvent) -> bool:
    """Return whether the event has been redacted."""
    return event.redacted_by is not None


def stripped(pdu: Json) -> Json:
    """Return the parts of a state event that are shown to users who are not in the room yet.

    Spec: client-server-api#stripped-state
    """
    return {key: pdu[key] for key in ("content", "sender", "state_key", "type")}


def _previous(row: state.AnyRow) -> PreviousState | None:
    if row.replaces is None or row.replaced_pdu is None:
        return None
    pdu = orjson.loads(row.replaced_pdu)
    members = orjson.dumps({"prev_content": pdu["content"], "prev_sender": pdu["sender"]})
    position = row.replaced_position or NOWHERE
    return PreviousState(row.replaces, position, pdu["sender"], b"," + members[1:-1])


def _from_row(row: state.AnyRow) -> ClientEvent:
    pdu = orjson.loads(row.pdu)
    return ClientEvent(
        row.number,
        row.position or NOWHERE,
        row.event_id,
        row.room_id,
        pdu,
        client_json(row.event_id, pdu),
        replaces_state=row.replaces_state,
        previous=_previous(row),
        redacted_by=row.redacted_by,
        relation=(row.relates_to, row.rel_type, row.thread_id),
        transaction=(row.device_id, row.txn_id),
    )


def _render(
    event: ClientEvent, now_ms: int, unsigned: bytes = b"", *, with_room_id: bool = True
) -> orjson.Fragment:
    """Return the event as JSON, with these members of `unsigned` in addition to the common ones."""
    room = b',"room_id":' + orjson.dumps(event.room_id) if with_room_id else b""
    age = max(0, now_ms - event.origin_server_ts)
    if event.sticky_ms:
        until_ts = sticky.until_ts(now_ms, event.origin_server_ts, event.sticky_ms)
        if until_ts > now_ms:
            unsigned += b',"%b":%d' % (sticky.TTL, until_ts - now_ms)
    return orjson.Fragment(
        b'%b%b,"unsigned":{"age":%d%b%b}}' % (event.body, room, age, event.unsigned, unsigned)
    )


def _transaction(event: ClientEvent, device_id: str) -> bytes:
    """Return as members of `unsigned` what the sender of an event knows of its request."""
    if event.device_id is None:  # it was scheduled, and sent by no request
        return _DELAY_ID % {b"id": orjson.dumps(event.txn_id)}
    if event.device_id != device_id:
        return b""
    return b',"transaction_id":' + orjson.dumps(event.txn_id)


def _hidden_previous(
    tx: Reader, requester: Requester | None, events: Iterable[ClientEvent]
) -> set[EventNumber]:
    """Return the numbers of the events whose previous content the reader may not see."""
    by_room: dict[str, list[ClientEvent]] = {}
    for event in events:
        if event.previous is not None:
            by_room.setdefault(event.room_id, []).append(event)
    if not by_room or requester is None:
        return set()
    user_id = requester.user_id
    hidden = {it for some in by_room.values() for it in _unseen(tx, user_id, some)}
    if visibility.erased(tx):
        replaced = {it: number for some in by_room.values() for number, it in _replaced(some)}
        of_erased = visibility.hidden_by_erasure(tx, user_id, replaced)
        hidden |= {number for it, number in replaced.items() if it.number in of_erased}
    return hidden


def _replaced(events: Iterable[ClientEvent]) -> Iterator[tuple[EventNumber, _Replaced]]:
    """Yield the number of each event, and what it replaced."""
    for event in events:
        before = event.previous
        if before is not None:
            place = (before.number, before.position, event.room_id)
            yield event.number, _Replaced(*place, event.type, event.state_key, before.sender)


def _unseen(tx: Reader, user_id: str, events: list[ClientEvent]) -> Iterator[EventNumber]:
    """Yield the numbers of those of a room's events whose previous one the user may not see.

    A replaced event was the room's state until the event that replaced it. Users who could know
    the state at any time between the two have been sent it, though it may be older than their join.
    """
    room_id = events[0].room_id
    if visibility.sees_all_since(tx, user_id, room_id, min(it.position for it in events) - 1):
        return
    known = visibility.history(tx, user_id, room_id)
    for event in events:
        if event.previous is None or (event.type, event.state_key) == (state.MEMBER, user_id):
            continue  # users are sent each change of their own membership, even from outside
        seen = known.first_seen(event.previous.position)
        if seen is None or seen >= event.position:
            yield event.number


def _redactions(
    tx: Reader, requester: Requester | None, events: Iterable[ClientEvent]
) -> dict[EventNumber | None, bytes]:
    """Return `redacted_because` as a member of `unsigned`, by the number of the redaction."""
    wanted = {event.redacted_by for event in events if event.redacted_by is not None}
    if not wanted:
        return {}
    redactions = load(tx, sorted(wanted))
    whole = redactions if requester is None else _whole(tx, requester.user_id, redactions)
    shown = {event.number: event for event in whole}
    found: dict[EventNumber | None, bytes] = {}
    for event in redactions:
        seen = shown.get(event.number) or redacted(tx, event)
        rendered = orjson.dumps(_render(seen, tx.now_ms))
        found[event.number] = b',"redacted_because":' + rendered
    return found


def _whole(tx: Reader, user_id: str, redactions: list[ClientEvent]) -> list[ClientEvent]:
    """Return the redactions whose reason the user may read."""
    by_room: dict[str, list[ClientEvent]] = {}
    for event in redactions:
        by_room.setdefault(event.room_id, []).append(event)
    seen = [
        event
        for room_id, some in by_room.items()
        for event in visibility.visible(tx, user_id, room_id, some)
    ]
    return hide(tx, user_id, account_data.without_ignored(tx, user_id, seen))
