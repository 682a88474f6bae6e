"""Tasks: work that takes long, which administrators start and whose status they ask for.

A task is a row, written in the transaction in which it is ordered, so that it goes on after a
restart. `background/tasks.py` runs them. A task that is cancelled ends at its next report, unless
it has come to what must not stay half done (`seal`). This module alone writes the table tasks.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, delete, insert, select, update

from homebody import errors
from homebody.core import audit
from homebody.models.moderation import Task as TaskRow
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long the outcome of a task can be asked for."""
SCHEDULED, ACTIVE, COMPLETE, FAILED = "scheduled", "active", "complete", "failed"
CANCELLED: Final = "cancelled"
STATUSES: Final = (SCHEDULED, ACTIVE, COMPLETE, FAILED, CANCELLED)

_ALL = select(
    TaskRow.id,
    TaskRow.action,
    TaskRow.resource_id,
    TaskRow.status,
    TaskRow.params,
    TaskRow.result,
    TaskRow.error,
    TaskRow.created_ts,
    TaskRow.updated_ts,
    TaskRow.can_be_cancelled,
)
_CHANGE = update(TaskRow).where(TaskRow.id == bindparam("task_id"))
_GO_ON = _CHANGE.where(TaskRow.status != CANCELLED)


class CancelledError(Exception):
    """An administrator has cancelled the task, or its row is gone."""


@dataclass(frozen=True, slots=True)
class Task:
    """A row of the table tasks."""

    id: str
    action: str
    resource_id: str | None
    status: str
    params: Json
    result: Json | None
    error: str | None
    created_ts: int  # ms
    updated_ts: int  # ms
    can_be_cancelled: bool

    @property
    def is_under_way(self) -> bool:
        """Whether it waits or runs."""
        return self.status in {SCHEDULED, ACTIVE}


def add(tx: Tx, action: str, params: Json, resource_id: str | None = None) -> str:
    """Order a task, and return its id. The server starts it after the COMMIT."""
    ended = TaskRow.status.in_((COMPLETE, FAILED, CANCELLED))
    tx.sql.execute(delete(TaskRow).where(ended, TaskRow.updated_ts < tx.now_ms - KEPT_MS))
    task_id = secrets.token_hex(8)  # a leading "-" would be an option to tools
    times = {"created_ts": tx.now_ms, "updated_ts": tx.now_ms}
    row = {"id": task_id, "action": action, "resource_id": resource_id, "params": params, **times}
    tx.sql.execute(insert(TaskRow), {**row, "status": SCHEDULED})
    tx.deliver("task", action)
    return task_id


def find(tx: Reader, task_id: str, action: str | None = None) -> Task:
    """Return a task, of this action if one is given. Raises M_NOT_FOUND."""
    row = tx.sql.execute(_ALL.where(TaskRow.id == task_id)).first()
    if row is None or action not in {None, row.action}:
        raise errors.not_found("There is no such task, or it ended over a week ago")
    return Task(*row)


def select_tasks(
    tx: Reader,
    *,
    actions: Collection[str] = (),
    statuses: Collection[str] = (),
    resource_id: str | None = None,
    created_before_ts: int | None = None,
) -> list[Task]:
    """Return the tasks that match all conditions which are given, oldest first."""
    statement = _ALL.order_by(TaskRow.created_ts, TaskRow.id)
    if actions:
        statement = statement.where(TaskRow.action.in_(sorted(actions)))
    if statuses:
        statement = statement.where(TaskRow.status.in_(sorted(statuses)))
    if resource_id is not None:
        statement = statement.where(TaskRow.resource_id == resource_id)
    if created_before_ts is not None:
        statement = statement.where(TaskRow.created_ts < created_before_ts)
    return [Task(*row) for row in tx.sql.execute(statement)]


def record(
    tx: Tx, task_id: str, status: str, *, result: Json | None = None, error: str | None = None
) -> None:
    """Set the status of a task, and what has come of it so far.

    Raises CancelledError in place of making a cancelled task active again. One that ends before it
    notices has the outcome that it has.
    """
    values: dict[str, object] = {"status": status, "updated_ts": tx.now_ms, "error": error}
    if result is not None:
        values["result"] = result
    change = _GO_ON if status == ACTIVE else _CHANGE
    changed = tx.sql.execute(change.values(**values), {"task_id": task_id}).rowcount
    if status == ACTIVE and not changed:
        raise CancelledError


def seal(tx: Tx, task_id: str) -> None:
    """Have a task run to its end from here on: called in the write from which it must not stop.

    Raises CancelledError if it is cancelled already.
    """
    if not tx.sql.execute(_GO_ON.values(can_be_cancelled=False), {"task_id": task_id}).rowcount:
        raise CancelledError


def cancel(tx: Tx, actor: str, task_id: str) -> Task:
    """Cancel a task and return it. What it has done so far stays done.

    Raises M_NOT_FOUND; M_UNKNOWN (400) for one that has ended, or can't be stopped any more.
    """
    task = find(tx, task_id)
    if not task.is_under_way:
        raise errors.unknown(f"The task has ended: it is {task.status}")
    if not task.can_be_cancelled:
        raise errors.unknown("The task can't be stopped any more: half of it would be done")
    record(tx, task_id, CANCELLED)
    audit.note(tx, actor, "task.cancel", task.resource_id, task=task_id, kind=task.action)
    return find(tx, task_id)
