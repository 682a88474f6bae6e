"""Plans: what an event does to the state of its room, found out before the write that stores it.

State resolution of thousands of entries takes seconds, and nobody else may write meanwhile. So it
is done on a snapshot, and the write only checks that the room's ends still have the same states. An
event that is not allowed has no effect, so nothing but the state before it is planned.

If thousands of memberships change, those of users elsewhere change in writes before that of the
event: should the server stop in between, the room is as if it knew some of their events already,
and the event, which waits on the disk, changes the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from homebody.core.events import auth_chains, state
from homebody.core.timeline import current_state, forks, gaps
from homebody.core.timeline.forks import Point
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Reader, Tx

CHANGES_AT_ONCE: Final = 50
"""Of the state, in one write."""


class Plan(NamedTuple):
    """What an event does to the state of its room."""

    event: Event
    ends: list[str]
    """Of the room's graph, when the plan was made."""
    at: int
    """The position at which it was made."""
    before: Point | None
    """The state before the event; None: the current state."""
    now: Point
    """The current state by which the event may be soft-failed."""
    changes: Mapping[StateKey, int | None] | None
    """The numbers of the events that become current state with the event; None: it is not allowed,
    so nobody has found out."""
    early: Mapping[StateKey, int | None]
    """The same, before the event."""


def make(tx: Reader, event: Event, before: Point, now: Point, *, is_allowed: bool) -> Plan:
    """Return the plan for an event, which is an outlier so far if it is a state event.

    `before`: the state before it; `now`: see Plan. Raises TooLongError.
    """
    ends = state.head(tx, event.room_id).forward_extremities
    present = forks.current(tx)
    if not is_allowed:
        near = None if before == present else forks.nearest(tx, event.room_id, before, tx.position)
        return Plan(event, ends, tx.position, near, now, None, {})
    changes = _changes(tx, event, before, ends, present)
    remote = sorted(
        key for key in changes if key[0] == state.MEMBER and not tx.server.is_local(key[1])
    )
    own = (event.type, event.state_key or "")
    early = [it for it in remote if it != own] if len(changes) > CHANGES_AT_ONCE else []
    is_present = before == present and not early
    return Plan(
        event,
        ends,
        tx.position,
        None if is_present else forks.nearest(tx, event.room_id, before, tx.position),
        now,
        {key: changes[key] for key in changes.keys() - early},
        {key: changes[key] for key in early},
    )


def holds(tx: Tx, plan: Plan) -> bool:
    """Return whether the ends of the room have the same states as when a plan was made.

    Else users of this server who talk meanwhile would hold up the event for ever.
    """
    room_id = plan.event.room_id
    ends = state.head(tx, room_id).forward_extremities
    if ends == plan.ends:
        return True
    cited = plan.event.prev_event_ids
    others, others_now = ([it for it in all_ if it not in cited] for all_ in (plan.ends, ends))
    if len(others) != 1 or len(others_now) != 1:
        return False
    present = forks.current(tx)
    points = [Point(plan.at, {}), *forks.after_events(tx, [*others, *others_now]).values()]
    return not any(forks.may_differ(tx, room_id, present, it) for it in points)


def change_some(tx: Tx, plan: Plan, some: Mapping[StateKey, int | None]) -> None:
    """Make some of the early changes of a plan."""
    room_id = plan.event.room_id
    current_state.apply(tx, room_id, forks.numbered(tx, room_id, some), tx.next_position())


def _changes(
    tx: Reader, event: Event, before: Point, ends: list[str], present: Point
) -> dict[StateKey, int | None]:
    """Return what the current state becomes by an event, as store.py would find out."""
    if before == present and set(ends) <= set(event.prev_event_ids):
        return {}
    others = [it for it in ends if it not in event.prev_event_ids]
    points = list(forks.after_events(tx, others).values())
    if not gaps.is_missing(tx, event):  # else others follow it
        points.append(_after(tx, event, before))
    merged = forks.resolve(tx, event.room_id, points)
    differing = forks.conflicts(tx, event.room_id, [merged, present])
    return {key: new for key, (new, _) in differing.items()}


def _after(tx: Reader, event: Event, before: Point) -> Point:
    if event.state_key is None:
        return before
    number = auth_chains.numbers_of(tx, [event.event_id])[event.event_id]
    return Point(before.at, {**before.overlay, (event.type, event.state_key): number})
