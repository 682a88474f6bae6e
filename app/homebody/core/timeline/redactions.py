"""Redactions: removing everything that the server has derived from an event's content.

`DERIVED` is the whole list. Anything new that is stored beside the events (a column, a table, a
cache) must be added to it, or it survives the redaction. Data that is read from the redacted event
needs no entry: name, topic and avatar of a room in the directory, spaces, summaries and pushes;
names of members; permissions, pinned events; filters by content; rows of the outbox, which refer to
an event by its number or position.

The specification says what a redaction keeps (spec/events.py): memberships, join rules, most of the
power levels. So the tables of state are not changed.
Spec: client-server-api#redactions
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import client_events, members, search_index, state
from homebody.core.push import counts
from homebody.core.timeline import leaving_threads
from homebody.models.base import EventNumber
from homebody.models.event_graph import PendingRedaction
from homebody.models.events import StoredEvent
from homebody.spec import event_auth, events, room_state
from homebody.spec.events import Event
from homebody.storage.database import Tx

_STRIP = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(
        pdu=bindparam("redacted"),
        redacted_by=bindparam("by"),
        relates_to=None,
        rel_type=None,
        thread_id=None,
        edit_of=None,
        annotation_key=None,
    )
)
_WAIT = insert(PendingRedaction).on_conflict_do_nothing()
_WAITING = (
    select(StoredEvent.number, StoredEvent.event_id, StoredEvent.pdu)
    .join(PendingRedaction, PendingRedaction.redaction == StoredEvent.number)
    .where(PendingRedaction.target_id == bindparam("target_id"))
    .order_by(StoredEvent.number)
)
_DROP = delete(PendingRedaction).where(PendingRedaction.target_id == bindparam("of_target"))
_REMOVE_ROOM = delete(PendingRedaction).where(PendingRedaction.room_id == bindparam("the_room"))
_FORGET = delete(PendingRedaction).where(PendingRedaction.redaction == bindparam("which"))
_REPLACED_BY = select(StoredEvent.number).where(StoredEvent.replaces == bindparam("number"))
_THREAD = select(StoredEvent.thread_id).where(StoredEvent.number == bindparam("number"))


class Redaction(NamedTuple):
    """An allowed redaction."""

    target: Event
    number: EventNumber
    """Of the target."""
    position: int | None
    """Of the target; None: it stands in no timeline."""
    by: EventNumber
    """The redaction."""


class Derived(NamedTuple):
    """Something derived from an event's content, and the function that removes it."""

    what: str
    undo: Callable[[Tx, Redaction], None]


def apply(tx: Tx, event: Event, number: EventNumber) -> None:
    """Redact the target of this redaction, if its sender may do so.

    A target that is not stored yet will be redacted when it is.
    """
    found = state.find_any(tx, event.redacts or "")
    if found is None:
        row = {"room_id": event.room_id, "target_id": event.redacts, "redaction": number}
        tx.sql.execute(_WAIT, row)
        return
    if found.event.room_id != event.room_id:
        return
    target = found.event
    auth_state = state.current_many(tx, event.room_id, [room_state.CREATE, room_state.POWER_LEVELS])
    if not event_auth.may_redact(event, target, room_state.power_levels(auth_state)):
        return
    for derived in DERIVED:
        derived.undo(tx, Redaction(target, found.number, found.position, number))


def follow(tx: Tx, event: Event) -> None:
    """Apply the redactions of an event that came before it; called when an event is stored."""
    waiting = tx.sql.execute(_WAITING, {"target_id": event.event_id}).all()
    if not waiting:
        return
    tx.sql.execute(_DROP, {"of_target": event.event_id})
    for row in waiting:
        redaction = Event(row.event_id, orjson.loads(row.pdu), event.version)
        apply(tx, redaction, row.number)


def forget(tx: Tx, numbers: Collection[EventNumber]) -> None:
    """Forget redactions that wait for their targets, as they are deleted themselves."""
    tx.sql.execute(_FORGET, [{"which": number} for number in numbers])


def remove_room(tx: Tx, room_id: str) -> None:
    """Forget the redactions of a room that wait; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})


def _forget_notifications(tx: Tx, done: Redaction) -> None:
    if done.position is not None:
        counts.forget(tx, done.target, done.position)


def _forget_words(tx: Tx, done: Redaction) -> None:
    search_index.forget(tx, done.number)


def _leave_thread(tx: Tx, done: Redaction) -> None:
    """Move events that relate to a reply out of its thread, unless they are many.

    leaving_threads.follow moves the remaining ones after the write.
    """
    thread_id = tx.sql.execute(_THREAD, {"number": done.number}).scalar()
    if thread_id is not None:
        leaving_threads.at_once(tx, done.target.room_id, done.target.event_id, thread_id)


def _strip(tx: Tx, done: Redaction) -> None:
    left = events.redact(done.target.pdu, done.target.version)
    redacted = events.encode(left, done.target.version).decode()
    tx.sql.execute(_STRIP, {"which": done.number, "redacted": redacted, "by": done.by})


def _forget_forms(tx: Tx, done: Redaction) -> None:
    """Drop the cached form of the event, and of the state event that has it as the previous one."""
    tx.forget(client_events.CLIENT_EVENTS, done.number)
    if done.target.state_key is not None:
        for shown in tx.sql.execute(_REPLACED_BY, {"number": done.number}).scalars():
            tx.forget(client_events.CLIENT_EVENTS, shown)


def _forget_state(tx: Tx, done: Redaction) -> None:
    if done.target.state_key is not None:
        key = (done.target.type, done.target.state_key)
        tx.forget(state.STATE, (done.target.room_id, key))


def _forget_names(tx: Tx, done: Redaction) -> None:
    if done.target.type == state.MEMBER:
        members.forget_names(tx, done.target.room_id)


DERIVED: Final = (
    Derived("notifications, and the counts of unread ones and highlights", _forget_notifications),
    Derived("the words by which a search finds it", _forget_words),
    Derived("the thread of events that relate to it", _leave_thread),
    Derived("its relation, its thread, and which event it edits", _strip),
    Derived("its form for clients, also as previous content of others", _forget_forms),
    Derived("the room's current state in memory", _forget_state),
    Derived("the names by which messages mention members", _forget_names),
)
"""In this order: the event's columns are read before they are emptied."""
