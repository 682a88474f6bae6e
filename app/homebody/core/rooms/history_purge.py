"""Deleting a room's old history, up to an event or a time.

The room begins with a later event then. What stays of the time before is in no timeline: the state
events, which later events cite (timeline/removal.py), and if wanted what users of this server have
sent. Nothing is fetched again from other servers, as the gaps before that event are forgotten.

It is done in many short writes, of which each leaves the room whole, the oldest events first. After
an interruption the same call goes on; if nobody calls it again, the room begins where it has ended,
and only the counts of unread messages are as if all of it had been done. The newest event of a room
stays in any case, and so do those that its next event has to cite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from homebody import errors
from homebody.core import audit, tasks
from homebody.core.events import state, state_changes
from homebody.core.push import counts
from homebody.core.tasks import Task
from homebody.core.timeline import gaps, removal
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

ACTION: Final = "purge_history"
"""The name of the task."""
EVENTS_AT_ONCE: Final = 100
"""Per write, so that other writers get their turn: some milliseconds."""

Report = Callable[[Json], None]


def nothing(_so_far: Json) -> None:
    """Report to nobody."""


def bound_at_event(tx: Reader, room_id: str, event_id: str) -> int:
    """Return the position of an event of a room, before which its history may be purged.

    Raises M_NOT_FOUND for an unknown event, M_UNKNOWN (400) for one of another room.
    """
    state.head(tx, room_id)
    found = state.find_any(tx, event_id)
    if found is None or found.position is None:
        raise errors.not_found("There is no such event in the room's history")
    if found.event.room_id != room_id:
        raise errors.unknown("The event is in another room")
    return found.position


def bound_at_time(tx: Reader, room_id: str, ts: int) -> int:
    """Return the position before which all events of a room are older than a time (ms).

    Raises M_NOT_FOUND for a room without such events. Waits: not for a write.
    """
    state.head(tx, room_id)
    position = removal.first_since_ts(tx, room_id, ts)
    if position is None or not removal.has_events_before(tx, room_id, position):
        raise errors.not_found("The room has no events before that time")
    return position


def count_before(tx: Reader, room_id: str, before: int) -> int:
    """Return how many events of a room are before a position."""
    return removal.count_before(tx, room_id, before)


def order(tx: Tx, actor: str, room_id: str, before: int, *, delete_local_events: bool) -> str:
    """Order the task that purges a room's history before a position; return its ID.

    Raises M_UNKNOWN (400) while one of the same room is under way.
    """
    under_way = tasks.select_tasks(
        tx, actions=[ACTION], statuses=[tasks.SCHEDULED, tasks.ACTIVE], resource_id=room_id
    )
    if under_way:
        raise errors.unknown("The history of this room is being purged already")
    note(tx, actor, room_id, before, delete_local_events=delete_local_events)
    params = {"before": before, "delete_local_events": delete_local_events}
    return tasks.add(tx, ACTION, params, room_id)


def note(tx: Tx, actor: str, room_id: str, before: int, *, delete_local_events: bool) -> None:
    """Add the audit log's entry of a purge."""
    details = {"before": before, "delete_local_events": delete_local_events}
    audit.note(tx, actor, "room.purge_history", room_id, **details)


def run(db: Database, task: Task, report: Report) -> Json:
    """Do what `order` has ordered."""
    earlier = (task.result or {}).get("events", 0)
    count = purge_history(
        db,
        task.resource_id or "",
        task.params["before"],
        delete_local_events=task.params["delete_local_events"],
        report=lambda so_far: report({"events": earlier + so_far["events"]}),
    )
    return {"events": earlier + count}


def purge_history(
    db: Database,
    room_id: str,
    before_position: int,
    *,
    delete_local_events: bool,
    report: Report = nothing,
) -> int:
    """Delete a room's history before a position, and return the number of deleted events.

    `report` is called after each write, with their number so far as `events`. With
    `delete_local_events=False` what users of this server have sent stays in the database, as
    nobody else may have it, but is not shown any more. Raises M_NOT_FOUND for an unknown room.
    """
    with db.write() as tx:
        before = _begin(tx, room_id, before_position)
    deleted, is_done = 0, before is None
    while before is not None and not is_done:
        with db.write() as tx:
            done = removal.remove_old_events(
                tx, room_id, before, EVENTS_AT_ONCE, keeps_local=not delete_local_events
            )
            is_done = done.deleted + done.kept < EVENTS_AT_ONCE
            gaps.remove_before(tx, room_id, before if is_done else done.upto)
        deleted += done.deleted
        report({"events": deleted})
        event_loop.pause()
    is_done = before is None
    while before is not None and not is_done:
        with db.write() as tx:
            count = removal.remove_old_set_aside(tx, room_id, before, EVENTS_AT_ONCE)
        is_done = count < EVENTS_AT_ONCE
        event_loop.pause()
    return deleted


def _begin(tx: Tx, room_id: str, before_position: int) -> int | None:
    """Do what concerns the room as a whole; return the position of its first event from now on."""
    ends = state.find_many(tx, state.head(tx, room_id).forward_extremities)
    first = removal.first_since(tx, room_id, before_position)
    if first is None:
        return None
    needed = [it.position for it in ends.values() if it.position is not None]
    before = min([first, *needed])
    counts.remove_before(tx, room_id, before)
    if removal.has_state_before(tx, room_id, before):
        # for clients that have not seen these state events, and will not in the timeline
        state_changes.note_reset(tx, room_id, before)
    return before
