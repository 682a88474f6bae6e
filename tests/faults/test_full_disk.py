"""A full disk: writes fail with Matrix errors, reads go on, and with space again all works.

Protects
- storage/writer.py: Batch.wait and Writer._commit (a failed COMMIT fails the whole batch), and
  Writer.undo after `if self.raw.in_transaction` (SQLite itself rolled the batch back);
- storage/disk_errors.py: answer_to and _PASSES (503, and a line in the log instead of a trace);
- runtime/event_loop.py: _outcome (gevent prints the trace of a COMMIT that fails, and the server
  hangs if the trace doesn't fit on the disk either);
- core/media/files.py: _incoming with its `unlink`, and _disk_errors (no partial files);
- core/encryption/to_device.py: acknowledge_if_possible (a later /sync deletes the messages), the
  same in core/accounts/access_tokens.py: LastSeen.write (at a stop), and background/delivery.py:
  Delivery._empty, `except MatrixError` (no trace).

The small disk is a limit on the size of files (RLIMIT_FSIZE), which any user may set, and with
`make faults` also a file system of its own, for which one has to be root.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.faults import clients
from tests.faults.clients import Answer, Person, Sender
from tests.helpers import bridge, server
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for
from tests.server.test_startup import complaint

UNAVAILABLE = {"errcode": "M_UNKNOWN", "error": "The server cannot write at the moment"}
MEDIA = "/_matrix/media/v3/upload"
MIB = 2**20
DEVICES = 200
"""Of one user: a message to all of them is of 12 MB, more than SQLite keeps in memory."""


class LimitedFiles:
    """No file of the server may grow beyond a size, which has the effect of a full disk."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.processes: list[int] = []

    def start(self, **settings: str) -> RunningServer:
        """Run a server; free the space afterwards."""
        running = server.start(self.data_dir, **settings)
        children = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
        self.processes = [int(pid) for pid in children.read_text().split()]
        assert self.processes
        return running

    def fill(self, left_bytes: int = 0) -> None:
        # exactly at a page: below a round limit, a write of few pages would still fit
        self._limit((self.data_dir / "homebody.db-wal").stat().st_size + left_bytes)

    def free(self) -> None:
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size_bytes: int) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):  # it has stopped
                limits = (size_bytes, resource.RLIM_INFINITY)
                resource.prlimit(process, resource.RLIMIT_FSIZE, limits)


class SmallDisk:
    """A file system of 20 MB, filled by another file."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.ballast = data_dir / "ballast"

    def start(self, **settings: str) -> RunningServer:
        """Run a server; free the space afterwards."""
        return server.start(self.data_dir, **settings)

    def fill(self, left_bytes: int = 0) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for size_bytes in (MIB, 4096):  # to the last page
                try:
                    while True:
                        file.write(b"x" * size_bytes)
                except OSError:
                    continue
            file.truncate(self.ballast.stat().st_size - left_bytes)

    def free(self) -> None:
        self.ballast.unlink()


Disk = LimitedFiles | SmallDisk


@contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """Mount a new file system in memory on a folder."""
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


@contextmanager
def ended(running: RunningServer) -> Iterator[RunningServer]:
    """Kill a server at the end unless it has stopped."""
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.kill()


@pytest.fixture
def running(disk: Disk) -> Iterator[RunningServer]:
    with ended(disk.start()) as running:
        yield running


def send_until_refused(person: Person, room_id: str) -> Answer:
    """Send small messages until there is no space; return the error response."""
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
        # reads go on, also the one that acknowledges to-device messages
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
    assert clients.problems(disk.data_dir) == []


def test_messages_to_many_devices_that_find_no_room_come_when_the_request_is_repeated(
    disk: Disk, running: RunningServer
) -> None:
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room()
    multiply_devices(disk.data_dir, bob)
    messages = {"messages": {bob.user_id: {"*": {"lots": "x" * 30_000}}}}
    senders = [Sender(alice, room_id, f"beside{number}") for number in range(4)]
    refused: list[Answer] = []

    disk.fill(left_bytes=4 * MIB)
    for sender in senders:
        sender.start()
    while not all(sender.refused for sender in senders) and len(refused) < 50:
        path = f"/sendToDevice/m.test/t{len(refused)}"
        refused.append(alice.request("PUT", path, messages))
    for sender in senders:
        sender.is_to_stop = True
        sender.join(clients.SECONDS)

    told = [answer for sender in senders for answer in sender.refused]
    assert told
    assert [it for it in (*told, *refused) if it != Answer(503, UNAVAILABLE)] == []
    acknowledged = {it: text for sender in senders for text, it in sender.acknowledged.items()}
    assert dict(alice.history(room_id)) == acknowledged
    # Such a request is written in parts, and those before the disk was full are kept
    assert len(to_device_events(bob)) <= len(refused)
    assert "Traceback" not in running.output()

    disk.free()

    assert alice.request("PUT", path, messages).status == 200
    assert len(to_device_events(bob)) > 0
    assert clients.waiting_devices(disk.data_dir, bob.user_id) == DEVICES + 1
    running.stop()
    assert clients.problems(disk.data_dir) == []


def test_a_server_with_deliveries_stops_in_peace_while_its_disk_is_full(disk: Disk) -> None:
    with bridge.running() as irc:
        irc.answers["transactions"] = (500, {})
        users = [{"regex": "@alice:.*", "exclusive": False}]
        told = bridge.registration(irc.url, namespaces={"users": users})
        with ended(disk.start(appservices=f'["{bridge.write(disk.data_dir, told)}"]')) as running:
            alice = Person(running, "alice")
            alice.create_room()
            wait_for(lambda: clients.failures(disk.data_dir), "a failed delivery")

            disk.fill()
            asked = len(irc.asked("/transactions/"))
            irc.wait_until(lambda: len(irc.asked("/transactions/")) > asked)
            time.sleep(0.5)  # the failure of this attempt cannot be stored
            assert alice.sync().status == 200
            running.stop()

    assert running.process.returncode == 0
    assert "Traceback" not in running.output()
    disk.free()
    assert clients.problems(disk.data_dir) == []


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


def to_device_events(person: Person) -> list[object]:
    """Return the to-device messages that wait for the user's own device."""
    events: list[object] = person.sync().body.get("to_device", {}).get("events", [])
    return events


def multiply_devices(data_dir: Path, person: Person) -> None:
    """Give a user DEVICES devices, directly in the database, which takes less time."""
    with clients.database(data_dir) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(devices)")]
        rest = ", ".join(set(columns) - {"device_id"})
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"  # noqa: S608 - our own names
            f" INSERT INTO devices (device_id, {rest})"
            f" SELECT 'twin' || i, {rest} FROM n, devices WHERE user_id = ?",
            (DEVICES, person.user_id),
        )


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
