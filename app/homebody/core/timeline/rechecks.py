"""The events of a partial room, checked again when its members are known.

While they were not, events were believed more than they should be: by the member events that they
cite. Now each is checked by the state before it, in their order. Those that it does not allow are
rejected: they leave the timeline and the state, and what they had replaced is state again.

Others were rejected because of such events, and come again. What had followed a state event among
them has been stored with a state that lacks it: that is corrected afterwards.

This module writes the table events, like store.py.
Spec: server-server-api#checks-performed-on-receipt-of-a-pdu, server-server-api#rejection
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, func, or_, select, update

from homebody.core.events import client_events, past_state, search_index, state
from homebody.core.push import counts
from homebody.core.timeline import current_state, differences, forks, receiving, store
from homebody.core.timeline.limits import TooLongError
from homebody.models.base import EventNumber
from homebody.models.events import ACCEPTED, REJECTED, StoredEvent
from homebody.spec import event_auth
from homebody.spec.events import Event, StateKey
from homebody.spec.room_state import AuthError
from homebody.storage.database import Reader, Tx

LOG = logging.getLogger(__name__)

AT_ONCE: Final = 50

_AFTER = (
    select(*state.EVENT_COLUMNS, StoredEvent.position)
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.position > bindparam("after"),
        StoredEvent.standing == ACCEPTED,
    )
    .order_by(StoredEvent.position)
    .limit(AT_ONCE)
)
_REJECTED = (
    select(StoredEvent.event_id, StoredEvent.pdu)
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.number > bindparam("after"),
        StoredEvent.position.is_(None),
        StoredEvent.standing == REJECTED,
        StoredEvent.state_at.is_not(None),
    )
    .order_by(StoredEvent.number)
    .limit(bindparam("count"))
)
_REJECT = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(
        standing=REJECTED,
        position=None,
        state_at=func.coalesce(StoredEvent.state_at, StoredEvent.position - 1),
        relates_to=None,
        rel_type=None,
        thread_id=None,
        edit_of=None,
        annotation_key=None,
    )
)
_LATER = (
    select(*state.EVENT_COLUMNS, StoredEvent.position, StoredEvent.standing)
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.number > bindparam("after"),
        or_(StoredEvent.position.is_not(None), StoredEvent.state_at.is_not(None)),
    )
    .order_by(StoredEvent.number)
    .limit(AT_ONCE)
)
_SET_STATE = (
    update(StoredEvent)
    .where(StoredEvent.number == bindparam("which"))
    .values(state_at=bindparam("at"), state_diff=bindparam("difference"))
)
_FOLLOW_ANOTHER = (
    update(StoredEvent)
    .where(StoredEvent.replaces == bindparam("old"))
    .values(replaces=bindparam("new"))
    .returning(StoredEvent.number)
)


class _Refused(NamedTuple):
    number: EventNumber
    position: int
    event: Event


class Recheck:
    """The check of a room's events after a position, in many short transactions."""

    def __init__(self, room_id: str, after: int) -> None:
        self._room_id = room_id
        self._upto = after
        self._refused: list[_Refused] = []
        self._instead: dict[int, int | None] = {}
        """{number of a refused state event: number of the one that it replaced, or None}"""
        self._followed: set[str] = set()
        """The events that those follow which are allowed."""

    def go_on(self, tx: Reader, seconds: float) -> bool:
        """Check the next events; return whether there are more."""
        until = time.monotonic() + seconds
        while True:
            asked = {"room_id": self._room_id, "after": self._upto}
            rows = tx.sql.execute(_AFTER, asked).all()
            for row in rows:
                self._check(tx, _Refused(row.number, row.position, state.event_of(tx, row)))
                self._upto = row.position
                if time.monotonic() > until:
                    return True
            if len(rows) < AT_ONCE:
                return False

    def apply(self, tx: Tx, position: int) -> None:
        """Reject the events that were refused, from a position on."""
        changes: dict[StateKey, int | None] = {}
        keys = {_key(it.event) for it in self._refused if it.event.state_key is not None}
        for key, entry in state.entries(tx, self._room_id, keys).items():
            if entry.number in self._instead:
                changes[key] = self._instead[entry.number]
        numbered = forks.numbered(tx, self._room_id, changes)
        current_state.apply(tx, self._room_id, numbered, position)
        for refused in self._refused:
            LOG.info("%s is rejected, as all members are known", refused.event.event_id)
            self._reject(tx, refused)
        if self._refused:
            self._retract_ends(tx)
            tx.caches.recent.reset(tx.position)

    def _check(self, tx: Reader, it: _Refused) -> None:
        before = forks.before_event(tx, it.event.event_id)
        if before is None:
            return
        needed = receiving.auth_types(it.event)
        own = _key(it.event)
        numbers = forks.values(tx, self._room_id, before, {*needed, own})
        held = {key: self._instead.get(number, number) for key, number in numbers.items()}
        found = forks.numbered(tx, self._room_id, {key: held.get(key) for key in needed})
        try:
            event_auth.check(it.event, {key: one[1] for key, one in found.items() if one})
        except AuthError as problem:
            LOG.info("%s is not allowed by the full state: %s", it.event.event_id, problem)
            self._refused.append(it)
            if it.event.state_key is not None:
                self._instead[it.number] = held.get(own)
        else:
            self._followed.update(it.event.prev_event_ids)

    def _retract_ends(self, tx: Tx) -> None:
        """Let the graph end before the refused events, which nothing new may follow."""
        refused = {it.event.event_id: it.event for it in self._refused}
        known = state.head(tx, self._room_id).forward_extremities
        ends, waiting = dict.fromkeys(it for it in known if it not in refused), list(known)
        while waiting:
            event = refused.pop(waiting.pop(), None)
            for before in event.prev_event_ids if event is not None else ():
                if before in refused:
                    waiting.append(before)
                elif before not in self._followed:
                    ends[before] = None
        store.set_ends(tx, self._room_id, list(ends))

    def _reject(self, tx: Tx, refused: _Refused) -> None:
        number, position, event = refused
        counts.forget(tx, event, position)
        search_index.forget(tx, number)
        tx.sql.execute(_REJECT, {"which": number})
        tx.forget(client_events.CLIENT_EVENTS, number)
        if event.state_key is None:
            return
        key, instead = _key(event), self._instead[number]
        older = forks.numbered(tx, self._room_id, {key: instead})[key]
        membership = None if older is None else older[1].content.get("membership")
        is_member = key[0] == state.MEMBER
        entry = None if older is None else (older[0], membership if is_member else None)
        past_state.retract(tx, self._room_id, key, number, entry)
        differences.replace(tx, self._room_id, key, number, instead)
        for later in tx.sql.execute(_FOLLOW_ANOTHER, {"old": number, "new": instead}).scalars():
            tx.forget(client_events.CLIENT_EVENTS, later)  # they show what they replace


class Correction:
    """The states before what follows state events that are accepted late, in many short writes."""

    def __init__(self, room_id: str, late: Mapping[str, int]) -> None:
        """`late`: {event ID: number} of those state events."""
        self._room_id = room_id
        self._late = late.keys()
        self._changed = set(late)
        """The events after which the state is another than what was stored."""
        self._upto = min(late.values())
        self._followed: set[str] = set()
        """The events that accepted ones follow."""

    def go_on(self, tx: Tx, seconds: float) -> bool:
        """Correct the next states; return whether there are more events."""
        until = time.monotonic() + seconds
        tx.seconds_to_resolve = seconds
        rows = tx.sql.execute(_LATER, {"room_id": self._room_id, "after": self._upto}).all()
        for row in rows:
            self._upto = row.number
            event = state.event_of(tx, row)
            if not self._changed.isdisjoint(event.prev_event_ids):
                if row.standing == ACCEPTED:
                    self._followed.update(event.prev_event_ids)
                with suppress(TooLongError):
                    self._correct(tx, event, row.number, row.position)
            if time.monotonic() > until:
                return True
        return len(rows) == AT_ONCE

    def finish(self, tx: Tx) -> None:
        """Let the room's graph not end with the late events that others follow, nor before them."""
        followed, waiting = self._followed, list(self._late)
        while waiting:  # what they follow may be rejected, and the graph end before that
            for known in state.find_many(tx, [waiting.pop()]).values():
                before = [it for it in known.event.prev_event_ids if it not in followed]
                followed.update(before)
                found = state.find_many(tx, before).items()
                waiting += [event_id for event_id, it in found if it.standing == REJECTED]
        ends = state.head(tx, self._room_id).forward_extremities
        kept = [it for it in ends if it not in followed]
        if len(kept) < len(ends):
            store.keep_ends(tx, self._room_id, kept)

    def _correct(self, tx: Tx, event: Event, number: int, position: int | None) -> None:
        known = forks.before_event(tx, event.event_id)
        points = forks.after_events(tx, event.prev_event_ids)
        if known is None or len(points) < len(set(event.prev_event_ids)):
            return  # another server has said what the state was
        before = forks.resolve(tx, self._room_id, list(points.values()))
        if not forks.may_differ(tx, self._room_id, known, before):
            return
        at = known.at if position is None else position - 1
        before = forks.nearest(tx, self._room_id, before, at)
        difference = forks.keep(tx, self._room_id, before, tx.next_event_number())
        changes = {"which": number, "at": before.at, "difference": difference}
        tx.sql.execute(_SET_STATE, changes)
        self._changed.add(event.event_id)


def rejected_since(tx: Reader, room_id: str, number: int, count: int) -> Iterable[Event]:
    """Return events that were rejected when less was known: stored after the event `number`."""
    asked = {"room_id": room_id, "after": number, "count": count}
    version = state.version(tx, room_id)
    rows = tx.sql.execute(_REJECTED, asked).all()
    return [Event(row.event_id, orjson.loads(row.pdu), version) for row in rows]


def _key(event: Event) -> StateKey:
    return event.type, event.state_key or ""
