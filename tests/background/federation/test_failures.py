"""Servers that fail, hang or refuse what they are sent."""

from __future__ import annotations

import json
import time
from random import Random

import pytest

from homebody.background.federation.sender import Sender
from homebody.core import outgoing
from homebody.web import Application
from tests.conftest import Person
from tests.helpers import server as real_server
from tests.helpers.remote import Remote, Remotes
from tests.helpers.scripted_server import Response
from tests.helpers.sent import (
    SEND,
    progress,
    send_reliably,
    sent,
    wait_until_got,
    wait_until_saved,
)
from tests.helpers.shared_rooms import bodies, join, shared_room, wait_for_bodies


def test_a_failed_transaction_is_repeated_unchanged(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND, 500, times=1)

    alice.send(room_id, "first")
    b.wait_until(lambda: len(sent(b)) == 1)
    alice.send(room_id, "second")
    wait_for_bodies(b, ["first", "second"])

    refused, repeated, last = sent(b)
    assert refused == repeated
    assert last[0] != repeated[0]


def test_a_transaction_that_is_too_large_is_split(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    too_large = Response(413, b"<html>Request entity too large</html>")
    ok = Response(200, {"pdus": {}})
    b.fail(SEND, 500, times=1)
    alice.send(room_id, "0")
    b.wait_until(lambda: len(sent(b)) == 1)
    for number in range(1, 30):
        alice.send(room_id, str(number))

    b.answer(SEND, lambda it: too_large if len(it.json["pdus"]) > 13 else ok)
    b.wait_until(lambda: sum(len(json.loads(body)["pdus"]) <= 13 for _, body in sent(b)) >= 5)
    b.recover()
    alice.send(room_id, "last")
    b.wait_until(lambda: "last" in bodies(b))

    accepted = [json.loads(body)["pdus"] for _, body in sent(b)[1:]]
    texts = [it["content"]["body"] for pdus in accepted if len(pdus) <= 13 for it in pdus]
    assert texts == [*(str(number) for number in range(30)), "last"]


def test_a_cut_response_is_a_failure(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.cut(SEND, times=1)

    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 2)

    assert sent(b)[0] == sent(b)[1]


def test_servers_that_are_down_or_hang_hold_up_no_others(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    hanging = [remote() for _ in range(12)]
    for it in hanging:
        it.hang(SEND)
    room_id = shared_room(app, alice, b, *hanging)
    join(app, room_id, *(f"@carol:127.0.0.1:{real_server.free_port()}" for _ in range(12)))

    for number in range(5):
        began = time.monotonic()
        alice.send(room_id, str(number))
        wait_for_bodies(b, [str(it) for it in range(number + 1)])
        assert time.monotonic() - began < 2.0

    assert {len(sent(it)) for it in hanging} <= {0, 1}
    for it in hanging:
        it.recover()


def test_a_request_from_a_server_ends_its_back_off(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND)
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 3)  # the next attempt follows after 4 seconds
    b.recover()

    time.sleep(1.1)
    began = time.monotonic()
    answer = b.get("v1", "query", "profile", query={"user_id": alice.user_id})
    wait_for_bodies(b, ["hello"])

    assert answer.status == 200
    assert time.monotonic() - began < 1.5


def test_a_request_that_a_server_did_not_sign_ends_no_back_off(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND)
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 3)  # the next attempt follows after 4 seconds

    time.sleep(1.1)
    forged = b.authorization("GET", "/", None, "localhost")
    answer = b.get("v1", "query", "profile", authorization=forged)
    time.sleep(0.3)

    assert answer.status == 401
    assert len(sent(b)) == 3


def test_why_a_server_fails_is_saved_until_it_accepts(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND, 502, times=2, errcode="M_UNKNOWN", error="Out of order")

    alice.send(room_id, "hello")
    b.wait_until(lambda: "b.test" in progress(app))
    failing = progress(app)["b.test"]
    wait_for_bodies(b, ["hello"])
    wait_until_saved(app)

    assert failing.tries > 0
    assert failing.sent_upto is not None
    assert failing.failing_since_ts is not None
    assert "502" in (failing.problem or "")
    assert "Out of order" in (failing.problem or "")
    accepted = progress(app)["b.test"]
    assert (accepted.tries, accepted.problem, accepted.failing_since_ts) == (0, None, None)
    assert accepted.last_sent_ts > 0


def break_somehow(remote: Remote, random: Random) -> None:
    """Have the next transactions fail, or be accepted without a response, or take longer."""
    times = random.randint(1, 3)
    match random.randrange(3):
        case 0:
            remote.fail(SEND, times=times)
        case 1:
            remote.cut(SEND, times=times)
        case _:
            remote.delay(SEND, 0.05, times=times)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_out_of_order_however_servers_fail(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(outgoing, "FIRST_WAIT_MS", 10)
    monkeypatch.setattr(outgoing, "MAX_WAIT_MS", 100)
    random = Random(seed)  # noqa: S311 - no secret
    remotes = [remote(name) for name in ("b.test", "c.test", "d.test")]
    rooms = [shared_room(app, alice, *remotes), shared_room(app, alice, *remotes[:2])]
    sent_to: list[list[str]] = [[], []]

    for number in range(60):
        it = random.choice(remotes)
        break_somehow(it, random)
        at = random.randrange(2)
        alice.send(rooms[at], f"{at}-{number}")
        sent_to[0].append(f"{at}-{number}")
        sent_to[1] += [f"{at}-{number}"] if at == 0 else []
        send_reliably(app, "b.test", number)
        time.sleep(random.random() / 50)

    for it, expected in zip(remotes, (sent_to[0], sent_to[0], sent_to[1]), strict=True):
        wait_until_got(it, expected[-1])
        # a response that was cut had been accepted, and is repeated
        assert list(dict.fromkeys(bodies(it))) == expected
    b = remotes[0]
    b.wait_until(lambda: {"n": 59} in b.edus("m.direct_to_device"))
    numbers = [it["n"] for it in b.edus("m.direct_to_device")]
    assert list(dict.fromkeys(numbers)) == list(range(60))
