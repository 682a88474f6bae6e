"""SIGKILL while events are scheduled, restarted, cancelled and sent: each is sent once, or never.

Protects core/rooms/delayed_sending.py: send (an event and that it was sent are one write),
background/delayed_events.py: DelayedEvents.start (what became due meanwhile is sent), and that
client_server/delayed_events.py answers after the COMMIT.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults import clients
from tests.faults.clients import GONE, Person
from tests.faults.conftest import Start
from tests.helpers.waiting import wait_for

DELAYED = "/_matrix/client/v1/delayed_events"
SETTINGS = {"delayed_events__max_scheduled": "10000"}
LATEST = 2.0


class Scheduler(threading.Thread):
    """Schedules events until the server dies, and restarts and cancels some."""

    def __init__(self, person: Person, room_id: str, name: str) -> None:
        super().__init__()
        self.person = person
        self.path = f"/rooms/{quote(room_id)}/delayed_event/m.room.message"
        self.prefix = name
        self.scheduled: dict[str, int] = {}
        """{text: delay in ms} of what was acknowledged."""
        self.cancelled: set[str] = set()
        self.in_doubt: set[str] = set()
        """What a request was under way for; it may have happened or not."""

    def run(self) -> None:
        choose = random.Random(self.prefix)  # noqa: S311 - any will do
        for number in range(10_000):
            name, delay_ms = f"{self.prefix}-{number}", choose.randrange(1, 800)
            self.in_doubt = {name}
            try:
                body = {"delay_ms": delay_ms, "content": {"body": name}}
                delay_id = self.person.request("PUT", f"{self.path}/{name}", body)["delay_id"]
                self.scheduled[name] = delay_ms
                if number % 4 == 0:
                    answer = self.person.request("POST", f"{DELAYED}/{delay_id}/cancel", {})
                    if answer.status == 200:
                        self.cancelled.add(name)
                        self.scheduled.pop(name)
                elif number % 4 == 1:  # refused if it was sent meanwhile
                    self.person.request("POST", f"{DELAYED}/{delay_id}/restart", {})
            except GONE:
                return
            self.in_doubt = set()


def have_scheduled(some: list[Scheduler], count: int) -> bool:
    return sum(len(it.scheduled) for it in some) >= count


def sent(person: Person, room_id: str) -> Counter[str]:
    """How often each text is in the room."""
    found: Counter[str] = Counter()
    token = ""
    while True:
        path = f"/rooms/{quote(room_id)}/messages?dir=f&limit=1000{token}"
        answer = person.request("GET", path)
        found.update(
            it["content"]["body"] for it in answer["chunk"] if it["type"] == "m.room.message"
        )
        if "end" not in answer.body:
            return found
        token = f"&from={answer['end']}"


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(15, marks=[pytest.mark.big, pytest.mark.timeout(300)])]
)
def test_a_scheduled_event_is_sent_once_whenever_the_server_is_killed(
    tmp_path: Path, start: Start, rounds: int
) -> None:
    running = start(**SETTINGS)
    alice = Person(running, "alice")
    room_id = alice.create_room()
    wanted: set[str] = set()
    never: set[str] = set()
    perhaps: set[str] = set()

    for number in range(rounds):
        some = [Scheduler(alice, room_id, f"r{number}t{it}") for it in range(3)]
        for it in some:
            it.start()
        enough = random.randrange(20, 100)  # noqa: S311 - any moment will do
        wait_for(partial(have_scheduled, some, enough), "enough events")
        running.kill()
        for it in some:
            it.join(clients.SECONDS)
            assert not it.is_alive()
            wanted |= it.scheduled.keys() - it.in_doubt
            never |= it.cancelled
            perhaps |= it.in_doubt
        assert clients.problems(tmp_path) == []
        alice.server = running = start(**SETTINGS)

    wait_for(
        lambda: wanted <= sent(alice, room_id).keys(), lambda: wanted - set(sent(alice, room_id))
    )
    time.sleep(LATEST)  # for what should not come
    found = sent(alice, room_id)
    assert set(found.values()) == {1}
    assert found.keys() & never == set()
    assert found.keys() - wanted <= perhaps
    assert alice.request("GET", DELAYED)["delayed_events"] == []
