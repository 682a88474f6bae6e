"""SIGKILL under load, again and again: what was acknowledged is there afterwards, and there once.

Protects, in app/: db.Database.write (nobody is answered before the COMMIT: `batch.wait()`),
db.Database._commit (the clock is written with it: _SET_CLOCK_SQL),
background/delivery.Delivery._try (`outbox.done` comes after `deliver`, not before),
core/rooms/sending.send (what is asked again is not sent again: `timeline.sent_before`).
A kill loses nothing that the kernel has: `synchronous = FULL` in db._set_up is held by
test_every_commit_waits_for_the_disk in test_db.py.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import people
from tests.faults.conftest import Start
from tests.faults.people import Follower, Person, Sender
from tests.helpers import bridge
from tests.helpers.bridge import Bridge
from tests.helpers.server import RunningServer

SENDERS = 4


class Load:
    """Alice's devices send, Bob follows, and a bridge is told. What each of them knows."""

    def __init__(self, running: RunningServer) -> None:
        self.alice = Person(running, "alice")
        self.bob = Person(running, "bob")
        self.room_id = self.alice.create_room(self.bob)
        self.acknowledged: dict[str, str] = {}
        """{transaction id: event id}"""
        self.follower = Follower(self.bob, self.room_id, self.bob.sync()["next_batch"])
        self.tokens = [self.follower.since]

    def begin(self, name: str) -> list[Sender]:
        """Let the senders and the follower go."""
        senders = [Sender(self.alice, self.room_id, f"{name}-{i}") for i in range(SENDERS)]
        for thread in (*senders, self.follower):
            thread.start()
        return senders

    def go_on(self, running: RunningServer, senders: list[Sender]) -> None:
        """What clients do when the server is back: they ask again with what they had."""
        self.alice.server = self.bob.server = running
        for sender in senders:
            sender.join(people.SECONDS)
            assert sender.in_doubt
            assert sender.refused == []
            sender.acknowledged[sender.in_doubt] = sender.send_again(sender.in_doubt)
            last = [*sender.acknowledged][-2:]
            assert [sender.send_again(it) for it in last] == [
                sender.acknowledged[it] for it in last
            ]
            self.acknowledged |= sender.acknowledged
        self.follower.join(people.SECONDS)
        self.tokens.append(self.follower.since)
        before = self.follower
        self.follower = Follower(self.bob, self.room_id, before.since)
        self.follower.seen = before.seen
        self.follower.has_gap = before.has_gap
        assert before.refused == []


@pytest.mark.parametrize(
    "rounds", [4, pytest.param(20, marks=[pytest.mark.big, pytest.mark.timeout(300)])]
)
def test_no_acknowledged_event_is_lost_or_doubled_by_kills(
    tmp_path: Path, start: Start, rounds: int
) -> None:
    with bridge.running() as irc:
        users = [{"regex": "@alice:.*", "exclusive": False}]
        told = bridge.registration(irc.url, namespaces={"users": users})
        settings = {"appservices": f'["{bridge.write(tmp_path, told)}"]'}
        running = start(**settings)
        load = Load(running)

        for number in range(rounds):
            senders = load.begin(f"round{number}")
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - any moment will do
            running.kill()
            assert people.problems(tmp_path) == []
            running = start(**settings)
            load.go_on(running, senders)

        load.follower.look()
        check_what_is_there(load)
        wait_for_the_bridge(tmp_path, irc)
        running.stop()
    assert people.problems(tmp_path) == []
    assert "Traceback" not in running.output()


def check_what_is_there(load: Load) -> None:
    """Everything acknowledged is in the room once, and so everybody has been told."""
    history = load.alice.history(load.room_id)
    expected = {event_id: text for text, event_id in load.acknowledged.items()}

    assert len(expected) > len(load.tokens) * SENDERS
    assert Counter(dict(history)) == Counter(expected)
    assert len(history) == len(expected)
    # nothing missed, nothing twice, in the order of the room
    assert not load.follower.has_gap
    assert load.follower.seen == history
    for token in load.tokens[:: len(load.tokens) // 3]:
        again = Follower(load.bob, load.room_id, token)
        assert again.look()
        assert again.seen == history[len(history) - len(again.seen) :]
    room = load.bob.sync()["rooms"]["join"][load.room_id]
    assert room["unread_notifications"]["notification_count"] == len(history)


def wait_for_the_bridge(data_dir: Path, irc: Bridge) -> None:
    """It is told of every event, in order, and a transaction that comes again is the same.

    After a crash one may come again longer and under another name: at least once is the promise.
    """

    def is_empty() -> bool:
        with people.database(data_dir) as connection:
            return connection.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is None

    people.wait_until(is_empty, "the outbox is not emptied")
    transactions: dict[str, list[str]] = {}
    told: dict[str, None] = {}
    for call in irc.asked("/transactions/"):
        event_ids = [event["event_id"] for event in call.body["events"]]
        assert transactions.setdefault(call.path, event_ids) == event_ids
        told |= dict.fromkeys(event_ids)
    with people.database(data_dir) as connection:
        stored = connection.execute(  # when the room began, none of the bridge's users was in it
            "SELECT event_id FROM events WHERE type != 'm.room.create' ORDER BY position"
        )
        assert [*told] == [row[0] for row in stored]
