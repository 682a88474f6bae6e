"""What memory does not hold is read from the log."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import pytest
import requests

from homebody.background.federation.destination import Destination
from homebody.background.federation.sender import Sender
from homebody.background.federation.transactions import Entry
from homebody.core import outgoing
from homebody.core.outgoing import Progress
from homebody.core.rooms import purge
from homebody.storage.caches import Caches
from homebody.storage.database import Database
from homebody.web import Application
from tests.background.federation.conftest import Restart
from tests.conftest import V3, Person
from tests.helpers import server as real_server
from tests.helpers.remote import Remotes
from tests.helpers.sent import (
    SEND,
    logged,
    progress,
    send_as,
    wait_until_saved,
)
from tests.helpers.shared_rooms import bodies, leave, shared_room, wait_for_bodies


class UnexpectedError(Exception):
    """A bug."""


def test_what_was_not_sent_before_a_restart_is_sent_after_it(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    restart: Restart,
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)
    alice.send(room_id, "first")
    wait_for_bodies(b, ["first"])
    wait_until_saved(app)
    sender.stop()
    texts = [str(number) for number in range(60)]
    for text in texts:
        alice.send(room_id, text)
    leave(app, room_id, c.user_id("carol"))
    alice.send(room_id, "last")

    restart()

    wait_for_bodies(b, ["first", *texts, "last"])
    wait_for_bodies(c, ["first", *texts])


def test_after_more_than_500_events_only_the_newest_of_each_room_is_sent(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    restart: Restart,
) -> None:
    b, c = remote("b.test"), remote("c.test")
    busy, quiet = shared_room(app, alice, b, c), shared_room(app, alice, b)
    wait_until_saved(app)
    sender.stop()
    alice.send(quiet, "quiet")
    texts = [str(number) for number in range(500)]
    for text in texts:
        alice.send(busy, text)

    restart()

    wait_for_bodies(c, texts)
    wait_for_bodies(b, ["quiet", "499"])


def test_what_another_process_logs_is_sent(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    alice.send(room_id, "first")
    wait_for_bodies(b, ["first"])
    wait_until_saved(app)
    db = app.homeserver.database
    other = Database(db.server.config.database_url, db.server, Caches(0), lambda _: None)

    send_as(other, room_id, alice.user_id, "by a command")
    other.close()
    sender.rescan()

    wait_for_bodies(b, ["first", "by a command"])
    alice.send(room_id, "later")
    wait_for_bodies(b, ["first", "by a command", "later"])


def test_an_event_that_could_not_be_queued_is_found_in_the_log(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    add, calls = Destination.add, iter([True, True])

    def add_but_fail_first(self: Destination, entry: Entry) -> None:
        if next(calls, False):
            raise UnexpectedError
        add(self, entry)

    monkeypatch.setattr(Destination, "add", add_but_fail_first)
    for text in ("first", "second", "third"):
        alice.send(room_id, text)
    b.wait_until(lambda: len(set(bodies(b))) == 3)

    in_order = [it for it in bodies(b) if it != "third"]
    assert in_order == ["first", "second"]
    assert "UnexpectedError" in caplog.text


def test_a_purged_event_is_left_out(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    restart: Restart,
) -> None:
    b = remote("b.test")
    gone, room_id = shared_room(app, alice, b), shared_room(app, alice, b)
    wait_until_saved(app)
    sender.stop()
    alice.send(gone, "gone")
    alice.send(room_id, "here")
    purge.purge(app.homeserver.database, gone, is_forced=True)

    restart()

    wait_for_bodies(b, ["here"])


def test_the_log_is_swept_when_all_have_it(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    c.fail(SEND)
    both, only_b = shared_room(app, alice, b, c), shared_room(app, alice, b)
    for number in range(3):
        alice.send(only_b, str(number))
    alice.send(both, "both")
    alice.send(only_b, "last")
    wait_for_bodies(b, ["0", "1", "2", "both", "last"])
    c.wait_until(lambda: progress(app).get("c.test"))

    sender.sweep()
    left = logged(app)
    c.recover()
    wait_for_bodies(c, ["both"])
    wait_until_saved(app)
    sender.sweep()

    assert left == 2
    assert logged(app) == 0


def test_a_server_that_was_away_for_a_month_gets_the_newest_event_of_each_room(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    restart: Restart,
) -> None:
    b = remote("b.test")
    first, second, left = (shared_room(app, alice, b) for _ in range(3))
    leave(app, left, b.user_id("carol"))
    for room_id in (first, second, first, left):
        alice.send(room_id, room_id)
    wait_until_saved(app)
    sender.stop()
    known = Progress("b.test", outgoing.NOT_LOGGED, failing_since_ts=1, tries=20)
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, [known])
    before = len(b.pdus)

    restart()
    b.wait_until(lambda: len(b.pdus) >= before + 2)
    wait_until_saved(app)

    assert [it["content"]["body"] for it in b.pdus[before:]] == [second, first]


def test_places_of_servers_that_failed_for_a_month_do_not_hold_the_log(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    restart: Restart,
) -> None:
    b, c = remote("b.test"), remote("c.test")
    for it in (b, c):
        it.fail(SEND)
    room_id = shared_room(app, alice, b, c)
    sender.stop()
    now_ms = time.time_ns() // 1_000_000
    with app.homeserver.database.write() as tx:
        for server, days in (("b.test", 31), ("c.test", 29)):
            since_ts = now_ms - days * 86_400_000
            outgoing.save(tx, 1, [Progress(server, 1, since_ts, 30, outgoing.NEVER)])
    alice.send(room_id, "hello")
    again = restart()
    until = time.monotonic() + 10
    while again.homeserver.sender.counts()[0] < 2 or not logged(app):
        assert time.monotonic() < until

    time.sleep(1.5)
    again.homeserver.sender.sweep()
    with_c = logged(app), progress(app)["b.test"].sent_upto
    c.recover()
    again.homeserver.sender.heard_from("c.test")
    wait_for_bodies(c, ["hello"])
    time.sleep(1.5)
    again.homeserver.sender.sweep()

    assert with_c == (1, 1)
    assert logged(app) == 0
    assert progress(app)["b.test"].sent_upto == outgoing.NOT_LOGGED


@pytest.mark.timeout(120)
def test_a_killed_server_sends_what_it_acknowledged(
    app: Application, remote: Remotes, alice: Person, tmp_path: Path
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    app.homeserver.database.close()
    b.delay(SEND, 0.2)
    sent_texts: list[str] = []
    for attempt in range(3):
        running = real_server.start(tmp_path, **remote.settings)
        remote.talk_to_running(running, tmp_path, "localhost")
        try:
            for number in range(20):
                text = f"{attempt}-{number}"
                path = f"{V3}rooms/{quote(room_id)}/send/m.room.message/{text}"
                answer = requests.put(
                    running.url + path,
                    json={"msgtype": "m.text", "body": text},
                    headers={"Authorization": f"Bearer {alice.access_token}"},
                    timeout=10,
                )
                assert answer.status_code == 200, answer.text
                sent_texts.append(text)
            if attempt == 2:
                b.wait_until(lambda: "2-19" in bodies(b))
        finally:
            running.kill()

    in_order = list(dict.fromkeys(bodies(b)))
    assert in_order == sent_texts
