"""Far more requests than the limits allow, from very many addresses."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults_clients import clients
from tests.faults_clients.clients import Person, Process
from tests.faults_clients.impatient import MAX_BUCKETS
from tests.helpers.server import RunningServer

VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity?token=none"
BURST = 5
"""Of rc_registration_token_validity, for one address."""


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("limited")
    with clients.running(clients.start(folder, rate_limits="true")) as running:
        yield running


class Guest:
    """A client without an account, behind a proxy that sets its address."""

    def __init__(self, server: RunningServer) -> None:
        self.line = http.client.HTTPConnection(*clients.address(server), timeout=20)

    def ask(self, address: str) -> int:
        """Return the status of a request from this address."""
        self.line.request("GET", VALIDITY, headers={"X-Forwarded-For": address})
        response = self.line.getresponse()
        response.read()
        return response.status


def send(person: Person, room_id: str, number: int) -> tuple[int, dict[str, object], str]:
    """Send a message; return (status, JSON, Retry-After)."""
    path = f"/rooms/{room_id}/send/m.room.message/{number}"
    status, body, headers = person.ask("PUT", path, {"msgtype": "m.text", "body": "hello"})
    return status, body, headers.get("Retry-After", "")


def test_a_burst_is_refused_and_does_not_slow_others_down(limited: RunningServer) -> None:
    # Protects: the check of rc_message in client_server/room_send.py, the bucket of each account
    # in core/ratelimits.py, and the headers of errors.limit_exceeded.
    loud, quiet = Person(limited, "loud"), Person(limited, "quiet")
    rooms = [person.ask("POST", "/createRoom", {})[1]["room_id"] for person in (loud, quiet)]
    answers: list[tuple[int, dict[str, object], str]] = []
    waits: list[float] = []
    statuses: list[int] = []

    def shout(first: int) -> None:
        answers.extend(send(loud, rooms[0], first + number) for number in range(150))

    crowd = [threading.Thread(target=shout, args=[first]) for first in (0, 1000, 2000, 3000)]
    for thread in crowd:
        thread.start()
    while any(thread.is_alive() for thread in crowd) and len(statuses) < 50:
        began = time.monotonic()
        statuses.append(send(quiet, rooms[1], len(statuses))[0])
        waits.append(time.monotonic() - began)
    for thread in crowd:
        thread.join()

    refused = [(body, after) for status, body, after in answers if status == 429]
    assert {status for status, _, _ in answers} == {200, 429}
    assert len(refused) > 400
    for body, after in refused:
        assert body["errcode"] == "M_LIMIT_EXCEEDED"
        wait_ms = body["retry_after_ms"]
        assert isinstance(wait_ms, int)
        assert 0 < wait_ms <= 1000 * int(after) < wait_ms + 1000
    assert set(statuses) == {200}
    assert clients.median(waits) < 0.15


def test_the_table_of_limits_forgets_who_asked_long_ago(limited: RunningServer) -> None:
    # Protects: the popitem() in core/ratelimits.py: _Buckets.take. impatient.py makes MAX_BUCKETS
    # small; without a bound the first address would still be limited.
    guest = Guest(limited)
    with closing(guest.line):
        first = [guest.ask("192.0.2.1") for _ in range(BURST + 1)]
        others = {guest.ask(f"10.0.{number >> 8}.{number & 255}") for number in range(MAX_BUCKETS)}

        again = guest.ask("192.0.2.1")

    assert first == [200] * BURST + [429]
    assert others == {200}
    assert again == 200


@pytest.mark.big
@pytest.mark.timeout(600)
def test_a_hundred_thousand_addresses_take_little_memory(tmp_path: Path) -> None:
    # Protects: the same, and the default of MAX_BUCKETS: all buckets would take 40 MB.
    running = clients.start(tmp_path, is_impatient=False, rate_limits="true")
    with clients.running(running):
        process, guest = Process(running), Guest(running)
        with closing(guest.line):
            for number in range(200):
                guest.ask(f"192.0.2.{number}")
            before = process.memory_bytes()

            statuses = {
                guest.ask(f"2001:db8:{number >> 8:x}:{number & 255:x}::1")
                for number in range(100_000)
            }

        assert statuses == {200}
        assert process.memory_bytes() - before < 12_000_000
