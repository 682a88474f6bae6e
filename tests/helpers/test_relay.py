"""The relay between two servers: what comes through, how late, and what does not."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator

import pytest

from tests.helpers import certificates
from tests.helpers.relay import Relay
from tests.helpers.scripted_server import Request, Response, ScriptedServer

BIG = b"x" * 300_000


def echo(request: Request) -> Response:
    return Response(200, request.body or BIG)


@pytest.fixture
def relay() -> Iterator[Relay]:
    target = ScriptedServer(echo, None)
    relay = Relay(certificates.server_context("b.test"), target.port)
    yield relay
    relay.close()
    target.close()


def connect(relay: Relay) -> http.client.HTTPSConnection:
    context = certificates.client_context()
    context.check_hostname = False  # the name is not the address
    return http.client.HTTPSConnection("127.0.0.1", relay.port, timeout=2, context=context)


def ask(connection: http.client.HTTPSConnection, body: bytes = b"") -> bytes:
    connection.request("POST" if body else "GET", "/", body or None)
    return connection.getresponse().read()


def test_requests_and_responses_come_through_on_one_connection(relay: Relay) -> None:
    connection = connect(relay)

    small, big, large = ask(connection, b"hello"), ask(connection), ask(connection, BIG)
    connection.close()

    assert (small, big, large) == (b"hello", BIG, BIG)
    assert relay.connections == 1


def test_a_delay_applies_once_in_each_direction(relay: Relay) -> None:
    connection = connect(relay)
    ask(connection, b"hello")
    relay.delay_s = 0.1

    begin = time.monotonic()
    ask(connection, 10 * BIG)  # more than a hundred pieces
    took = time.monotonic() - begin
    connection.close()

    assert 0.2 <= took < 2


def test_a_response_can_be_cut(relay: Relay) -> None:
    relay.cut_after_bytes = 100_000

    connection = connect(relay)
    with pytest.raises(http.client.IncompleteRead):
        ask(connection)
    connection.close()

    relay.heal()
    connection = connect(relay)
    assert ask(connection) == BIG
    connection.close()


def test_an_interrupted_link_refuses_and_heals(relay: Relay) -> None:
    old = connect(relay)
    ask(old, b"hello")

    relay.interrupt()
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(old, b"hello")
    with pytest.raises(OSError):  # noqa: PT011 - reset or end of file, as it happens
        ask(connect(relay), b"hello")
    relay.heal()

    connection = connect(relay)
    assert ask(connection, b"hello") == b"hello"
    connection.close()
    old.close()


def test_an_interrupted_link_can_hang(relay: Relay) -> None:
    relay.interrupt("hang")

    with pytest.raises(TimeoutError):
        ask(connect(relay), b"hello")
