"""SIGKILL under load, repeatedly: every acknowledged write is there afterwards, once.

Protects storage/database.py: Database.write (no response before the COMMIT: `batch.wait()`) and
storage/writer.py: Writer._commit (the clock is part of it: _SET_CLOCK_SQL);
background/delivery.py: Delivery._try (`outbox.remove` comes after `deliver`);
core/timeline/sending.py: sent_before (a repeated request doesn't send again). A kill loses nothing
that the kernel has: `synchronous = FULL` in storage/engine.py: _set_up is checked by
test_every_commit_waits_for_the_disk in storage/test_database.py.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults import clients
from tests.faults.clients import Follower, Person, Sender
from tests.faults.conftest import Start
from tests.helpers import bridge
from tests.helpers.bridge import Bridge
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

SENDERS = 4


class Load:
    """Alice's devices send, Bob follows, and a bridge receives; what each of them knows."""

    def __init__(self, running: RunningServer) -> None:
        self.alice = Person(running, "alice")
        self.bob = Person(running, "bob")
        self.room_id = self.alice.create_room(self.bob)
        self.acknowledged: dict[str, str] = {}
        """{transaction ID: event ID}"""
        self.follower = Follower(self.bob, self.room_id, self.bob.sync()["next_batch"])
        self.tokens = [self.follower.since]

    def begin(self, name: str) -> list[Sender]:
        """Start the senders and the follower."""
        senders = [Sender(self.alice, self.room_id, f"{name}-{i}") for i in range(SENDERS)]
        for thread in (*senders, self.follower):
            thread.start()
        return senders

    def go_on(self, running: RunningServer, senders: list[Sender]) -> None:
        """Do what clients do when the server is back: repeat their last requests."""
        self.alice.server = self.bob.server = running
        for sender in senders:
            sender.join(clients.SECONDS)
            assert sender.in_doubt
            assert sender.refused == []
            sender.acknowledged[sender.in_doubt] = sender.send_again(sender.in_doubt)
            last = [*sender.acknowledged][-2:]
            assert [sender.send_again(it) for it in last] == [
                sender.acknowledged[it] for it in last
            ]
            self.acknowledged |= sender.acknowledged
        self.follower.join(clients.SECONDS)
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
            assert clients.problems(tmp_path) == []
            running = start(**settings)
            load.go_on(running, senders)

        load.follower.look()
        check_what_is_there(load)
        wait_for_the_bridge(tmp_path, irc)
        running.stop()
    assert clients.problems(tmp_path) == []
    assert "Traceback" not in running.output()


def check_what_is_there(load: Load) -> None:
    """Check that everything acknowledged is in the room once, and was sent to all clients."""
    history = load.alice.history(load.room_id)
    expected = {event_id: text for text, event_id in load.acknowledged.items()}

    assert len(expected) > len(load.tokens) * SENDERS
    assert Counter(dict(history)) == Counter(expected)
    assert len(history) == len(expected)
    # nothing lost, nothing twice, in the order of the room
    assert not load.follower.has_gap
    assert load.follower.seen == history
    for token in load.tokens[:: len(load.tokens) // 3]:
        again = Follower(load.bob, load.room_id, token)
        assert again.look()
        assert again.seen == history[len(history) - len(again.seen) :]
    room = load.bob.sync()["rooms"]["join"][load.room_id]
    assert room["unread_notifications"]["notification_count"] == len(history)


def wait_for_the_bridge(data_dir: Path, irc: Bridge) -> None:
    """Wait until the bridge has every event, in order, with repeated transactions unchanged.

    After a crash a transaction may be repeated with more events and under another ID: the guarantee
    is delivery at least once.
    """

    def is_empty() -> bool:
        with clients.database(data_dir) as connection:
            return connection.execute("SELECT 1 FROM outbox LIMIT 1").fetchone() is None

    wait_for(is_empty, "the end of the outbox")
    transactions: dict[str, list[str]] = {}
    told: dict[str, None] = {}
    for call in irc.asked("/transactions/"):
        event_ids = [event["event_id"] for event in call.body["events"]]
        assert transactions.setdefault(call.path, event_ids) == event_ids
        told |= dict.fromkeys(event_ids)
    with clients.database(data_dir) as connection:
        stored = connection.execute(  # before any of the bridge's users was in the room
            "SELECT event_id FROM events WHERE type != 'm.room.create' ORDER BY position"
        )
        assert [*told] == [row[0] for row in stored]
