"""The clock jumps back an hour: order, tokens, limits, timers and deliveries are not affected.

Protects storage/database.py: Tx.next_position (order doesn't depend on time); time.monotonic in
core/ratelimits.py: RateLimits, core/ephemeral/timers.py: monotonic_ms, and
client_server/long_poll.py: first (`until` and `left`); background/delivery.py:
Delivery._deliver_first (`seconds < longest`); core/ephemeral/ephemeral.py: Ephemeral.seen (a token
from a run whose clock was ahead).
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.faults import clients
from tests.faults.clients import Follower, Person
from tests.faults.clock import Clock
from tests.faults.conftest import Start
from tests.helpers import bridge
from tests.helpers.waiting import wait_for

LIMITS = {
    "rate_limits": "true",
    "rc_message__per_second": "2.0",
    "rc_message__burst_count": "5",
}


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(tmp_path, monkeypatch)


def typers(answer: clients.Answer, room_id: str) -> list[list[str]]:
    """Return all lists of typing users in a /sync response."""
    room = answer.body.get("rooms", {}).get("join", {}).get(room_id, {})
    events = room.get("ephemeral", {}).get("events", [])
    return [it["content"]["user_ids"] for it in events if it["type"] == "m.typing"]


def position(token: str) -> int:
    return int(token.removeprefix("s").partition("_")[0])


def start_typing(person: Person, room_id: str, timeout_ms: int) -> None:
    path = f"/rooms/{quote(room_id)}/typing/{quote(person.user_id)}"
    assert person.request("PUT", path, {"typing": True, "timeout": timeout_ms}).status == 200


def test_order_and_tokens_go_on(start: Start, clock: Clock) -> None:
    running = start()
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room(bob)
    follower = Follower(bob, room_id, bob.sync()["next_batch"])
    sent = [alice.send(room_id)["event_id"] for _ in range(3)]
    assert follower.look()
    before = follower.since

    clock.set(-1)
    sent += [alice.send(room_id)["event_id"] for _ in range(3)]

    assert follower.look(5_000)
    assert [event_id for event_id, _ in follower.seen] == sent
    assert position(follower.since) > position(before)
    page = alice.request("GET", f"/rooms/{quote(room_id)}/messages?dir=f&limit=100")
    events = [it for it in page["chunk"] if it["type"] == "m.room.message"]
    assert [it["event_id"] for it in events] == sent
    jump_ms = events[3]["origin_server_ts"] - events[2]["origin_server_ts"]
    assert -3_600_000 <= jump_ms < -3_500_000  # the clock did jump
    assert "Traceback" not in running.output()


def test_nobody_is_locked_out_and_no_timer_hangs(start: Start, clock: Clock) -> None:
    running = start(**LIMITS, token_lifetime="1h")
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room(bob)
    refreshed = alice.request(
        "POST",
        "/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "x" * 12,
            "refresh_token": True,
        },
    )
    alice.token = refreshed["access_token"]
    while (limited := alice.send(room_id)).status == 200:
        pass
    assert limited.status == 429
    start_typing(alice, room_id, 2_000)
    since = bob.sync()["next_batch"]

    clock.set(-1)

    # the bucket refills as fast as configured
    time.sleep(limited.body["retry_after_ms"] / 1000)
    assert alice.send(room_id).status == 200
    assert alice.request("GET", "/account/whoami").status == 200
    again = alice.request("POST", "/refresh", {"refresh_token": refreshed["refresh_token"]})
    alice.token = again["access_token"]
    assert alice.request("GET", "/account/whoami").status == 200
    # alice does not type forever
    heard: list[list[str]] = []
    until = time.monotonic() + 10
    while not heard or heard[-1]:
        answer = bob.sync(since, 3_000)
        since = answer["next_batch"]
        heard += typers(answer, room_id)
        assert time.monotonic() < until, heard
    assert "Traceback" not in running.output()


def test_a_request_that_waits_for_nothing_waits_as_long_as_it_said(
    start: Start, clock: Clock
) -> None:
    alice = Person(start(), "alice")
    since = alice.sync()["next_batch"]
    jump = threading.Timer(0.3, clock.set, [-1])

    began = time.monotonic()
    jump.start()
    answer = alice.sync(since, 1_000)
    seconds = time.monotonic() - began

    jump.join()
    assert answer.status == 200
    assert 0.9 < seconds < 5


def test_what_is_to_be_delivered_does_not_wait_for_the_hour_to_come_again(
    tmp_path: Path, start: Start, clock: Clock
) -> None:
    with bridge.running() as irc:
        users = [{"regex": "@alice:.*", "exclusive": False}]
        told = bridge.registration(irc.url, namespaces={"users": users})
        running = start(appservices=f'["{bridge.write(tmp_path, told)}"]')
        alice = Person(running, "alice")
        irc.answers["transactions"] = (500, {})
        room_id = alice.create_room()
        wait_for(lambda: clients.failures(tmp_path) >= 2, "a failed delivery")

        clock.set(-1)
        del irc.answers["transactions"]
        event_id = alice.send(room_id)["event_id"]

        irc.wait_until(lambda: event_id in [event["event_id"] for event in irc.events()])
        running.stop()


def test_a_start_with_a_clock_that_went_back_serves_the_tokens_from_before(
    start: Start, clock: Clock
) -> None:
    running = start()
    alice, bob = Person(running, "alice"), Person(running, "bob")
    room_id = alice.create_room(bob)
    alice.send(room_id)
    since = bob.sync()["next_batch"]
    alice.send(room_id)
    running.stop()

    clock.set(-1)
    alice.server = bob.server = start()
    start_typing(alice, room_id, 30_000)
    follower = Follower(bob, room_id, since)

    answer = bob.sync(since)
    assert follower.look()
    assert [event_id for event_id, _ in follower.seen] == [alice.history(room_id)[1][0]]
    assert typers(answer, room_id) == [[alice.user_id]]
    assert typers(bob.sync(answer["next_batch"]), room_id) == []
