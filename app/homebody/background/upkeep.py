"""What the server does for itself from time to time: deleting what is not needed any more.

One greenlet runs the jobs, one after the other. Each works in small steps, so that requests go on,
and looks up what is left to do, so that it can be interrupted at any moment: after a restart it
begins again. No job has to run at a certain time, so none remembers when it last did. Jobs that
write what is in memory only have a greenlet of their own: they wait neither for long jobs nor for
the end of a pause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homebody import errors
from homebody.core import audit, tasks
from homebody.core.accounts import sync_connections
from homebody.core.administration import (
    abandoned_rooms,
    export,
    media_retention,
    message_retention,
)
from homebody.core.federation import remote_media
from homebody.core.media import deletion
from homebody.core.media.last_used import LastUsed
from homebody.core.rooms import purge
from homebody.core.sliding_sync import kept_states
from homebody.core.sliding_sync.connections import Connections
from homebody.core.tasks import Task
from homebody.core.timeline import delayed_events
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage import data_folder, replacement, upkeep_pause, vacuum
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

VACUUM: Final = "vacuum"
"""The name of the task by which an administrator has the database shortened."""
MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
_SECONDS_TO_STOP: Final = 1.0
_SECONDS_BETWEEN_STEPS: Final = 0.05
_SECONDS_BETWEEN_LOOKS: Final = 0.25
"""While upkeep is paused."""

Step = Callable[[], None]
"""To be called between two steps. Raises StoppedError when the server stops."""


class StoppedError(Exception):
    """The server stops: the job begins again after the restart."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done again and again; the first time some seconds after the start."""

    name: str
    every_s: float
    first_s: float
    run: Callable[[Step], None]
    can_wait: bool = True
    """Whether it waits for other jobs, and while upkeep is paused."""


class Upkeep:
    """The greenlets that run the jobs. `start` after fork; `stop` before closing the database."""

    def __init__(self, jobs: Sequence[Job], data_dir: Path) -> None:
        self._jobs = jobs
        self._data_dir = data_dir
        self._stopping = threading.Event()
        self._greenlets: list[threading.Thread] = []

    @property
    def is_paused(self) -> bool:
        """Whether an administrator has paused it, also by a command."""
        return upkeep_pause.is_there(self._data_dir)

    def start(self) -> None:
        """Run the jobs from now on."""
        upkeep_pause.remove(self._data_dir)
        for can_wait in (True, False):
            jobs = [job for job in self._jobs if job.can_wait == can_wait]
            if jobs:
                greenlet = threading.Thread(target=self._run_all, args=(jobs,), daemon=True)
                self._greenlets.append(greenlet)
                greenlet.start()

    def stop(self) -> None:
        """Have the running jobs end at their next step, and begin no more."""
        self._stopping.set()
        for greenlet in self._greenlets:
            greenlet.join(_SECONDS_TO_STOP)

    def _run_all(self, jobs: Sequence[Job]) -> None:
        now = time.monotonic()
        due = {job.name: now + job.first_s for job in jobs}
        while True:
            job = min(jobs, key=lambda it: due[it.name])
            if self._stopping.wait(max(0.0, due[job.name] - time.monotonic())):
                return
            if job.can_wait and self._is_stopping_after_pause():
                return
            self._run(job)
            due[job.name] = time.monotonic() + job.every_s

    def _run(self, job: Job) -> None:
        try:
            job.run(self._step)
        except StoppedError:
            return
        except (MatrixError, OSError) as problem:  # such as a full disk
            if not self._stopping.is_set():
                LOG.warning("upkeep: %s did not end: %s", job.name, problem)
        except Exception:
            if not self._stopping.is_set():
                LOG.exception("upkeep: %s failed", job.name)

    def _step(self) -> None:
        if self._is_stopping_after_pause() or self._stopping.wait(_SECONDS_BETWEEN_STEPS):
            raise StoppedError

    def _is_stopping_after_pause(self) -> bool:
        """Wait until upkeep may go on, and return whether the server stops."""
        while self.is_paused and not self._stopping.wait(_SECONDS_BETWEEN_LOOKS):
            pass
        return self._stopping.is_set()


def jobs(db: Database, media_used: LastUsed, connections: Connections) -> list[Job]:
    """Return the jobs of a server."""
    return [
        Job(
            "writing connections of sliding sync",
            MINUTE / 4,
            MINUTE / 4,
            lambda _: kept_states.write(db, connections),
            can_wait=False,
        ),
        Job("deleting old connections", DAY, 35 * MINUTE, lambda _: sync_connections.sweep(db)),
        Job(
            "writing when files were used",
            *(MINUTE, MINUTE, lambda _: media_used.write()),
            can_wait=False,
        ),
        Job("giving space back", HOUR, 5 * MINUTE, lambda step: give_space_back(db, step)),
        Job("deleting old files", HOUR, 10 * MINUTE, lambda step: _old_files(db, media_used, step)),
        Job("deleting old messages", HOUR, 15 * MINUTE, lambda step: _old_messages(db, step)),
        Job("deleting old delayed events", DAY, 30 * MINUTE, lambda _: _old_delayed_events(db)),
        Job("deleting old exports", HOUR, 25 * MINUTE, lambda _: export.sweep(db)),
        Job("shortening the audit log", DAY, 40 * MINUTE, lambda step: _audit_log(db, step)),
        Job("deleting rooms", DAY, 20 * MINUTE, lambda step: _rooms(db, step)),
        Job("deleting old databases", DAY, HOUR, lambda _: _old_databases(db)),
        Job("deleting what nothing refers to", DAY, 30 * MINUTE, lambda step: _lost(db, step)),
    ]


def set_paused(db: Database, actor: str, *, is_paused: bool) -> None:
    """Have upkeep wait at its next step, until the server's next start at the latest; or go on."""
    with db.write() as tx:
        audit.note(tx, actor, "upkeep.pause" if is_paused else "upkeep.resume")
    change = upkeep_pause.put if is_paused else upkeep_pause.remove
    change(db.server.config.data_dir)


def order_vacuum(db: Database, actor: str) -> str:
    """Order the task VACUUM, and return its ID. Raises M_UNKNOWN (400) where that can't be done."""
    with db.read() as reading:
        if not vacuum.pages(reading).is_incremental:
            raise errors.unknown("This database can only be shortened while the server is stopped")
    with db.write() as tx:
        audit.note(tx, actor, "server.vacuum")
        return tasks.add(tx, VACUUM, {})


def run_vacuum(db: Database, _task: Task, report: Callable[[Json], None]) -> Json:
    """Shorten the database as far as it goes: the task VACUUM."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        report({"steps": steps})
        time.sleep(_SECONDS_BETWEEN_STEPS)

    return {"freed_bytes": vacuum.give_back(db, step)}


def give_space_back(db: Database, step: Step) -> None:
    """Shorten the database if much of it is empty."""
    with db.read() as tx:
        is_worth_it = vacuum.pages(tx).is_worth_it
    if is_worth_it and (freed := vacuum.give_back(db, step)):
        LOG.info("upkeep: gave %d bytes of the database back to the disk", freed)


def _old_delayed_events(db: Database) -> None:
    with db.write() as tx:
        delayed_events.forget_old(tx)


def _old_files(db: Database, media_used: LastUsed, step: Step) -> None:
    media_used.write()
    done = media_retention.sweep(db, time.time_ns() // 1_000_000, step)
    if done.files or done.remote_files:
        LOG.info(
            "upkeep: deleted %d old files and %d of other servers, %d bytes",
            done.files,
            done.remote_files,
            done.freed_bytes,
        )


def _old_messages(db: Database, step: Step) -> None:
    if count := message_retention.sweep(db, step):
        LOG.info("upkeep: deleted %d old events", count)


def _audit_log(db: Database, step: Step) -> None:
    if count := audit.sweep(db, step):
        LOG.info("upkeep: deleted %d old entries of the audit log", count)


def _rooms(db: Database, step: Step) -> None:
    if count := purge.finish(db, step):
        LOG.info("upkeep: finished the deletion of %d rooms", count)
    abandoned_rooms.sweep(db, step)


def _old_databases(db: Database) -> None:
    for old in replacement.delete_old(data_folder.database_path(db.server.config.database_url)):
        LOG.info("upkeep: deleted %s, the database from before an upgrade", old)


def _lost(db: Database, step: Step) -> None:
    count = deletion.sweep(db, step) + remote_media.sweep(db, step)
    if count:
        LOG.info("upkeep: deleted %d files that an interruption had left", count)
