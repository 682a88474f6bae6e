"""Run the tasks that administrators have ordered, one after the other, in a greenlet.

A task that a restart has interrupted is run again, so the function behind an action has to be one
that can be repeated: it does its work in many short transactions, each of which leaves the database
whole, and looks up what is left to do.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Final

from homebody.core import tasks
from homebody.core.tasks import Task
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

KIND: Final = "task"
"""The kind of deliveries by which tasks.add tells of new tasks."""
_SECONDS_AFTER_AN_ERROR: Final = 30.0
_SECONDS_TO_STOP: Final = 1.0

Report = Callable[[Json], None]
"""Note what has come of the task so far. Raises StoppedError when the server stops."""
Run = Callable[[Database, Task, Report], Json]
"""Do the work of a task and return its result. Raises MatrixError when it can't be done."""


class StoppedError(Exception):
    """The server stops: the task goes on after the restart."""


class Tasks:
    """The greenlet that runs tasks. `start` after fork; `stop` before closing the database."""

    def __init__(self, db: Database, actions: Mapping[str, Run]) -> None:
        self._db = db
        self._actions = actions
        self._new = threading.Event()
        self._is_stopping = False
        self._greenlet: threading.Thread | None = None

    def start(self) -> None:
        """Run the tasks that are left, and new ones from now on."""
        self._new.set()
        self._greenlet = threading.Thread(target=self._run_all, daemon=True)
        self._greenlet.start()

    def notify(self, _action: str = "") -> None:
        """Look for new tasks; returns at once."""
        self._new.set()

    def stop(self) -> None:
        """Start no more tasks, and have the running one end at its next report."""
        self._is_stopping = True
        self._new.set()
        if self._greenlet is not None:
            self._greenlet.join(_SECONDS_TO_STOP)

    def _run_all(self) -> None:
        while not self._is_stopping:
            self._new.clear()
            try:
                while not self._is_stopping and (task := self._next()) is not None:
                    self._run(task)
            except (MatrixError, OSError) as problem:  # such as a full disk
                LOG.warning("tasks pause: %s", problem)
                self._new.wait(_SECONDS_AFTER_AN_ERROR)
                self._new.set()
            except StoppedError:
                return
            self._new.wait()

    def _next(self) -> Task | None:
        with self._db.read() as tx:
            found = tasks.select_tasks(
                tx, actions=self._actions, statuses=(tasks.ACTIVE, tasks.SCHEDULED)
            )
        return found[0] if found else None

    def _run(self, task: Task) -> None:
        self._record(task, tasks.ACTIVE)
        try:
            result = self._actions[task.action](
                self._db, task, lambda so_far: self._go_on(task, so_far)
            )
        except MatrixError as problem:
            if problem.status >= 500:  # the database can't be used: try again later
                raise
            self._record(task, tasks.FAILED, error=problem.message)
        except StoppedError:
            raise
        except Exception as problem:
            LOG.exception("task %s (%s) failed", task.id, task.action)
            self._record(task, tasks.FAILED, error=str(problem) or type(problem).__name__)
        else:
            self._record(task, tasks.COMPLETE, result=result)

    def _go_on(self, task: Task, so_far: Json) -> None:
        self._record(task, tasks.ACTIVE, result=so_far)
        if self._is_stopping:
            raise StoppedError

    def _record(
        self, task: Task, status: str, *, result: Json | None = None, error: str | None = None
    ) -> None:
        with self._db.write() as tx:
            tasks.record(tx, task.id, status, result=result, error=error)
