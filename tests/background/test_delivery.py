"""The outbox and the greenlets that empty it; by kinds of the tests' own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from homebody.background.delivery import Delivery, Kind
from homebody.core import outbox
from homebody.core.outbox import Row
from homebody.outside import RemoteError
from homebody.storage.caches import Caches
from homebody.storage.database import Database
from homebody.web import Application
from tests.helpers import server
from tests.helpers.gateway import Gateway, running
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

SECONDS = 10.0
V3 = "/_matrix/client/v3"


class UndoneError(Exception):
    """Ends a write in its middle."""


class Recorder:
    """A destination that says what it was given, and fails as often as it should."""

    def __init__(self, failures: int = 0, error: Exception | None = None) -> None:
        self.given: list[list[object]] = []
        self.failures = failures
        self.error = error or RemoteError("unreachable", "nobody is at home")

    def deliver(self, _db: Database, destination: str, rows: Sequence[Row]) -> int:
        self.given.append([destination, *(row.payload["n"] for row in rows)])
        if self.failures:
            self.failures -= 1
            raise self.error
        return len(rows)


@pytest.fixture
def db(app: Application) -> Database:
    database: Database = app.homeserver.database
    return database


Start = Callable[[Kind], Delivery]


@pytest.fixture
def start(db: Database) -> Iterator[Start]:
    started: list[Delivery] = []

    def with_kind(kind: Kind) -> Delivery:
        delivery = Delivery(db, {"test": kind})
        started.append(delivery)
        delivery.start()
        return delivery

    yield with_kind
    for delivery in started:
        delivery.stop()


def add(db: Database, *things: tuple[str, int]) -> None:
    with db.write() as tx:
        outbox.add_all(tx, "test", [(place, {"n": n}) for place, n in things])


def left(db: Database, destination: str = "a") -> list[Row]:
    with db.read() as tx:
        return outbox.first(tx, "test", destination, 100)


def test_rows_are_delivered_after_the_commit_in_their_order(db: Database, start: Start) -> None:
    place = Recorder()
    start(Kind(place.deliver, max_rows=2))

    add(db, ("a", 1), ("a", 2), ("a", 3))
    wait_for(lambda: not left(db))

    assert place.given == [["a", 1, 2], ["a", 3]]


def test_a_write_that_is_undone_delivers_nothing(db: Database, start: Start) -> None:
    place = Recorder()
    start(Kind(place.deliver))

    with pytest.raises(UndoneError), db.write() as tx:
        outbox.add(tx, "test", "a", {"n": 1})
        raise UndoneError
    add(db, ("a", 2))
    wait_for(lambda: bool(place.given))

    assert place.given == [["a", 2]]


def test_what_was_there_before_the_start_is_delivered(db: Database, start: Start) -> None:
    add(db, ("a", 1), ("b", 2))
    place = Recorder()

    start(Kind(place.deliver))
    wait_for(lambda: not left(db) and not left(db, "b"))

    assert sorted(place.given, key=str) == [["a", 1], ["b", 2]]


def test_what_another_process_adds_is_found(db: Database, start: Start) -> None:
    place = Recorder()
    delivery = start(Kind(place.deliver))
    other = Database(db.server.config.database_url, db.server, Caches(0), lambda _: None)
    add(other, ("a", 1))
    other.close()

    has_changed = db.notice_other_writers()
    delivery.rescan()
    wait_for(lambda: not left(db))

    assert has_changed
    assert place.given == [["a", 1]]


def test_a_failure_holds_back_its_own_destination_only(db: Database, start: Start) -> None:
    place = Recorder(failures=1)
    start(Kind(place.deliver))
    add(db, ("a", 1), ("a", 2))
    wait_for(lambda: bool(place.given))
    began = time.monotonic()

    add(db, ("b", 3))
    wait_for(lambda: not left(db, "b"))
    in_between = left(db)
    wait_for(lambda: not left(db))

    assert place.given == [["a", 1], ["b", 3], ["a", 1], ["a", 2]]
    assert [row.tries for row in in_between] == [1, 0]
    assert 0.5 < time.monotonic() - began < 3


@pytest.mark.parametrize("error", [RemoteError("timeout", "too long"), KeyError("a fault of ours")])
def test_each_failure_doubles_the_wait_up_to_a_limit(
    db: Database, start: Start, error: Exception
) -> None:
    place = Recorder(failures=4, error=error)
    start(Kind(place.deliver, max_wait_ms=50))

    add(db, ("a", 1))
    wait_for(lambda: len(place.given) == 5 and not left(db))

    assert place.given == [["a", 1]] * 5


def test_waits_grow(db: Database, start: Start) -> None:
    place = Recorder(failures=1)
    with db.write() as tx:
        outbox.add(tx, "test", "a", {"n": 1})
        (row,) = outbox.first(tx, "test", "a", 1)
        for _ in range(4):
            outbox.record_failure(tx, [row], 0, "nobody is at home")

    start(Kind(place.deliver))
    wait_for(lambda: left(db)[0].tries == 5)

    assert 12 < left(db)[0].next_try_ts / 1000 - time.time() < 20


def test_the_owner_reads_what_waits_for_a_destination_that_takes_nothing(
    db: Database, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    place = Recorder(failures=10)
    start(Kind(place.deliver, max_wait_ms=10))

    add(db, ("a", 1), ("a", 2), ("a", 3))
    wait_for(lambda: not left(db) and "again" in caplog.text)

    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said == [
        "test a has accepted nothing for 0 minutes (attempts: 5, waiting: 3): nobody is at home",
        "test a has accepted nothing for 0 minutes (attempts: 10, waiting: 3): nobody is at home",
        "test a accepts deliveries again",
    ]


def test_a_destination_that_is_given_up_in_time_is_no_news_for_the_owner(
    db: Database, start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    place = Recorder(failures=6)
    start(Kind(place.deliver, max_wait_ms=10, kept_ms=60_000))

    add(db, ("a", 1))
    wait_for(lambda: not left(db))

    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_since_when_and_why_it_fails_is_kept_with_the_first_row(db: Database) -> None:
    add(db, ("a", 1), ("a", 2))
    before_ms = round(time.time() * 1000)

    for problem in ("it is off", "it is broken"):
        time.sleep(0.002)
        with db.write() as tx:
            outbox.record_failure(tx, outbox.first(tx, "test", "a", 2), 0, problem)

    with db.read() as tx:
        (queue,) = outbox.queues(tx, "test")
    assert (queue.destination, queue.count, queue.first.tries) == ("a", 2, 2)
    assert queue.first.problem == "it is broken"
    since_ts = queue.first.failing_since_ts
    assert since_ts is not None
    assert before_ms <= since_ts < round(time.time() * 1000)
    assert left(db)[1].payload == {"n": 2}


def test_a_wait_ends_when_another_process_has_skipped_what_failed(
    db: Database, start: Start
) -> None:
    place = Recorder(failures=1)
    add(db, ("a", 1), ("a", 2))
    with db.write() as tx:
        outbox.record_failure(tx, outbox.first(tx, "test", "a", 1), tx.now_ms + 60_000, "no")
    delivery = start(Kind(place.deliver))
    time.sleep(0.1)
    assert place.given == []

    with db.write() as tx:
        outbox.remove(tx, [left(db)[0].id])
    delivery.rescan()
    wait_for(lambda: bool(place.given))

    assert place.given == [["a", 2]]


def test_an_old_row_that_fails_is_given_up(db: Database, start: Start) -> None:
    place = Recorder(failures=1)
    add(db, ("a", 1), ("a", 2))
    time.sleep(0.01)

    start(Kind(place.deliver, kept_ms=0))
    wait_for(lambda: not left(db))

    assert place.given == [["a", 1], ["a", 2]]


def test_a_dropped_destination_gets_nothing_any_more(db: Database) -> None:
    add(db, ("a", 1), ("b", 2))

    with db.write() as tx:
        outbox.drop(tx, "test", "a")

    assert left(db) == []
    assert [row.payload for row in left(db, "b")] == [{"n": 2}]


def test_the_number_of_a_row_is_never_given_again(db: Database) -> None:
    add(db, ("a", 1))
    (first,) = left(db)
    with db.write() as tx:
        outbox.remove(tx, [first.id])

    add(db, ("a", 2))

    assert left(db)[0].id > first.id


def test_stopping_does_not_wait_for_a_destination_that_is_down(db: Database, start: Start) -> None:
    place = Recorder(failures=9)
    delivery = start(Kind(place.deliver))
    add(db, ("a", 1))
    wait_for(lambda: bool(left(db)) and left(db)[0].tries > 0)

    began = time.monotonic()
    delivery.stop()

    assert time.monotonic() - began < 0.5


def test_what_another_process_adds_is_found_though_a_write_saw_it_first(
    db: Database, start: Start
) -> None:
    place = Recorder()
    delivery = start(Kind(place.deliver))
    other = Database(db.server.config.database_url, db.server, Caches(0), lambda _: None)
    add(other, ("a", 1))
    other.close()

    with db.write():
        pass
    if db.notice_other_writers():  # as the worker does twice a second
        delivery.rescan()
    wait_for(lambda: not left(db))

    assert place.given == [["a", 1]]


def register(running_server: RunningServer, name: str) -> requests.Session:
    body = {"username": name, "password": "a long password", "auth": {"type": "m.login.dummy"}}
    answer = requests.post(f"{running_server.url}{V3}/register", json=body, timeout=SECONDS)
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
    return session


def test_a_killed_server_tells_the_gateway_after_its_restart(tmp_path: Path) -> None:
    gateway = Gateway(server.free_port(), tmp_path / "told.jsonl")
    first = server.start(tmp_path, outside_allowed="127.0.0.1")
    api = f"{first.url}{V3}"
    with register(first, "alice") as alice, register(first, "bob") as bob:
        body = {"preset": "public_chat"}
        room_id = quote(alice.post(f"{api}/createRoom", json=body).json()["room_id"])
        bob.post(f"{api}/rooms/{room_id}/join", json={})
        wanted = {"app_id": "a", "pushkey": "k", "kind": "http", "app_display_name": "A"}
        wanted |= {"device_display_name": "D", "lang": "en"}
        pusher = {**wanted, "data": {"url": gateway.url}}
        assert bob.post(f"{api}/pushers/set", json=pusher).status_code == 200
        message = {"msgtype": "m.text", "body": "hello"}
        sent = alice.put(f"{api}/rooms/{room_id}/send/m.room.message/1", json=message)
    first.kill()

    second = server.start(tmp_path, outside_allowed="127.0.0.1")
    try:
        with running(gateway):
            told = gateway.wait_for(sent.json()["event_id"])
    finally:
        began = time.monotonic()
        second.stop()

    assert told["content"] == message
    assert time.monotonic() - began < 3
    assert "Traceback" not in second.output()
