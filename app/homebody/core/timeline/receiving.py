"""How an event of another server comes into a room, once its form and signatures are checked.

The checks are those of the specification, in its order: the event's own auth events must allow it,
then the state before it (else it is *rejected*), then the current state (else it is *soft-failed*:
it belongs to the graph, but is not shown). The events that it follows must be stored already; what
is missing is fetched by core/federation.

Spec: server-server-api#checks-performed-on-receipt-of-a-pdu (steps 4 to 7),
server-server-api#rejection, server-server-api#soft-failure
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.timeline import (
    forks,
    partial_state,
    plans,
    policies,
    redactions,
    sticky_events,
    store,
)
from homebody.core.timeline.forks import Point
from homebody.core.timeline.plans import Plan
from homebody.models.events import ACCEPTED, OUT_OF_BAND, OUTLIER, REJECTED, SOFT_FAILED
from homebody.spec import event_auth, events, room_state
from homebody.spec.events import Event, StateKey
from homebody.spec.room_state import AuthError
from homebody.storage.database import Reader, Tx

LOG = logging.getLogger(__name__)

UNDECIDED: Final = frozenset({OUTLIER, REJECTED, OUT_OF_BAND})
"""Standings that may become another when the event comes again, as more is known."""


class MissingEventsError(LookupError):
    """An event follows or cites events that are not stored."""

    def __init__(self, prev_events: Collection[str], auth_events: Collection[str]) -> None:
        super().__init__(f"Missing events: {[*prev_events, *auth_events]}")
        self.prev_events = prev_events
        self.auth_events = auth_events


def receive(
    tx: Tx, event: Event, encoded: bytes, before: Point | None = None, planned: Plan | None = None
) -> str:
    """Store an event of another server; return its standing.

    `before` is the state before it as another server has it, where events before it are missing. An
    event that is stored already keeps its standing, unless it was an outlier or
    rejected: now more may be known. One that the room's policy server has not signed is
    soft-failed. `planned`: what it does to the room's state, if that has been found out.
    Raises MissingEventsError, TooLongError in a limited write; nothing is to be kept of that write.
    """
    known = state.find_any(tx, event.event_id)
    if known is not None and known.standing not in UNDECIDED:
        return known.standing
    cited = _auth_events(tx, event)
    if partial_rooms.is_partial(tx, event.room_id):
        _learn_members(tx, event, cited)
        planned = None  # it does not know them
    if planned is not None and not plans.holds(tx, planned):
        planned = None
    is_after_gap = before is not None
    present = forks.current(tx)
    if planned is None:
        before, now = states(tx, event, before)
    else:
        before, now = planned.before or present, planned.now
    standing = _judge(tx, event, cited, before, now)
    if standing == ACCEPTED and not policies.is_approved(tx, event):
        LOG.info("%s is soft-failed, as the policy server has not signed it", event.event_id)
        standing = SOFT_FAILED
    tx.server.metrics.pdus_received[standing] += 1
    if standing == ACCEPTED:
        before = None if before == present else before
        changes = None if planned is None else planned.changes
        store.store(tx, event, encoded, before=before, is_after_gap=is_after_gap, changes=changes)
    else:
        store.set_aside(tx, event, encoded, standing, before)
    redactions.follow(tx, event)
    if standing == ACCEPTED and sticky_events.is_any(tx):
        _show_sticky(tx, event.room_id)
    return standing


def _show_sticky(tx: Tx, room_id: str) -> None:
    """Store the sticky events that were soft-failed and are allowed by the current state now.

    "Soft-failure checks MUST be re-evaluated when the membership state changes for a user with
    unexpired sticky events" (MSC4354).
    """
    for known in state.find_many(tx, sticky_events.hidden(tx, room_id)).values():
        event = known.event
        if event.state_key is not None or not policies.is_approved(tx, event):
            continue
        try:
            event_auth.check(event, state.current_many(tx, room_id, auth_types(event)))
        except AuthError:
            continue
        before, present = forks.before_event(tx, event.event_id), forks.current(tx)
        encoded = events.encode(event.pdu, event.version)
        store.store(tx, event, encoded, before=None if before == present else before)


def states(tx: Reader, event: Event, before: Point | None) -> tuple[Point, Point]:
    """Return the state before an event, and the current state by which it may be soft-failed.

    `before` is the former where it is given. Raises MissingEventsError, TooLongError.
    """
    is_after_gap = before is not None
    before = state_before(tx, event) if before is None else _with_known(tx, event, before)
    present = forks.current(tx)
    if not forks.may_differ(tx, event.room_id, before, present):
        before = present
    if partial_rooms.is_partial(tx, event.room_id):  # without the members, nothing is soft-failed
        return before, before
    if is_after_gap:  # its sender may have joined in the gap
        return before, forks.resolve(tx, event.room_id, [present, before])
    return before, present


def plan(tx: Reader, event: Event, before: Point | None) -> Plan:
    """Return what an event does to the state of its room, for `receive`.

    A state event has to be an outlier already. Raises MissingEventsError, TooLongError.
    """
    before, now = states(tx, event, before)
    standing = _judge(tx, event, _auth_events(tx, event), before, now)
    is_allowed = standing == ACCEPTED and policies.is_approved(tx, event)
    return plans.make(tx, event, before, now, is_allowed=is_allowed)


def is_useless(tx: Reader, origin: str, event: Event, before: Point | None = None) -> bool:
    """Return whether an event is rejected that a server sends which is not in the room.

    Anybody could fill the disk with those. If another event follows one, it is fetched.
    Raises MissingEventsError, TooLongError.
    """
    is_there = origin in state.joined(tx, event.room_id).servers
    if is_there or partial_rooms.is_partial(tx, event.room_id):
        return False
    before, now = states(tx, event, before)
    return _judge(tx, event, _auth_events(tx, event), before, now) == REJECTED


def receive_outlier(tx: Tx, event: Event, encoded: bytes) -> str:
    """Store an event that others cite, without a place in the room's history.

    Returns its standing. Only its auth events decide whether it is rejected.
    Raises MissingEventsError.
    """
    known = state.find_any(tx, event.event_id)
    if known is not None and known.standing != OUT_OF_BAND:
        return known.standing
    cited = _auth_events(tx, event)
    create = state.current(tx, event.room_id, *room_state.CREATE)
    standing = OUTLIER
    try:
        check_by_auth_events(event, cited, create)
    except AuthError as problem:
        LOG.info("%s is rejected: %s", event.event_id, problem)
        standing = REJECTED
    store.set_aside(tx, event, encoded, standing, None)
    return standing


def missing(tx: Reader, event: Event) -> MissingEventsError | None:
    """Return which events `receive` would lack for this one, or None."""
    prev_events = _without_state(tx, event)
    known = state.find_many(tx, event.auth_event_ids)
    auth_events = [it for it in event.auth_event_ids if it not in known]
    if prev_events or auth_events:
        return MissingEventsError(prev_events, auth_events)
    return None


def state_before(tx: Reader, event: Event) -> Point:
    """Return the state before an event, by those that it follows. Raises MissingEventsError."""
    if not event.prev_event_ids:
        return Point(0, {})
    head = state.head(tx, event.room_id)
    if set(head.forward_extremities) == set(event.prev_event_ids):
        return forks.current(tx)
    points = forks.after_events(tx, event.prev_event_ids)
    if lacking := [it for it in event.prev_event_ids if it not in points]:
        raise MissingEventsError(lacking, [])
    return forks.resolve(tx, event.room_id, list(points.values()))


def _with_known(tx: Reader, event: Event, claimed: Point) -> Point:
    """Resolve the state before an event, as a server `claimed` it, with that after known events.

    Else anybody could undo bans: an event that follows all ends of the room's graph, and something
    that nobody has, would be the only end, and what the server claims the current state.
    """
    known = forks.after_events(tx, event.prev_event_ids)
    return forks.resolve(tx, event.room_id, [claimed, *known.values()]) if known else claimed


def _without_state(tx: Reader, event: Event) -> list[str]:
    head = state.head(tx, event.room_id)
    others = [it for it in event.prev_event_ids if it not in head.forward_extremities]
    known = forks.after_events(tx, others) if others else {}
    return [it for it in others if it not in known]


def _auth_events(tx: Reader, event: Event) -> list[state.KnownEvent]:
    known = state.find_many(tx, event.auth_event_ids)
    if lacking := [it for it in event.auth_event_ids if it not in known]:
        raise MissingEventsError([], lacking)
    return [known[event_id] for event_id in event.auth_event_ids]


def _learn_members(tx: Tx, event: Event, cited: list[state.KnownEvent]) -> None:
    """Take the members that an event cites for those of its partial room."""
    try:
        check_by_auth_events(event, cited, state.current(tx, event.room_id, *room_state.CREATE))
    except AuthError:
        return
    partial_state.learn_cited(tx, event.room_id, auth_types(event), cited)


def _judge(
    tx: Reader, event: Event, cited: list[state.KnownEvent], before: Point, now: Point
) -> str:
    """Return the standing of an event by the rules of its room; `now` is its current state."""
    needed = auth_types(event)
    current = state.current_many(tx, event.room_id, needed)
    present = forks.current(tx)
    state_then, state_now = (
        current if it == present else forks.events(tx, event.room_id, it, needed)
        for it in (before, now)
    )
    try:
        check_by_auth_events(event, cited, current.get(room_state.CREATE))
        event_auth.check(event, state_then)
    except AuthError as problem:
        LOG.info("%s is rejected: %s", event.event_id, problem)
        return REJECTED
    try:
        if now != before:
            event_auth.check(event, state_now)
    except AuthError as problem:
        LOG.info("%s is soft-failed: %s", event.event_id, problem)
        return SOFT_FAILED
    return ACCEPTED


def check_by_auth_events(event: Event, cited: list[state.KnownEvent], create: Event | None) -> None:
    """Raise AuthError unless the auth events of an event allow it.

    `create`: the create event, which others don't cite in newer room versions.
    """
    rejected = {it.event.event_id for it in cited if it.standing == REJECTED}
    auth_events = [it.event for it in cited]
    event_auth.check_auth_events(event, auth_events, rejected)
    by_key = {(it.type, it.state_key or ""): it for it in auth_events}
    if event.version.has_privileged_creators:  # its auth events leave the create event out
        event_auth.check(event, by_key, create)
    else:
        event_auth.check(event, by_key)


def auth_types(event: Event) -> set[StateKey]:
    """Return the entries of the state that decide whether an event is allowed."""
    keys = event_auth.auth_types(
        event.version, event.type, event.state_key, event.sender, event.content
    )
    return {room_state.CREATE, *keys}
