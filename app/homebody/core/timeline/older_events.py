"""Events from before what this server has of a room, which other servers send afterwards.

They get the places below those that follow them, as history: they are shown, but change nothing
that is current, notify nobody, and are not sent on. What they tell of the room's state at their
time is kept (events/past_state.py), so that the history visibility holds for them as well.

This module writes the table events, like store.py.
Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import bindparam, func, insert, select, update

from homebody.core.events import auth_chains, client_events, past_state, relations, state
from homebody.core.events.past_state import Seen
from homebody.core.events.state import KnownEvent
from homebody.core.timeline import gaps, receiving, redactions
from homebody.core.timeline.store import NOTHING_DERIVED
from homebody.models.base import EventNumber
from homebody.models.events import HISTORY, OUTLIER, REJECTED, StoredEvent
from homebody.spec import room_state
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

LOG = logging.getLogger(__name__)

Encoded = tuple[Event, bytes | None]
"""An event whose form was checked, and its PDU; None: its signatures can't be verified."""
MAX_MISSING: Final = 200
"""Events that are missing before those of one response; what cites more is rarely honest."""
REDACTION: Final = "m.room.redaction"

_INSERT = insert(StoredEvent)
_PLACE = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(position=bindparam("place"), standing=HISTORY)
)
_RELATE = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(
        relates_to=bindparam("parent"),
        rel_type=bindparam("kind"),
        thread_id=bindparam("root"),
        edit_of=bindparam("edited"),
        annotation_key=bindparam("key"),
    )
)
_REPLACES = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"), StoredEvent.replaces.is_(None))
    .values(replaces=bindparam("older"))
)
_IDS = listed("event_ids")
_CHILDREN = select(*state.EVENT_COLUMNS).where(
    StoredEvent.relates_to.in_(select(_IDS.c.value)),
    StoredEvent.rel_type.in_((relations.REPLACE, relations.THREAD)),
    StoredEvent.edit_of.is_(None),
    StoredEvent.thread_id.is_(None),
    StoredEvent.position.is_not(None),
)
_PLACED = select(StoredEvent.event_id).where(
    StoredEvent.event_id.in_(select(_IDS.c.value)), StoredEvent.position.is_not(None)
)
_SENDER = select(StoredEvent.sender).where(
    StoredEvent.room_id == bindparam("room_id"), StoredEvent.position == bindparam("place")
)
_FROM = (
    select(StoredEvent.position, StoredEvent.sender, StoredEvent.standing)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position >= bindparam("place"))
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_PREVIOUS = select(func.max(StoredEvent.position)).where(
    StoredEvent.room_id == bindparam("room_id"), StoredEvent.position < bindparam("place")
)


class Above(NamedTuple):
    """The first event above a gap that is not history."""

    position: int
    sender: str
    history: int
    """The number of events between the gap and it, which were fetched."""


class _Placed(NamedTuple):
    event: Event
    number: EventNumber
    position: int


def store(tx: Tx, room_id: str, gap: int, found: Sequence[Encoded]) -> bool:
    """Put older events into the gap before a position; return whether the gap is another now.

    `found` are events from the newest to the oldest, each before those that it cites. Events whose
    auth events are missing, or whose signatures can't be verified, are passed over. What is missing
    before the others is a gap again.
    """
    known = state.find_many(tx, {event.event_id for event, _ in found})
    cited = state.find_many(tx, {it for event, _ in found for it in event.auth_event_ids})
    standings = _judge(tx, room_id, found, {**cited, **known})
    previous = tx.sql.execute(_PREVIOUS, {"room_id": room_id, "place": gap}).scalar() or 0
    shown = [
        it
        for it in found
        if standings.get(it[0].event_id) == HISTORY
        and (it[0].event_id not in known or known[it[0].event_id].standing == OUTLIER)
    ][: gap - 1 - previous]
    rejected = [
        it
        for it in found
        if standings.get(it[0].event_id) == REJECTED and it[0].event_id not in known
    ]
    numbers = _insert(tx, room_id, gap, shown, rejected, known)
    placed = [
        _Placed(event, numbers[event.event_id], gap - 1 - place)
        for place, (event, _) in enumerate(shown)
    ]
    _follow(tx, room_id, (previous, gap), placed, cited)
    has_no_place = standings.keys() - numbers.keys()
    passed = {it.event_id: it for it, _ in found if it.event_id not in has_no_place}
    gaps.fill_many(tx, room_id, passed)
    bottom = placed[-1].position if placed else gap
    gaps.move(tx, room_id, gap, bottom)
    before = (it for event in passed.values() for it in event.prev_event_ids)
    missing = [it for it in dict.fromkeys(before) if it not in passed]
    gaps.add(tx, room_id, missing[:MAX_MISSING], bottom)
    return bool(passed)


def without_place(tx: Reader, event_ids: Iterable[str]) -> set[str]:
    """Return the events that are in no timeline, or not stored at all."""
    wanted = set(event_ids)
    return wanted.difference(tx.sql.execute(_PLACED, {"event_ids": wanted}).scalars())


def sender_at(tx: Reader, room_id: str, position: int) -> str | None:
    """Return the sender of the event at a position of a room, or None."""
    asked = {"room_id": room_id, "place": position}
    found: str | None = tx.sql.execute(_SENDER, asked).scalar()
    return found


def first_not_history(tx: Reader, room_id: str, position: int, limit: int) -> Above | None:
    """Return the first event from a position on that is not history.

    None if there are `limit` events of history before it, or no such event.
    """
    asked = {"room_id": room_id, "place": position, "count": limit}
    for history, row in enumerate(tx.sql.execute(_FROM, asked)):
        if row.standing != HISTORY:
            return Above(row.position, row.sender, history)
    return None


def _judge(
    tx: Tx, room_id: str, found: Sequence[Encoded], known: Mapping[str, KnownEvent]
) -> dict[str, str]:
    """Return the standing of each event by its auth events, without those that lack some."""
    create = state.current(tx, room_id, *room_state.CREATE)
    events = {event_id: it.event for event_id, it in known.items()}
    standings = {event_id: it.standing for event_id, it in known.items()}
    for event, encoded in reversed(found):
        event_id = event.event_id
        if event_id in known:
            standings[event_id] = REJECTED if known[event_id].standing == REJECTED else HISTORY
            continue
        if encoded is None:
            continue
        if any(it not in events for it in event.auth_event_ids):
            LOG.info("left out the event %s: its auth events are missing", event_id)
            continue
        cited = [
            KnownEvent(EventNumber(0), None, standings[it], events[it])
            for it in event.auth_event_ids
        ]
        events[event_id] = event
        try:
            receiving.check_by_auth_events(event, cited, create)
            standings[event_id] = HISTORY
        except AuthError as problem:
            LOG.info("%s is rejected: %s", event_id, problem)
            standings[event_id] = REJECTED
    return standings


def _insert(
    tx: Tx,
    room_id: str,
    gap: int,
    shown: Sequence[Encoded],
    rejected: Sequence[Encoded],
    known: Mapping[str, KnownEvent],
) -> dict[str, EventNumber]:
    """Insert the events, those first that others cite; return their numbers."""
    places = {event.event_id: gap - 1 - place for place, (event, _) in enumerate(shown)}
    numbers = {event_id: it.number for event_id, it in known.items()}
    rows = []
    for event, encoded in (*reversed(shown), *reversed(rejected)):
        if event.event_id in known or encoded is None:
            continue
        numbers[event.event_id] = tx.next_event_number()
        rows.append(
            {
                **NOTHING_DERIVED,
                "number": numbers[event.event_id],
                "event_id": event.event_id,
                "room_id": room_id,
                "position": places.get(event.event_id),
                "standing": HISTORY if event.event_id in places else REJECTED,
                "type": event.type,
                "state_key": event.state_key,
                "sender": event.sender,
                "origin_server_ts": event.origin_server_ts,
                "pdu": encoded.decode(),
            }
        )
    if rows:
        tx.sql.execute(_INSERT, rows)
    outliers = [(known[it].number, place) for it, place in places.items() if it in known]
    if outliers:
        tx.sql.execute(_PLACE, [{"which": it, "place": place} for it, place in outliers])
    for number, _ in outliers:
        tx.forget(client_events.CLIENT_EVENTS, number)
    new = [event for event, _ in (*shown, *rejected) if event.event_id not in known]
    cites: dict[int, list[str]] = {
        numbers[it.event_id]: it.auth_event_ids for it in new if it.state_key is not None
    }
    if cites:
        auth_chains.add_many(tx, room_id, cites, numbers)
    return numbers


def _follow(
    tx: Tx,
    room_id: str,
    between: tuple[int, int],
    placed: Sequence[_Placed],
    cited: Mapping[str, KnownEvent],
) -> None:
    """Write what is derived from the events, which were put between two positions."""
    numbers = {event_id: it.number for event_id, it in cited.items()}
    numbers |= {it.event.event_id: it.number for it in placed}
    events = {event_id: it.event for event_id, it in cited.items()}
    events |= {it.event.event_id: it.event for it in placed}
    seen = [entry for it in placed for entry in _seen(it, events, numbers)]
    replaced = past_state.learn(tx, room_id, *between, seen)
    for newer, older in replaced:
        tx.sql.execute(_REPLACES, {"which": newer, "older": older})
        tx.forget(client_events.CLIENT_EVENTS, newer)
    _relate(tx, placed)
    for it in reversed(placed):
        redactions.follow(tx, it.event)
        if it.event.type == REDACTION and it.event.redacts is not None:
            redactions.apply(tx, it.event, it.number)


def _seen(
    placed: _Placed, events: Mapping[str, Event], numbers: Mapping[str, EventNumber]
) -> Iterable[Seen]:
    """Yield what an event tells of the state at its position."""
    event = placed.event
    own = (event.type, event.state_key)
    if event.state_key is not None:
        yield Seen(
            placed.position,
            (event.type, event.state_key),
            placed.number,
            _membership(event),
            is_event=True,
        )
    member = (state.MEMBER, event.sender)
    for event_id in event.auth_event_ids:
        other = events.get(event_id)
        if other is not None and own != member == (other.type, other.state_key):
            number = numbers[event_id]
            yield Seen(placed.position, member, number, _membership(other), is_event=False)


def _membership(event: Event) -> str | None:
    return str(event.content["membership"]) if event.type == state.MEMBER else None


def _relate(tx: Tx, placed: Sequence[_Placed]) -> None:
    """Note how the events relate to others, and others to them."""
    related = {it.number: it.event for it in placed if "m.relates_to" in it.event.content}
    ids = [it.event.event_id for it in placed]
    for row in tx.sql.execute(_CHILDREN, {"event_ids": ids}).all():
        related.setdefault(row.number, state.event_of(tx, row))
    for number, event in sorted(related.items()):  # a reply is in the thread of its target
        relation = relations.of(tx, event)
        asked = {
            "which": number,
            "parent": relation.relates_to,
            "kind": relation.rel_type,
            "root": relation.thread_id,
            "edited": relation.edit_of,
            "key": relation.annotation_key,
        }
        tx.sql.execute(_RELATE, asked)
        tx.forget(client_events.CLIENT_EVENTS, number)
