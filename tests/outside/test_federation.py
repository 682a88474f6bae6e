"""Requests to other homeservers, against real servers on loopback."""

from __future__ import annotations

import gzip
import io
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from homebody.config import settings
from homebody.config.settings import ConfigError
from homebody.outside import RemoteError, federation, kept
from homebody.outside.federation import FederationClient
from homebody.outside.https import Connector
from homebody.runtime import event_loop
from homebody.spec import x_matrix
from homebody.spec.signing import SigningKey
from tests.helpers import certificates
from tests.helpers.dns_server import DnsServer
from tests.helpers.scripted_server import Request, Response, ScriptedServer

KEY = SigningKey.from_seed("a_1", b"x" * 32)
ROOT = Path(__file__).parents[2]
MakeClient = Callable[..., FederationClient]
Raw = Callable[..., int]


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """The server b.test, which responds with what it was sent."""

    def respond(request: Request) -> Response:
        sent = {"method": request.method, "uri": request.uri, "host": request.headers["Host"]}
        return Response(200, {**sent, "body": request.body.decode()})

    context = certificates.server_context("b.test", "127.0.0.1")
    running = ScriptedServer(respond, context)
    yield running
    running.close()


@pytest.fixture
def make_client(tmp_path: Path, server: ScriptedServer) -> Iterator[MakeClient]:
    """`make_client(b_port=…, dns_servers=…)`: a client of a.test to which b.test is known."""
    made: list[FederationClient] = []

    def make(b_port: int = server.port, **options: str) -> FederationClient:
        given = {
            "federation": "true",
            "federation_hosts": f'{{ "b.test" = "127.0.0.1:{b_port}" }}',
            "federation_ca_file": str(certificates.write_authority(tmp_path)),
            "outside_allowed": "127.0.0.1",
            **options,
        }
        made.append(FederationClient(settings.load(None, {}, given), "a.test", KEY))
        return made[-1]

    yield make
    for it in made:
        it.close()


@pytest.fixture
def client(make_client: MakeClient) -> FederationClient:
    return make_client()


@pytest.fixture
def raw() -> Iterator[Raw]:
    """`raw(handle)`: the port of a TLS server whose connections are handled by a function."""
    listeners: list[socket.socket] = []

    def make(handle: Callable[[Any], object], context: ssl.SSLContext | None = None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        tls = context or certificates.server_context("b.test")

        def serve() -> None:
            while True:
                try:
                    accepted = listener.accept()[0]
                except OSError:
                    return
                threading.Thread(target=run, args=(accepted,), daemon=True).start()

        def run(accepted: socket.socket) -> None:
            try:
                with accepted, tls.wrap_socket(accepted, server_side=True) as connection:
                    handle(connection)
            except OSError:
                pass  # the client gives up, as it should

        threading.Thread(target=serve, daemon=True).start()
        return int(listener.getsockname()[1])

    yield make
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def failure(client: FederationClient, path: str = "/x", **options: Any) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        client.request("b.test", options.pop("method", "GET"), path, **options)
    return raised.value


def connections(server: ScriptedServer) -> int:
    return len({id(it) for it in server._connections})  # noqa: SLF001 - it counts them anyway


# What is sent, and what comes back


def test_a_request_is_signed_as_it_is_sent(
    client: FederationClient, server: ScriptedServer
) -> None:
    query = {"event_id": ["$a+b", "$c/d"], "name": "ä &=%"}

    body = client.request("b.test", "PUT", "/_matrix/x/%21a%2Fb", query=query, json={"ü": [1]})

    assert (
        body["uri"]
        == "/_matrix/x/%21a%2Fb?event_id=%24a%2Bb&event_id=%24c%2Fd&name=%C3%A4%20%26%3D%25"
    )
    assert (body["method"], body["host"]) == ("PUT", "b.test")
    assert body["body"] == '{"ü":[1]}'
    sent = server.requests[0].headers
    assert sent["Content-Type"] == "application/json"
    (authorization,) = x_matrix.parse(sent["Authorization"])
    assert authorization.origin == "a.test"
    x_matrix.verify(
        authorization,
        KEY.verify_key,
        method="PUT",
        uri=body["uri"],
        destination="b.test",
        content={"ü": [1]},
    )


def test_a_request_without_a_body_is_signed_without_one(
    client: FederationClient, server: ScriptedServer
) -> None:
    client.request("b.test", "POST", "/x")

    (authorization,) = x_matrix.parse(server.requests[0].headers["Authorization"])
    x_matrix.verify(authorization, KEY.verify_key, method="POST", uri="/x", destination="b.test")
    assert server.requests[0].headers["Content-Length"] == "0"


def test_a_request_need_not_be_signed(client: FederationClient, server: ScriptedServer) -> None:
    client.request("b.test", "GET", "/_matrix/key/v2/server", is_signed=False)

    assert "Authorization" not in server.requests[0].headers


def test_an_ip_address_with_a_port_is_a_server_name(
    client: FederationClient, server: ScriptedServer
) -> None:
    name = f"127.0.0.1:{server.port}"

    assert client.request(name, "GET", "/x")["host"] == name


def test_the_error_of_the_server_is_raised(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.fail("/x", 403, errcode="M_FORBIDDEN", error="You\r\nmay not")

    problem = failure(client)

    assert (problem.kind, problem.status, problem.errcode) == ("bad_response", 403, "M_FORBIDDEN")
    assert problem.content["error"] == "You\r\nmay not"
    assert str(problem) == "b.test responds with status 403 (M_FORBIDDEN: You  may not)"


@pytest.mark.parametrize(
    "response",
    [
        Response(502, b"<html>Bad gateway</html>"),
        Response(404, b""),
        Response(429, [1]),
        Response(500, {"errcode": 5, "error": {}}),
        Response(400, b"{" * 100_000),
        Response(400, b"x", {"Content-Encoding": "br"}),
        Response(400, b"x", {"Content-Encoding": "gzip"}),
        Response(302, b"", {"Location": "https://c.test/"}),
        Response(304, b""),
    ],
)
def test_any_other_status_is_an_error_whatever_the_body_is(
    client: FederationClient, server: ScriptedServer, response: Response
) -> None:
    server.answer("/x", response)

    problem = failure(client)

    assert (problem.kind, problem.status) == ("bad_response", response.status)
    assert problem.errcode is None


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"a": NaN}', b'{"a": "\xff"}', b'{"a": 1'])
def test_a_body_that_is_not_json_is_an_error(
    client: FederationClient, server: ScriptedServer, body: bytes
) -> None:
    server.answer("/x", Response(200, body))

    problem = failure(client)

    assert (problem.kind, problem.status) == ("bad_response", None)


def test_the_caller_may_decode_the_body(client: FederationClient) -> None:
    assert client.request("b.test", "GET", "/x", decode=len) > 20


# Sizes


def test_a_response_has_a_limit_of_size(client: FederationClient, server: ScriptedServer) -> None:
    server.answer("/x", Response(200, json.dumps("x" * 4998).encode()))

    assert len(client.request("b.test", "GET", "/x", max_bytes=5000)) == 4998
    assert failure(client, max_bytes=4999).kind == "too_large"


def test_a_response_without_a_length_has_a_limit_too(make_client: MakeClient, raw: Raw) -> None:
    def respond(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(10_000):
            connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")

    assert failure(make_client(raw(respond)), max_bytes=50_000).kind == "too_large"


def compressed(content: bytes) -> Response:
    return Response(200, gzip.compress(content), {"Content-Encoding": "gzip"})


def test_a_compressed_response_is_decompressed(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.answer("/x", compressed(b'{"a": "' + b"x" * 200_000 + b'"}'))

    assert len(client.request("b.test", "GET", "/x")["a"]) == 200_000
    assert server.requests[0].headers["Accept-Encoding"] == "gzip"


def test_a_compressed_response_is_measured_decompressed(
    client: FederationClient, server: ScriptedServer
) -> None:
    bomb = compressed(b" " * 200 * 2**20)
    server.answer("/x", bomb)
    began = time.thread_time()

    problem = failure(client, max_bytes=2**20)

    assert len(bomb.body) < 2**20
    assert problem.kind == "too_large"
    assert time.thread_time() - began < 0.1  # all of it would take longer


@pytest.mark.parametrize("length", [5, 30, -5])
def test_a_cut_compressed_response_is_an_error(
    client: FederationClient, server: ScriptedServer, length: int
) -> None:
    content = gzip.compress(b'{"a": "' + bytes(range(65, 91)) * 9 + b'"}')[:length]
    server.answer("/x", Response(200, content, {"Content-Encoding": "gzip"}))

    assert failure(client).kind == "unreachable"


# Time


def test_a_server_that_never_responds_is_given_up(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.hang("/x")
    began = time.monotonic()

    problem = failure(client, timeout_s=0.3)

    assert problem.kind == "timeout"
    assert time.monotonic() - began < 2


def _trickle_head(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        connection.sendall(b"a")
        time.sleep(0.02)


def _trickle_body(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.02)


def _stop_reading(connection: ssl.SSLSocket) -> None:
    time.sleep(3)


@pytest.mark.parametrize("trickle", [_trickle_head, _trickle_body, _stop_reading])
def test_a_byte_now_and_then_does_not_extend_the_time(
    make_client: MakeClient, raw: Raw, trickle: Callable[[ssl.SSLSocket], None]
) -> None:
    client = make_client(raw(trickle))
    began = time.monotonic()

    problem = failure(client, timeout_s=0.4, method="PUT", json={"a": "x" * 10_000_000})

    assert problem.kind == "timeout"
    assert time.monotonic() - began < 2


def test_a_handshake_that_never_ends_is_given_up(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = make_client(silent.getsockname()[1])

        assert failure(client, timeout_s=0.3).kind == "timeout"


def test_half_a_response_is_an_error(client: FederationClient, server: ScriptedServer) -> None:
    server.cut("/x")

    assert failure(client).kind == "unreachable"


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"good morning\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n{}",
    ],
)
def test_what_is_not_http_is_unreachable(
    make_client: MakeClient, raw: Raw, response: bytes
) -> None:
    def respond(connection: ssl.SSLSocket) -> None:
        connection.recv(4096)
        connection.sendall(response)

    assert failure(make_client(raw(respond))).kind == "unreachable"


# Certificates


def test_no_server_is_unreachable(make_client: MakeClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    assert failure(make_client(port)).kind == "unreachable"


def test_plain_http_is_unreachable(make_client: MakeClient) -> None:
    plain = ScriptedServer(lambda _: Response(), None)
    try:
        assert failure(make_client(plain.port)).kind == "unreachable"
    finally:
        plain.close()


def _context_of(ca: trustme.CA, *names: str, **options: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names, **options).configure_cert(context)
    return context


def test_a_certificate_has_to_be_of_the_authority_name_and_time(
    make_client: MakeClient, raw: Raw
) -> None:
    yesterday = datetime.now() - timedelta(days=1)  # noqa: DTZ005 - cryptography takes naive ones
    ours = certificates._authority()  # noqa: SLF001 - for an expired certificate
    contexts = {
        "stranger": _context_of(trustme.CA(), "b.test"),
        "other name": certificates.server_context("c.test"),
        "address": certificates.server_context("127.0.0.1"),
        "expired": _context_of(ours, "b.test", not_after=yesterday),
    }

    for what, context in contexts.items():
        problem = failure(make_client(raw(lambda _: None, context)))
        assert problem.kind == "unreachable", what
        assert "certificate" in str(problem), what


def test_the_name_is_sent_as_sni_but_no_address(make_client: MakeClient, raw: Raw) -> None:
    seen: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates._authority().issue_cert("b.test", "127.0.0.1").configure_cert(context)  # noqa: SLF001 - a context of its own
    context.sni_callback = lambda _, name, __: seen.append(name)
    port = raw(lambda _: None, context)
    client = make_client(port)

    failure(client)
    with pytest.raises(RemoteError):
        client.request(f"127.0.0.1:{port}", "GET", "/x")

    assert seen == ["b.test", None]


def test_old_versions_of_tls_are_refused(make_client: MakeClient, raw: Raw) -> None:
    context = _context_of(certificates._authority(), "b.test")  # noqa: SLF001 - as above
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1

    problem = failure(make_client(raw(lambda _: None, context)))

    assert problem.kind == "unreachable"
    assert "version" in str(problem).lower()


def test_a_missing_file_of_authorities_stops_the_start(
    make_client: MakeClient, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")

    for path in (tmp_path / "none.pem", empty):
        with pytest.raises(ConfigError, match="federation_ca_file"):
            make_client(federation_ca_file=str(path))


# Kept connections


def test_a_connection_serves_many_requests(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.fail("/missing", 404)

    for _ in range(5):
        client.request("b.test", "GET", "/x")
        failure(client, "/missing")

    assert connections(server) == 1


def test_a_connection_is_not_kept_after_half_a_response(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.answer("/large", Response(200, b"x" * 10_000_000))
    client.request("b.test", "GET", "/x")

    failure(client, "/large", max_bytes=1000)

    assert client.request("b.test", "GET", "/x")["uri"] == "/x"


def test_idle_connections_are_closed(
    client: FederationClient, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "IDLE_SECONDS", 0.1)
    client.request("b.test", "GET", "/x")
    time.sleep(0.2)

    client.request("b.test", "GET", "/x")

    server.wait_until(lambda: connections(server) == 1, "the end of the first connection")
    assert client._kept.count() == 1  # noqa: SLF001 - sockets can't be counted otherwise


def test_a_connection_ends_after_an_hour_of_use(
    client: FederationClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MAX_AGE_SECONDS", 0.0)

    client.request("b.test", "GET", "/x")

    assert client._kept.count() == 0  # noqa: SLF001 - as above


def test_few_connections_to_a_server_are_kept_and_few_in_all(
    client: FederationClient, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.delay("/x", 0.2)
    names = ["b.test", f"127.0.0.1:{server.port}"]

    def burst(name: str) -> None:
        futures = [event_loop.spawn(client.request, name, "GET", "/x") for _ in range(6)]
        assert [future.result(5)["uri"] for future in futures] == ["/x"] * 6

    burst(names[0])
    assert client._kept.count() == kept.MAX_PER_SERVER  # noqa: SLF001 - as above
    burst(names[1])
    assert client._kept.count() == 2 * kept.MAX_PER_SERVER  # noqa: SLF001 - as above
    monkeypatch.setattr(kept, "MAX_IN_ALL", 3)
    client.request(names[0], "GET", "/x")
    assert client._kept.count() == 3  # noqa: SLF001 - as above


def _close_at_second_request(connection: ssl.SSLSocket, served: list[bytes]) -> None:
    """Respond to the first request of a connection; read the second, and hang up."""
    for number in range(2):
        head = connection.recv(4096)
        if number == 0:
            served.append(head)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_a_request_is_repeated_if_the_kept_connection_is_closed(
    make_client: MakeClient, raw: Raw, method: str
) -> None:
    served: list[bytes] = []
    client = make_client(raw(lambda it: _close_at_second_request(it, served)))

    for _ in range(3):
        assert client.request("b.test", method, "/x") == {}

    assert len(served) == 3


def test_a_post_is_not_repeated_once_it_was_sent(make_client: MakeClient, raw: Raw) -> None:
    served: list[bytes] = []
    client = make_client(raw(lambda it: _close_at_second_request(it, served)))
    client.request("b.test", "GET", "/x")

    problem = failure(client, method="POST")

    assert problem.kind == "unreachable"
    assert len(served) == 1


def test_a_connection_that_the_server_has_closed_is_not_used(
    make_client: MakeClient, raw: Raw
) -> None:
    served: list[bytes] = []

    def respond_once(connection: ssl.SSLSocket) -> None:
        served.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    client = make_client(raw(respond_once))
    client.request("b.test", "POST", "/x")
    time.sleep(0.1)

    assert client.request("b.test", "POST", "/x") == {}
    assert len(served) == 2


def test_a_new_connection_that_is_closed_is_not_tried_again(
    make_client: MakeClient, raw: Raw
) -> None:
    accepted: list[object] = []
    client = make_client(raw(accepted.append))

    assert failure(client).kind == "unreachable"
    assert len(accepted) == 1


def test_few_requests_to_a_server_are_under_way_at_once(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.hang("/x")
    waiting = [
        event_loop.spawn(failure, client, "/x", timeout_s=1.0)
        for _ in range(federation.MAX_AT_ONCE)
    ]
    server.wait_until(lambda: len(server.requests) == len(waiting))

    extra = failure(client, "/y", timeout_s=0.2)
    download = client.download("b.test", "/z", io.BytesIO(), timeout_s=5, max_bytes=1000)

    assert extra.kind == "timeout"
    assert server.received("/y") == []
    assert download.status == 200
    assert {future.result(5).kind for future in waiting} == {"timeout"}
    assert client.request("b.test", "GET", "/y")["uri"] == "/y"


# Addresses


def test_an_address_that_does_not_answer_is_left_for_the_next(
    tmp_path: Path, server: ScriptedServer
) -> None:
    ca_file = str(certificates.write_authority(tmp_path))
    connector = Connector(settings.load(None, {}, {"federation_ca_file": ca_file}))
    ipv4 = (ipaddress.ip_address("127.0.0.1"), server.port)
    with socket.create_server(("::1", 0), family=socket.AF_INET6, backlog=0) as full:
        ipv6 = (ipaddress.ip_address("::1"), full.getsockname()[1])
        fillers = [socket.socket(socket.AF_INET6) for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("::1", ipv6[1]))
        times = []
        for _ in range(2):
            began = time.monotonic()
            connector.connect([ipv6, ipv4], "b.test", began + 5).close()
            times.append(time.monotonic() - began)
        for filler in fillers:
            filler.close()

    assert 0.25 < times[0] < 1.5
    assert times[1] < 0.25  # IPv4 comes first for a while


def test_a_server_that_has_moved_is_looked_up_again(
    make_client: MakeClient, server: ScriptedServer
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        old_port = gone.getsockname()[1]
    name = "_matrix-fed._tcp.b.test SRV"
    dns = DnsServer({name: [f"0 0 {old_port} c.test."], "c.test A": ["127.0.0.1"]})
    try:
        client = make_client(dns_servers=dns.address, federation_hosts="{}")
        first = failure(client)
        dns.records[name] = [f"0 0 {server.port} c.test."]

        assert first.kind == "unreachable"
        assert client.request("b.test", "GET", "/x")["host"] == "b.test"
    finally:
        dns.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.test", {}),
        ("b.test", {"federation": "false"}),
        ("b.test", {"federation_deny_servers": "*.test"}),
        ("b.test", {"federation_allow_servers": "c.test"}),
        ("127.0.0.1:1", {"outside_allowed": ""}),
        ("not a name", {}),
        ("", {}),
    ],
)
def test_some_servers_are_never_called(
    make_client: MakeClient, server: ScriptedServer, name: str, options: dict[str, str]
) -> None:
    with pytest.raises(RemoteError) as raised:
        make_client(**options).request(name, "GET", "/x")

    assert raised.value.kind == "refused"
    assert server.requests == []


# Downloads


def test_a_download_is_written_to_a_file(
    client: FederationClient, server: ScriptedServer, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 40_000
    server.answer("/x", Response(200, gzip.compress(content), {"Content-Encoding": "gzip"}))
    server.answer("/y", Response(200, content, {"Content-Type": "multipart/mixed; boundary=b"}))

    for path in ("/x", "/y"):
        with (tmp_path / "file").open("wb") as file:
            found = client.download("b.test", path, file, timeout_s=5, max_bytes=len(content))
        assert (tmp_path / "file").read_bytes() == content
        assert (found.status, found.size) == (200, len(content))
    assert found.headers["Content-Type"] == "multipart/mixed; boundary=b"
    assert connections(server) == 1


def test_a_failed_download_raises_as_a_request_does(
    client: FederationClient, server: ScriptedServer
) -> None:
    server.answer("/large", Response(200, b"x" * 1001))
    server.fail("/missing", 404, errcode="M_NOT_FOUND")
    server.cut("/cut")
    problems = []
    for path in ("/large", "/missing", "/cut"):
        with pytest.raises(RemoteError) as raised:
            client.download("b.test", path, io.BytesIO(), timeout_s=5, max_bytes=1000)
        problems.append(raised.value)

    assert [it.kind for it in problems] == ["too_large", "bad_response", "unreachable"]
    assert problems[1].errcode == "M_NOT_FOUND"


def test_an_error_of_the_file_is_not_the_servers(client: FederationClient) -> None:
    class Full:
        def write(self, _content: bytes, /) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        client.download("b.test", "/x", Full(), timeout_s=5, max_bytes=1000)


# Under gevent, as in the server


def test_under_gevent_others_go_on_and_the_time_limit_covers_tls_records() -> None:
    script = ROOT / "tests/helpers/gevent_client.py"

    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kinds"] == ["timeout"] * 4
    assert result["seconds"] < 2
    assert result["ticks"] > 20  # of 10 ms: the event loop was free
    assert result["longest_ms"] < 100


def test_what_stands_between_the_slashes_of_a_path_is_quoted() -> None:
    assert federation.path_of("state", "!a/b:x") == "/_matrix/federation/v1/state/%21a%2Fb%3Ax"
    assert federation.path_of("invite", "%", version="v2") == "/_matrix/federation/v2/invite/%25"
