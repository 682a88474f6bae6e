"""`homebody federation list` and `retry`; `check` is tested with what it does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from homebody.cli import main
from homebody.core import outgoing
from homebody.core.outgoing import Progress
from homebody.web import Application
from tests.conftest import Login
from tests.helpers.remote import Remotes
from tests.helpers.shared_rooms import shared_room, wait_for_bodies

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("HOMEBODY_FEDERATION", "true")

    def call(*words: str) -> Result:
        return CliRunner().invoke(main, ["federation", *words])

    return call


def test_servers_are_listed_with_what_they_lack_and_why(
    app: Application, remote: Remotes, login: Login, run: Run
) -> None:
    b, c = remote("b.test"), remote("c.test")
    alice = login("alice")
    room_id = shared_room(app, alice, b, c)
    for text in ("1", "2", "3"):
        alice.send(room_id, text)
    now_ms = time.time_ns() // 1_000_000
    known = [
        Progress("b.test", 1, now_ms - 60_000, 5, now_ms + 60_000, "b.test takes too long"),
        Progress("c.test", last_sent_ts=now_ms),
        Progress("d.test", 1, now_ms - 10**9, 30, outgoing.NEVER, "d.test can't be reached"),
    ]
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, known)
        outgoing.send_edu(tx, ["c.test"], "m.direct_to_device", {})

    listed = json.loads(run("list", "--json").stdout)
    lines = run("list").stdout.splitlines()

    assert [(it["server"], it["events"], it["edus"]) for it in listed] == [
        ("b.test", 3, 0),
        ("c.test", 0, 1),
        ("d.test", 0, 0),
    ]
    assert listed[0] == {
        "server": "b.test",
        "events": 3,
        "edus": 0,
        "oldest_edu_ts": None,
        "last_sent_ts": None,
        "failing_since_ts": now_ms - 60_000,
        "tries": 5,
        "next_try_ts": now_ms + 60_000,
        "problem": "b.test takes too long",
    }
    assert listed[2]["next_try_ts"] is None
    assert lines[0].startswith("b.test  3 events and 0 EDUs waiting, failed 5 times since ")
    assert lines[0].endswith(": b.test takes too long")
    assert now_ms <= listed[1]["oldest_edu_ts"] <= now_ms + 60_000
    assert lines[1].startswith("c.test  0 events and 1 EDUs waiting since ")
    assert ", last sent " in lines[1]
    assert "not tried again until it makes a request" in lines[2]


def test_a_server_is_retried_at_once(
    app: Application, remote: Remotes, login: Login, run: Run
) -> None:
    b, sender = remote("b.test"), app.homeserver.sender
    alice = login("alice")
    room_id = shared_room(app, alice, b)
    b.fail("/send/")
    sender.start()
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(b.received("/send/")) == 3)  # the next attempt follows in 4 seconds
    b.recover()
    time.sleep(1.5)

    done = run("retry", "b.test")
    began = time.monotonic()
    sender.rescan()
    wait_for_bodies(b, ["hello"])
    sender.stop()

    assert done.exit_code == 0, done.output
    assert time.monotonic() - began < 1.5


def test_a_server_that_has_not_failed_is_not_retried(app: Application, run: Run) -> None:
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, [Progress("c.test", last_sent_ts=1)])

    unknown, well = run("retry", "b.test"), run("retry", "c.test")

    assert (unknown.exit_code, well.exit_code) == (1, 1)
    assert "Nothing has been sent to this server" in unknown.stderr
    assert "c.test has not failed" in well.stderr


def test_the_rooms_of_a_server_are_listed(
    app: Application, remote: Remotes, login: Login, run: Run
) -> None:
    room_id = shared_room(app, login("alice"), remote("b.test"))
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, [Progress("b.test", last_sent_ts=1)])

    assert run("rooms", "b.test").stdout == f"{room_id}\n"
    assert [it["room_id"] for it in json.loads(run("rooms", "b.test", "--json").stdout)] == [
        room_id
    ]
    assert run("rooms", "c.test").exit_code == 1
