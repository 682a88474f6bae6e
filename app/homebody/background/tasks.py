"""Run the tasks that administrators have ordered, a few at once, each in a greenlet.

Of each action one runs at a time, and one for each room or user, in the order in which they were
ordered: a long one delays only those of its kind.

A task that a restart has interrupted is run again, so the function behind an action has to be one
that can be repeated: it does its work in many short transactions, each of which leaves the database
whole, and looks up what is left to do. So it can also be cancelled at each report, or in any write
in which it records how far it has got.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from homebody.core import tasks
from homebody.core.tasks import CancelledError, Task
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage import disk_errors
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

KIND: Final = "task"
"""The kind of deliveries by which tasks.add tells of new tasks."""
AT_ONCE: Final = 3
REPORTED_EVERY_S: Final = 0.3
"""Each report that is stored is a write. It is also how late a cancellation may be noticed."""
_SECONDS_AFTER_AN_ERROR: Final = 30.0
_SECONDS_TO_STOP: Final = 1.0

Report = Callable[[Json], None]
"""Note what has come of the task so far; may be called often.

Raises StoppedError when the server stops, CancelledError when the task is cancelled."""
Run = Callable[[Database, Task, Report], Json]
"""Do the work of a task and return its result. Raises MatrixError when it can't be done."""


class StoppedError(Exception):
    """The server stops: the task goes on after the restart."""


class Tasks:
    """The greenlets that run tasks. `start` after fork; `stop` before closing the database."""

    def __init__(self, db: Database, actions: Mapping[str, Run]) -> None:
        self._db = db
        self._actions = actions
        self._new = threading.Event()
        self._stopping = threading.Event()
        self._running: dict[str, tuple[Task, threading.Thread]] = {}
        """By the IDs of the tasks."""
        self._starter: threading.Thread | None = None

    def start(self) -> None:
        """Run the tasks that are left, and new ones from now on."""
        self._new.set()
        self._starter = threading.Thread(target=self._start_all, daemon=True)
        self._starter.start()

    def notify(self, _action: str = "") -> None:
        """Look for new tasks; returns at once."""
        self._new.set()

    def stop(self) -> None:
        """Start no more tasks, and have the running ones end at their next report."""
        self._stopping.set()
        self._new.set()
        until = time.monotonic() + _SECONDS_TO_STOP
        if self._starter is not None:
            self._starter.join(_SECONDS_TO_STOP)
        for _, greenlet in list(self._running.values()):
            greenlet.join(max(0.0, until - time.monotonic()))

    def _start_all(self) -> None:
        while not self._stopping.is_set():
            self._new.clear()
            try:
                while (task := self._next()) is not None:
                    greenlet = threading.Thread(target=self._run_to_end, args=(task,), daemon=True)
                    self._running[task.id] = (task, greenlet)
                    greenlet.start()
            except Exception:  # such as a disk that fails; else no task would start any more
                LOG.exception("no tasks can be started")
                self._stopping.wait(_SECONDS_AFTER_AN_ERROR)
                self._new.set()
            self._new.wait()

    def _next(self) -> Task | None:
        """Return the next task that may run now. Those that a restart has interrupted go first."""
        running = [task for task, _ in list(self._running.values())]
        if len(running) >= AT_ONCE or self._stopping.is_set():
            return None
        busy = {task.action for task in running}
        in_use = {task.resource_id for task in running} - {None}
        with self._db.read() as tx:
            found = tasks.select_tasks(
                tx, actions=self._actions, statuses=(tasks.ACTIVE, tasks.SCHEDULED)
            )
        found.sort(key=lambda task: task.status != tasks.ACTIVE)
        free = (it for it in found if it.action not in busy and it.resource_id not in in_use)
        return next(free, None)

    def _run_to_end(self, task: Task) -> None:
        try:
            self._run(task)
        except StoppedError:
            pass
        except CancelledError:
            LOG.info("task %s (%s) was cancelled", task.id, task.action)
        except (MatrixError, OSError) as problem:  # such as a full disk: it is tried again
            LOG.warning("task %s (%s) pauses: %s", task.id, task.action, problem)
            self._stopping.wait(_SECONDS_AFTER_AN_ERROR)
        finally:
            del self._running[task.id]
            self._new.set()

    def _run(self, task: Task) -> None:
        self._record(task, tasks.ACTIVE)
        try:
            result = self._actions[task.action](self._db, task, self._reports(task))
        except MatrixError as problem:
            if problem.status >= 500:  # the database can't be used
                raise
            self._record(task, tasks.FAILED, error=problem.message)
        except (StoppedError, CancelledError):
            raise
        except Exception as problem:
            if (answer := disk_errors.answer_to(problem)) is not None:
                raise answer from problem
            LOG.exception("task %s (%s) failed", task.id, task.action)
            self._record(task, tasks.FAILED, error=str(problem) or type(problem).__name__)
        else:
            self._record(task, tasks.COMPLETE, result=result)

    def _reports(self, task: Task) -> Report:
        due = time.monotonic()

        def report(so_far: Json) -> None:
            nonlocal due
            is_stopping = self._stopping.is_set()
            if is_stopping or time.monotonic() >= due:
                self._record(task, tasks.ACTIVE, result=so_far)
                due = time.monotonic() + REPORTED_EVERY_S
            if is_stopping:
                raise StoppedError

        return report

    def _record(
        self, task: Task, status: str, *, result: Json | None = None, error: str | None = None
    ) -> None:
        with self._db.write() as tx:
            tasks.record(tx, task.id, status, result=result, error=error)
