"""`python -m tests.bench.waits`: how long requests wait while a server works in the background.

A user sends a message and syncs every 10 ms, first with nothing in the background, then during a
backup, while a large room, its history and files are deleted, and while the database is shortened.
It needs a quiet machine: before each row, the same requests with nothing in the background show
what the machine does.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from homebody.application import create_app
from homebody.background import backups
from homebody.config import settings as config
from tests.helpers import large_room, server
from tests.helpers.live import Person
from tests.helpers.server import RunningServer

ADMIN = "/_synapse/admin/"
PAUSE_S = 0.01
MEBIBYTE = bytes(1 << 20)


class Probe:
    """Requests of a user, and what each of them took (ms)."""

    def __init__(self, person: Person, room_id: str) -> None:
        self._person, self._room_id = person, room_id

    def during(self, work: Callable[[], object]) -> list[float]:
        """Return the sorted times of all requests until this is done."""
        times: list[float] = []
        is_over = threading.Event()
        threads = [
            threading.Thread(target=self._repeat, args=(request, times, is_over))
            for request in (
                lambda person: person.send(self._room_id),
                lambda person: person.ask("GET", "/sync?timeout=0"),
            )
        ]
        for thread in threads:
            thread.start()
        try:
            work()
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        return sorted(times)

    def _repeat(
        self, request: Callable[[Person], object], times: list[float], is_over: threading.Event
    ) -> None:
        with closing(self._person.again()) as person:
            while True:
                began = time.perf_counter()
                request(person)
                times.append(1000 * (time.perf_counter() - began))
                if is_over.wait(PAUSE_S):
                    return


class House:
    """A server with a large room, a long history and many files."""

    def __init__(self, folder: Path, members: int, events: int, files: int) -> None:
        self._folder, self._backups = folder / "data", folder / "backups"
        self._folder.mkdir()
        self._backups.mkdir()
        first = server.start(self._folder)
        self.owner = Person(first, "owner")  # the first account is an administrator's
        self.large = self.owner.create_room()
        first.stop()
        self._add_members(members)
        self.running: RunningServer = server.start(self._folder)
        self.owner.server = self.running
        self.history = self.owner.create_room()
        self._say(events)
        for _ in range(files):
            self.owner.ask("POST", "/_matrix/media/v3/upload", MEBIBYTE + os.urandom(8))

    def close(self) -> None:
        """Stop the server."""
        self.owner.close()
        self.running.stop()

    def back_up(self) -> None:
        """Make a backup as the schedule does."""
        environ = {**os.environ, "HOMEBODY_DATA_DIR": str(self._folder)}
        environ["HOMEBODY_BACKUP__FOLDER"] = str(self._backups)
        subprocess.run(backups.COMMAND, env=environ, check=True, stdout=subprocess.DEVNULL)

    def delete_room(self) -> None:
        """Delete the large room."""
        path = f"{ADMIN}v2/rooms/{quote(self.large)}"
        found = self.owner.ask("DELETE", path, {"purge": True})["delete_id"]
        self._wait(lambda: self.owner.ask("GET", f"{ADMIN}v2/rooms/delete_status/{found}"))

    def purge_history(self) -> None:
        """Delete the messages of the other room."""
        path = f"{ADMIN}v1/purge_history/{quote(self.history)}"
        until = {"purge_up_to_ts": time.time_ns() // 1_000_000, "delete_local_events": True}
        found = self.owner.ask("POST", path, until)["purge_id"]
        self._wait(lambda: self.owner.ask("GET", f"{ADMIN}v1/purge_history_status/{found}"))

    def delete_files(self) -> None:
        """Delete all files."""
        before = time.time_ns() // 1_000_000
        self.owner.ask("POST", f"{ADMIN}v1/media/delete?before_ts={before}&size_gt=0")

    def shorten(self) -> None:
        """Give the free pages of the database back, as `homebody disk --vacuum` does."""
        command = [str(Path(sys.executable).parent / "homebody"), "disk", "--vacuum", "--json"]
        environ = {**os.environ, "HOMEBODY_DATA_DIR": str(self._folder)}
        printed = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE).stdout
        found = json.loads(printed)["task_id"]
        self._wait(lambda: self._task(found))

    def _task(self, task_id: str) -> Any:
        answer = self.owner.ask("GET", f"{ADMIN}v1/scheduled_tasks")
        return next(it for it in answer["scheduled_tasks"] if it["id"] == task_id)

    def _add_members(self, count: int) -> None:
        app = create_app(config.load(None, {}, {"data_dir": str(self._folder)}))
        large_room.add_members(app, self.large, large_room.remote_users(count))
        app.homeserver.ephemeral.close()
        app.homeserver.database.close()

    def _say(self, count: int) -> None:
        def say() -> None:
            with closing(self.owner.again()) as person:
                for _ in range(count // 16):
                    person.send(self.history)

        threads = [threading.Thread(target=say) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @staticmethod
    def _wait(status: Callable[[], Any]) -> None:
        while (found := status())["status"] not in {"complete", "failed"}:
            time.sleep(0.2)
        assert found["status"] == "complete", found


def measure(folder: Path, members: int, events: int, files: int, idle_s: float) -> Iterator[str]:
    """Yield a line for each kind of work."""
    house = House(folder, members, events, files)
    with closing(house), closing(Person(house.running, "alice")) as alice:
        probe = Probe(alice, alice.create_room())
        for work in (
            house.back_up,
            house.delete_room,
            house.purge_history,
            house.delete_files,
            house.shorten,
        ):
            quiet = probe.during(lambda: time.sleep(idle_s))
            began = time.monotonic()
            times = probe.during(work)
            taken_s = time.monotonic() - began
            yield f"{work.__name__:14} {_told(quiet)}   {_told(times)}   in {taken_s:5.1f} s"


def _told(times: list[float]) -> str:
    return f"{statistics.median(times):6.1f} {times[len(times) * 99 // 100]:6.1f} {times[-1]:6.1f}"


@click.command(help=__doc__)
@click.option("--members", default=60_000, type=click.IntRange(1))
@click.option("--events", default=20_000, type=click.IntRange(16))
@click.option("--files", default=300, type=click.IntRange(1), help="of a mebibyte each")
@click.option("--idle", default=10.0, help="seconds with nothing in the background")
def main(members: int, events: int, files: int, idle: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        click.echo("ms             median    p99 longest, then the same with the work")
        for line in measure(Path(folder), members, events, files, idle):
            click.echo(line)


if __name__ == "__main__":
    main()
