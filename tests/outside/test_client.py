"""The guarded HTTP client, against real servers on loopback."""

from __future__ import annotations

import http.server
import ipaddress
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homebody.config import settings
from homebody.outside import RemoteError, addresses
from homebody.outside.client import Client

OPEN = settings.load(None, {}, {"outside_allowed": "127.0.0.1"})


class Peer(http.server.BaseHTTPRequestHandler):
    """Answers by what the path asks for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, _, rest = self.path.strip("/").partition("/")
        getattr(self, name)(rest)

    def do_POST(self) -> None:
        self.do_GET()

    def echo(self, _rest: str) -> None:
        length = int(self.headers.get("Content-Length", 0))
        told = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        self._say(200, json.dumps(told).encode())

    def large(self, rest: str) -> None:
        self._say(200, b"x" * int(rest))

    def unending(self, _rest: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x" * 100_000)

    def trickle(self, _rest: str) -> None:
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        self._trickle(b"x")

    def headers_trickle(self, _rest: str) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self._trickle(b"a")

    def go(self, rest: str) -> None:
        self._say(302, b"", Location=rest.replace("~", "//").replace("%5B", "["))

    def see(self, rest: str) -> None:
        self._say(303, b"", Location=f"/{rest}")

    def nonsense(self, _rest: str) -> None:
        self.wfile.write(b"good morning\r\n\r\n")
        self.close_connection = True

    def _trickle(self, byte: bytes) -> None:
        try:
            for _ in range(200):
                self.wfile.write(byte)
                time.sleep(0.02)
        except OSError:
            self.close_connection = True  # that is what the test is about

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def serve(tls: ssl.SSLContext | None = None) -> http.server.ThreadingHTTPServer:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Peer)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients hang up on it
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    return server


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = serve()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def url(port: int) -> str:
    return f"http://127.0.0.1:{port}"


def failure(url: str, client: Client | None = None, **options: float) -> RemoteError:
    with pytest.raises(RemoteError) as raised:
        (client or Client(OPEN)).request("GET", url, **options)  # type: ignore[arg-type] # numbers
    return raised.value


def test_json_arrives_with_its_type_and_the_servers_name(url: str, port: int) -> None:
    answer = Client(OPEN).request(
        "POST", f"{url}/echo/a%2Fb c?q=ä b", json={"ä": 1}, headers={"X-More": "yes"}
    )

    told = json.loads(answer.body)
    assert (answer.status, told["method"], told["body"]) == (200, "POST", '{"ä":1}')
    assert told["path"] == "/echo/a%2Fb%20c?q=%C3%A4%20b"
    assert told["headers"]["host"] == f"127.0.0.1:{port}"
    assert told["headers"]["content-type"] == "application/json"
    assert told["headers"]["x-more"] == "yes"
    assert told["headers"]["accept-encoding"] == "identity"
    assert answer.headers["CONTENT-length"] == str(len(answer.body))


def test_the_host_is_named_though_the_connection_goes_to_an_address(port: int) -> None:
    allowed = settings.load(None, {}, {"outside_allowed": "localhost"})

    answer = Client(allowed).request("GET", f"http://LOCALHOST:{port}/echo")

    assert json.loads(answer.body)["headers"]["host"] == f"localhost:{port}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_this_machine_is_refused_in_whatever_notation(port: int, host: str) -> None:
    problem = failure(f"http://{host}:{port}/echo", Client(settings.Config()))

    assert problem.kind == "refused"
    assert "outside_allowed" in str(problem)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("8.8.8.8", True),
        ("100.63.255.255", True),
        ("100.128.0.0", True),
        ("172.15.255.255", True),
        ("172.32.0.0", True),
        ("192.0.1.0", True),
        ("198.17.255.255", True),
        ("198.20.0.0", True),
        ("223.255.255.255", True),
        ("0.0.0.0", False),  # this host
        ("0.1.2.3", False),
        ("10.1.2.3", False),
        ("100.64.0.1", False),  # shared with the provider
        ("100.127.255.255", False),
        ("127.0.0.1", False),
        ("127.255.255.255", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("172.31.255.255", False),
        ("192.0.0.0", False),  # protocols
        ("192.0.0.8", False),
        ("192.0.0.9", False),
        ("192.0.0.10", False),
        ("192.0.0.170", False),
        ("192.0.0.255", False),
        ("192.0.2.1", False),  # documentation
        ("192.88.99.1", False),  # 6to4 relays
        ("192.168.1.1", False),
        ("198.18.0.1", False),  # benchmarks
        ("198.19.255.255", False),
        ("198.51.100.1", False),
        ("203.0.113.1", False),
        ("224.0.0.1", False),  # multicast
        ("239.255.255.255", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("2606:4700::1111", True),
        ("2001:4860:4860::8888", True),
        ("2001:200::1", True),
        ("2a00:1450::1", True),
        ("2620:4f:8000::1", True),
        ("::", False),
        ("::1", False),
        ("::8.8.8.8", False),  # IPv4-compatible
        ("::ffff:8.8.8.8", True),  # IPv4-mapped
        ("::ffff:10.0.0.1", False),
        ("::ffff:192.0.0.8", False),
        ("::ffff:0:8.8.8.8", False),  # IPv4-translated
        ("64:ff9b::8.8.8.8", True),  # NAT64
        ("64:ff9b::10.0.0.1", False),
        ("64:ff9b::127.0.0.1", False),
        ("64:ff9b:1::8.8.8.8", False),  # NAT64 of one's own network
        ("100::1", False),  # discarded
        ("100:0:0:1::1", False),
        ("2001::1", False),  # Teredo
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", False),
        ("2001:1::1", False),  # PCP
        ("2001:2::1", False),  # benchmarks
        ("2001:10::1", False),  # ORCHID
        ("2001:20::1", False),
        ("2001:db8::1", False),  # documentation
        ("2002:808:808::1", True),  # 6to4
        ("2002:a00:1::1", False),
        ("2002:c058:6301::1", False),
        ("3fff::1", False),  # documentation
        ("3fff:fff:ffff::1", False),
        ("4000::1", False),  # given to nobody
        ("5f00::1", False),  # segment routing
        ("fc00::1", False),  # unique local
        ("fd00::1", False),
        ("fe80::1", False),  # link-local
        ("febf::1", False),
        ("fec0::1", False),  # site-local
        ("feff:ffff::1", False),
        ("ff02::1", False),  # multicast
        ("ff0e::1", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, is_public: bool) -> None:
    assert addresses.is_public(ipaddress.ip_address(address)) is is_public


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/",
        "http://",
        "http://127.0.0.1:99999/",
        "http://[::1/",
        "http://" + "a" * 70 + "..example/",
        "nonsense",
    ],
)
def test_what_is_no_plain_web_address_is_refused(url: str) -> None:
    assert failure(url).kind == "refused"


def test_a_redirect_is_only_followed_when_it_is_wanted(url: str) -> None:
    answer = Client(OPEN).request("GET", f"{url}/go/{url.replace('//', '~')}/echo/there")

    assert answer.status == 302
    assert answer.headers["location"] == f"{url}/echo/there"


def test_redirects_are_followed_up_to_a_number(url: str) -> None:
    client = Client(OPEN)

    arrived = client.request("POST", f"{url}/see/go/{'/echo/x'}", json={}, redirects=3)
    stopped = client.request("GET", f"{url}/see/see/see/see/echo", redirects=3)

    assert (arrived.status, arrived.url) == (200, f"{url}/echo/x")
    assert json.loads(arrived.body)["method"] == "GET"
    assert stopped.status == 303


@pytest.mark.parametrize(
    "target", ["http:~127.0.0.2:1/", "file:~/etc/passwd", "http:~[::1]:1/", "http:~["]
)
def test_a_redirect_meets_the_same_checks(url: str, target: str) -> None:
    assert failure(f"{url}/go/{target}", redirects=3).kind == "refused"


@pytest.mark.parametrize("path", ["/large/5000", "/unending"])
def test_an_answer_that_is_too_large_is_not_read_to_its_end(url: str, path: str) -> None:
    assert failure(url + path, max_bytes=4_999).kind == "too_large"


def test_an_answer_may_have_just_the_largest_size(url: str) -> None:
    answer = Client(OPEN).request("GET", f"{url}/large/5000", max_bytes=5000)

    assert len(answer.body) == 5000


@pytest.mark.parametrize("path", ["/trickle", "/headers_trickle"])
def test_a_byte_now_and_then_does_not_stretch_the_time(url: str, path: str) -> None:
    began = time.monotonic()

    problem = failure(url + path, timeout_s=0.3)

    assert problem.kind == "timeout"
    assert time.monotonic() - began < 2


def test_who_accepts_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        assert failure(f"http://127.0.0.1:{port}/", timeout_s=0.2).kind == "timeout"


def test_nobody_there_and_no_http_are_unreachable(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]

    assert failure(f"http://127.0.0.1:{port}/").kind == "unreachable"
    assert failure(f"{url}/nonsense").kind == "unreachable"


def test_the_owners_own_urls_may_lead_anywhere(url: str) -> None:
    client = Client(settings.Config())

    assert client.request("GET", f"{url}/echo", is_trusted=True).status == 200


def test_a_certificate_has_to_be_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-days", "2", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = serve(tls)
    try:
        stranger = failure(f"https://localhost:{server.server_port}/echo", Client(OPEN))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        client = Client(OPEN)
        other_name = failure(f"https://127.0.0.1:{server.server_port}/echo", client)
        answer = client.request("GET", f"https://localhost:{server.server_port}/echo")
    finally:
        server.shutdown()
        server.server_close()

    assert (stranger.kind, other_name.kind) == ("unreachable", "unreachable")
    assert json.loads(answer.body)["headers"]["host"] == f"localhost:{server.server_port}"
