"""A full disk: writes are refused in Matrix's words, reads go on, and with room again all is well.

Protects, in app/: core/media/files._incoming and _disk_errors (nothing half is left), hub._outcome
(gevent prints the trace of a COMMIT that fails, and the server hangs where that does not fit on the
disk either), and in the file system of its own core/sync/to_device.acknowledge_if_possible (a /sync
takes away another time what was got).

The small disk is a limit on the size of files (RLIMIT_FSIZE), which anybody may set, and with
`make faults` also a file system of its own, for which one has to be root.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import server
from tests.faults import people
from tests.faults.people import Answer, Person
from tests.server import RunningServer
from tests.test_serving import complaint

UNAVAILABLE = {"errcode": "M_UNKNOWN", "error": "The server cannot write at the moment"}
MEDIA = "/_matrix/media/v3/upload"
MIB = 2**20


class LimitedFiles:
    """No file of the server may grow beyond a size; that is as good as a full disk."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.processes: list[int] = []

    def start(self) -> RunningServer:
        """A server; afterwards there is room."""
        running = server.start(self.data_dir)
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        self.processes = [int(pid) for pid in children.read_text().split()]
        assert self.processes
        return running

    def fill(self) -> None:
        self._limit(2 * MIB)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size_bytes: int) -> None:
        for process in self.processes:
            resource.prlimit(process, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


class SmallDisk:
    """A file system of 20 MB, which another file fills."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.ballast = data_dir / "ballast"

    def start(self) -> RunningServer:
        """A server; afterwards there is room."""
        return server.start(self.data_dir)

    def fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for size_bytes in (MIB, 4096):  # to the last page
                try:
                    while True:
                        file.write(b"x" * size_bytes)
                except OSError:
                    continue

    def free(self) -> None:
        self.ballast.unlink()


Disk = LimitedFiles | SmallDisk


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A new file system in the memory, mounted on a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(params=["limit", pytest.param("tmpfs", marks=pytest.mark.big)])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Disk]:
    if request.param == "limit":
        yield LimitedFiles(tmp_path)
        return
    with mounted(tmp_path) as folder:
        yield SmallDisk(folder)


@pytest.fixture
def running(disk: Disk) -> Iterator[RunningServer]:
    running = disk.start()
    yield running
    if running.process.poll() is None:
        running.kill()


def send_until_refused(person: Person, room_id: str) -> Answer:
    """The answer to the first small message for which there is no room."""
    for size in (60_000, 10):
        answer = Answer(200, {})
        for number in range(1000):
            path = f"/rooms/{room_id}/send/m.room.message/{size}-{number}"
            answer = person.request("PUT", path, {"msgtype": "m.text", "body": "x" * size})
            if answer.status != 200:
                break
    return answer


def test_a_full_disk_refuses_writes_and_nothing_else(disk: Disk, running: RunningServer) -> None:
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room(bob)
    sent = [alice.send(room_id)["event_id"] for _ in range(20)]
    since = bob.sync()["next_batch"]
    alice.request(
        "PUT", "/sendToDevice/m.test/t1", {"messages": {bob.user_id: {bob.device_id: {"a": 1}}}}
    )
    acknowledging = bob.sync(since)["next_batch"]

    disk.fill()
    refused = send_until_refused(alice, room_id)

    assert refused == Answer(503, UNAVAILABLE)
    kept = len(alice.history(room_id))
    for _ in range(5):
        assert alice.send(room_id, "afterwards").status == 503
        assert alice.request("POST", "/createRoom").status == 503
        # reads go on, also the one that says which messages to the device have come
        assert bob.sync().status == 200
        assert bob.sync(acknowledging, 50).status == 200
        assert len(bob.history(room_id)) == kept
        assert bob.request("GET", f"/rooms/{room_id}/event/{sent[0]}").status == 200
        assert bob.request("GET", "/account/whoami").status == 200
    assert "Traceback" not in running.output()

    disk.free()

    once = alice.send(room_id, "afterwards")["event_id"]
    assert alice.send(room_id, "afterwards")["event_id"] == once
    history = bob.history(room_id)
    assert len(history) == kept + 1
    assert [event_id for event_id, _ in history[:20]] == sent
    assert bob.sync(acknowledging)["next_batch"]
    assert bob.sync(since).body.get("to_device", {}).get("events", []) == []
    running.stop()
    assert running.process.returncode == 0
    assert people.problems(disk.data_dir) == []


def test_an_upload_that_does_not_fit_leaves_nothing_behind(
    disk: Disk, running: RunningServer
) -> None:
    alice = Person(running, "alice")
    incoming = disk.data_dir / "media" / "incoming"
    small = alice.request("POST", MEDIA, b"small" * 1000)["content_uri"]
    disk.fill()

    answers = [alice.request("POST", MEDIA, os.urandom(8 * MIB)) for _ in range(3)]

    assert {answer.status for answer in answers} == {503}
    assert answers[0].body["error"] == "The server cannot store files at the moment"
    assert list(incoming.iterdir()) == []
    assert len(files(disk.data_dir)) == 1
    assert "Traceback" not in running.output()

    disk.free()

    assert alice.request("POST", MEDIA, os.urandom(8 * MIB)).status == 200
    assert len(files(disk.data_dir)) == 2
    assert small


@pytest.mark.big
def test_a_server_that_finds_a_full_disk_says_so_and_starts_later(tmp_path: Path) -> None:
    with mounted(tmp_path) as folder:
        disk = SmallDisk(folder)
        running = disk.start()
        alice = Person(running, "alice")
        room_id = alice.create_room()
        alice.send(room_id)
        running.stop()
        disk.fill()

        sentence = complaint(folder)

        assert sentence.endswith(("disk I/O error", "database or disk is full")), sentence
        disk.free()
        alice.server = disk.start()
        assert len(alice.history(room_id)) == 1
        alice.server.stop()


def files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "media" / "files").rglob("*") if path.is_file()]
