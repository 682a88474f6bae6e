"""Storing events: `store` is the only function that inserts them while they are new.

It writes an allowed event and everything derived from it in one transaction. Events of other
servers come to the same function, by receiving.py, and no later code distinguishes them.

This module writes the table events (but older_events.py inserts history, many_outliers.py what
comes with a state, redactions.py updates redacted events, leaving_threads.py the threads of events,
differences.py their states, rechecks.py those that are rejected later, and removal.py deletes
events) and the table rooms, except for its column is_published.
Spec: server-server-api#pdus
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select, update

from homebody import errors
from homebody.core import partial_rooms
from homebody.core.appservices import transactions
from homebody.core.events import (
    auth_chains,
    client_events,
    members,
    relations,
    search_index,
    state,
    state_changes,
)
from homebody.core.events.relations import Relation
from homebody.core.push import counts
from homebody.core.timeline import (
    current_state,
    forks,
    gaps,
    redactions,
    sent_events,
    sticky_events,
)
from homebody.core.timeline.forks import Point
from homebody.models.base import EventNumber
from homebody.models.events import ACCEPTED, OUT_OF_BAND, SOFT_FAILED, StoredEvent
from homebody.models.rooms import RemovedRoom, Room
from homebody.spec import sticky
from homebody.spec.events import Event, StateKey, client_json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import PLACES, PLACES_OF_GAP, Tx

REDACTION: Final = "m.room.redaction"
DUMMY: Final = "org.matrix.dummy_event"
"""The type of events that only join the ends of a room's graph, as servers make them. No client is
to see them, so they are in no timeline."""
Transaction = tuple[str | None, str | None]
"""(device_id, txn_id) of the request that sent an event; (None, delay_id) where it was
scheduled, (None, None) where no client sent it."""
NO_TRANSACTION: Final[Transaction] = (None, None)
Changes = Mapping[StateKey, int | None]
"""{key: number of the event that becomes current state, or None}"""
Place = tuple[EventNumber, int]
"""(number, position) of an event."""

_INSERT = insert(StoredEvent)
NOTHING_DERIVED: Final = dict.fromkeys(
    (
        "position",
        "state_at",
        "state_diff",
        "replaces",
        "redacted_by",
        "relates_to",
        "rel_type",
        "thread_id",
        "edit_of",
        "annotation_key",
        "device_id",
        "txn_id",
    )
)
"""The columns of an event that are empty where many are stored at once."""
_NEW_ROOM = insert(Room)
_LAST_NUMBER = select(
    func.max(
        select(func.coalesce(func.max(Room.number), 0)).scalar_subquery(),
        select(func.coalesce(func.max(RemovedRoom.number), 0)).scalar_subquery(),
    )
)
_IS_BEING_REMOVED = select(RemovedRoom.room_id).where(RemovedRoom.room_id == bindparam("room_id"))
_ADVANCE = (
    update(Room)
    .where(Room.room_id == bindparam("in_room"))
    .values(
        forward_extremities=bindparam("extremities"),
        depth=bindparam("new_depth"),
        last_position=func.coalesce(bindparam("position"), Room.last_position),
    )
)
_DEPTH = select(Room.depth).where(Room.room_id == bindparam("room_id"))
_BEGIN_ANEW = (
    update(Room)
    .where(Room.room_id == bindparam("in_room"))
    .values(forward_extremities=[], version=bindparam("new_version"))
)
_SET_ENDS = (
    update(Room)
    .where(Room.room_id == bindparam("in_room"))
    .values(forward_extremities=bindparam("ends"))
)
_REMOVE_ROOM = delete(Room).where(Room.room_id == bindparam("the_room"))
_REMOVE_EVENT = delete(StoredEvent).where(StoredEvent.number == bindparam("which"))


def store(
    tx: Tx,
    event: Event,
    encoded: bytes,
    transaction: Transaction = NO_TRANSACTION,
    before: Point | None = None,
    *,
    is_after_gap: bool = False,
    changes: Changes | None = None,
) -> int:
    """Insert an allowed event and everything derived from it; return its position.

    `encoded` is its PDU in canonical JSON, `before` the state before it if that is not the room's
    current state. `is_after_gap`: some of its `prev_events` are missing, and may come later.
    `changes` are those of the current state, where they have been found out before.
    """
    if event.type == DUMMY and event.state_key is None and transaction == NO_TRANSACTION:
        return _store_dummy(tx, event, encoded, before, changes, is_after_gap=is_after_gap)
    number, position = tx.next_event(PLACES_OF_GAP if is_after_gap else PLACES)
    if transaction == NO_TRANSACTION:  # others are new, and made by this server
        number = _number_if_stored(tx, event) or number
    place = (number, position)
    sent_before = sent_events.before(tx, event) if tx.server.config.federation else None
    head = state.head(tx, event.room_id)
    is_in_line = before is None and set(head.forward_extremities) <= set(event.prev_event_ids)
    replaces = None
    if event.state_key is not None:
        replaces = _change_state(tx, event, place) if is_in_line else _replaced(tx, event, before)
    has_relation = "m.relates_to" in event.content
    relation = relations.of(tx, event) if has_relation else relations.NONE
    _insert(tx, event, encoded, place, ACCEPTED, before, transaction, replaces, relation)
    tx.caches.recent.add(position, event.room_id, number)
    _advance(tx, event, position, is_after_gap=is_after_gap)
    if not is_in_line and not _repeats_an_end(tx, event, head):
        _merge(tx, event.room_id, position, changes)
        current_state.note_if_lost(tx, event, position)
    if replaces is None:  # else it also contains the replaced event, and is built when it is read
        _keep_client_form(tx, event, transaction, place, relation)
    if event.type == REDACTION and event.redacts is not None:
        redactions.apply(tx, event, number)
    counts.count(tx, event, position, relation.thread_id)
    if tx.server.appservices.all:
        transactions.note(tx, event, number)
    if sent_before is not None:
        sent_events.send(tx, event, encoded, place, sent_before)
    indexed = tx.cached(search_index.PROGRESS, search_index.ONLY_ONE)
    if indexed is None or number - indexed >= search_index.EVERY:
        search_index.follow(tx, number)
    # users who peek into the room wait by its id
    tx.wake_all(state.joined(tx, event.room_id).local, (event.room_id,))
    return position


def set_aside(
    tx: Tx, event: Event, encoded: bytes, standing: str, before: Point | None
) -> EventNumber:
    """Insert an event that is in no timeline; return its number.

    `before` is the state before it; None for an outlier.
    """
    number = _number_if_stored(tx, event) or tx.next_event(places=0)[0]
    relation = relations.NONE
    _insert(tx, event, encoded, (number, None), standing, before, NO_TRANSACTION, None, relation)
    if before is not None:
        gaps.fill(tx, event)
        gaps.add(tx, event.room_id, event.prev_event_ids, None)
    return number


def add_room(tx: Tx, room_id: str, head: state.RoomHead) -> None:
    """Insert a room that has no events yet.

    Raises M_UNKNOWN (503) while an earlier stay of this server in the room is being deleted.
    """
    if tx.sql.execute(_IS_BEING_REMOVED, {"room_id": room_id}):
        raise errors.unknown("The room is being deleted from this server: try again later", 503)
    tx.sql.execute(
        _NEW_ROOM,
        {
            "number": 1 + tx.sql.execute(_LAST_NUMBER).scalar_one(),
            "room_id": room_id,
            "version": head.version,
            "forward_extremities": head.forward_extremities,
            "depth": head.depth,
            "last_position": 0,
            "state_reset_position": 0,
            "is_published": False,
        },
    )
    tx.remember(state.ROOMS, room_id, head)


def begin_anew(tx: Tx, room_id: str, version: str) -> None:
    """Let the next event of a room that this server was not in be the only end of its graph.

    Inserts a room that is not known yet.
    """
    row = tx.sql.execute(_DEPTH, {"room_id": room_id}).first()
    head = state.RoomHead(version, [], 0 if row is None else row.depth)
    if row is None:
        add_room(tx, room_id, head)
        return
    tx.sql.execute(_BEGIN_ANEW, {"in_room": room_id, "new_version": version})
    tx.remember(state.ROOMS, room_id, head)


def set_ends(tx: Tx, room_id: str, event_ids: Sequence[str]) -> None:
    """Make these the ends of a room's graph; called by rechecks.py and `keep_ends` alone."""
    head = state.head(tx, room_id)._replace(forward_extremities=list(event_ids))
    tx.sql.execute(_SET_ENDS, {"in_room": room_id, "ends": head.forward_extremities})
    tx.remember(state.ROOMS, room_id, head)


def keep_ends(tx: Tx, room_id: str, event_ids: Sequence[str]) -> None:
    """Make some ends of a room's graph the only ones, and the state after them the current one."""
    set_ends(tx, room_id, event_ids)
    if forks.after_events(tx, event_ids):
        _merge(tx, room_id, tx.next_position(), None)


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the row of a room, so that nothing can be sent to it; called only by purge.py."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
    tx.forget(state.ROOMS, room_id)
    members.forget_names(tx, room_id)


def _store_dummy(
    tx: Tx,
    event: Event,
    encoded: bytes,
    before: Point | None,
    changes: Changes | None,
    *,
    is_after_gap: bool,
) -> int:
    """Insert an event that joins ends of the graph, and is in no timeline."""
    number, position = tx.next_event(places=0)
    number = _number_if_stored(tx, event) or number
    place = (number, position)
    sent_before = sent_events.before(tx, event) if tx.server.config.federation else None
    head = state.head(tx, event.room_id)
    is_in_line = before is None and set(head.forward_extremities) <= set(event.prev_event_ids)
    before = before or Point(position, {})
    _insert(
        tx, event, encoded, (number, None), ACCEPTED, before, NO_TRANSACTION, None, relations.NONE
    )
    _advance(tx, event, None, is_after_gap=is_after_gap)
    if not is_in_line:
        _merge(tx, event.room_id, tx.next_position(), changes)
    if sent_before is not None:
        sent_events.send(tx, event, encoded, place, sent_before)
    return position


def _number_if_stored(tx: Tx, event: Event) -> EventNumber | None:
    """Return the number of an event that was set aside, which is inserted again next.

    It keeps its number, so whatever refers to it stays true; except where that was given before
    the numbers of its auth events.
    """
    known = state.find_any(tx, event.event_id)
    if known is None:
        return None
    tx.sql.execute(_REMOVE_EVENT, {"which": known.number})
    tx.forget(client_events.CLIENT_EVENTS, known.number)
    if known.standing != OUT_OF_BAND:
        return known.number
    # its auth events have come after it, and must have lower numbers
    number = tx.next_event_number()
    state_changes.renumber(
        tx, event.room_id, (event.type, event.state_key or ""), known.number, number
    )
    return number


def _change_state(tx: Tx, event: Event, place: Place) -> EventNumber | None:
    """Make a state event part of the current state; return the event that it replaces."""
    local_before = state.joined(tx, event.room_id).local
    replaces, moved = state_changes.replace(tx, event, *place)
    if moved is not None:
        current_state.follow_member(tx, event.room_id, moved)
        tx.wake_all(local_before, (moved.user_id,))
    return replaces


def _replaced(tx: Tx, event: Event, before: Point | None) -> EventNumber | None:
    """Return the state event that this one replaces in its own branch."""
    key = (event.type, event.state_key or "")
    known = forks.values(tx, event.room_id, before or forks.current(tx), [key]).get(key)
    return None if known is None else EventNumber(known)


def _repeats_an_end(tx: Tx, event: Event, head: state.RoomHead) -> bool:
    """Return whether the ends of the graph have the same states with an event as before it."""
    is_next = event.state_key is None and len(event.prev_event_ids) == 1
    is_after_end = is_next and event.prev_event_ids[0] in head.forward_extremities
    return is_after_end and not partial_rooms.is_partial(tx, event.room_id)


def _merge(tx: Tx, room_id: str, position: int, changes: Changes | None) -> None:
    """Make the state that all ends of the graph resolve to the current one."""
    if changes is None:
        ends = state.head(tx, room_id).forward_extremities
        merged = forks.resolve(tx, room_id, list(forks.after_events(tx, ends).values()))
        differing = forks.conflicts(tx, room_id, [merged, Point(position, {})])
        changes = {key: new for key, (new, _) in differing.items()}
    if changes:
        current_state.apply(tx, room_id, forks.numbered(tx, room_id, changes), position)


def _insert(
    tx: Tx,
    event: Event,
    encoded: bytes,
    place: tuple[EventNumber, int | None],
    standing: str,
    before: Point | None,
    transaction: Transaction,
    replaces: EventNumber | None,
    relation: Relation,
) -> None:
    number, position = place
    state_at = state_diff = None
    if before is not None:
        # the state is about to change at this position
        at = tx.position if position is None else position - 1
        before = forks.nearest(tx, event.room_id, before, at)
        state_at, state_diff = before.at, forks.keep(tx, event.room_id, before, number)
    tx.sql.execute(
        _INSERT,
        {
            "number": number,
            "event_id": event.event_id,
            "room_id": event.room_id,
            "position": position,
            "standing": standing,
            "state_at": state_at,
            "state_diff": state_diff,
            "type": event.type,
            "state_key": event.state_key,
            "sender": event.sender,
            "origin_server_ts": event.origin_server_ts,
            "pdu": encoded.decode(),
            "replaces": replaces,
            "redacted_by": None,
            "relates_to": relation.relates_to,
            "rel_type": relation.rel_type,
            "thread_id": relation.thread_id,
            "edit_of": relation.edit_of,
            "annotation_key": relation.annotation_key,
            "device_id": transaction[0],
            "txn_id": transaction[1],
        },
    )
    if event.state_key is not None and standing != OUT_OF_BAND:
        auth_chains.add(tx, event, number)
    if sticky.KEY in event.pdu and standing in {ACCEPTED, SOFT_FAILED}:
        sticky_events.note(tx, event, number, position)


def _advance(tx: Tx, event: Event, position: int | None, *, is_after_gap: bool) -> None:
    """Make the event a forward extremity of the room, in place of its `prev_events`.

    Not one that was missing, as others follow it.
    """
    if is_after_gap:
        gaps.add(tx, event.room_id, event.prev_event_ids, position)
    head = state.head(tx, event.room_id)
    ends = [known for known in head.forward_extremities if known not in event.prev_event_ids]
    if tx.server.is_local(event.sender) or not gaps.fill(tx, event):
        ends.append(event.event_id)
    new_head = state.RoomHead(head.version, ends, max(head.depth, event.depth))
    tx.sql.execute(
        _ADVANCE,
        {
            "in_room": event.room_id,
            "extremities": new_head.forward_extremities,
            "new_depth": new_head.depth,
            "position": position,
        },
    )
    tx.remember(state.ROOMS, event.room_id, new_head)


def _keep_client_form(
    tx: Tx, event: Event, transaction: Transaction, place: Place, relation: Relation
) -> None:
    """Cache the form in which the waiting requests of the members will read the event."""
    form = ClientEvent(
        *place,
        event.event_id,
        event.room_id,
        event.pdu,
        client_json(event.event_id, event.pdu),
        relation=relation[:3],
        transaction=transaction,
    )
    tx.remember(client_events.CLIENT_EVENTS, place[0], form)
