"""Requests to the public URL, as clients and other servers make them.

Nothing is followed or repaired on the way: redirects are returned, and a certificate that is not
valid is noted (`tls.py` reports it), so that the other checks can go on.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from homebody.outside import RemoteError
from homebody.outside.resolver import Resolver

CONNECT_S: Final = 5.0
RESPONSE_S: Final = 8.0
MAX_BYTES: Final = 2**20
USER_AGENT: Final = "homebody-doctor"
PORTS: Final = {"http": 80, "https": 443}


class UnreachableError(Exception):
    """A request got no response; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response with any status."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    url: str

    @property
    def json(self) -> Any:
        """The JSON of the body; None if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def object(self) -> dict[str, Any]:
        """The JSON object of the body; empty if it is not one."""
        return found if isinstance(found := self.json, dict) else {}

    def all(self, name: str) -> list[str]:
        """Return the values of a header, one for each time that it was sent."""
        return self.headers.get_all(name) or []

    @property
    def shown(self) -> str:
        """Status, and what the body is if it is not what the API sends."""
        errcode = self.object.get("errcode")
        if errcode:
            return f"status {self.status} {errcode}"
        kind = self.headers.get_content_type()
        by = f" by {server}" if (server := self.headers.get("Server")) else ""
        return f"status {self.status}{by}" + ("" if "json" in kind else f", {kind}")


class Fetcher:
    """Makes requests; each on a connection of its own."""

    def __init__(
        self,
        resolver: Resolver,
        connect_to: Mapping[str, tuple[str, int]],
        ca_file: Path | None,
        until: float,
    ) -> None:
        """`connect_to`: where to connect instead, by host or host:port."""
        self.resolver = resolver
        self._connect_to = connect_to
        self.hosts: dict[str, str] = {}
        """By host:port, the host whose addresses to use, where an SRV record names another one."""
        self.until = until
        self._tls = ssl.create_default_context()
        if ca_file is not None:
            self._tls.load_verify_locations(ca_file)
        self._anything = ssl.create_default_context()
        self._anything.check_hostname = False
        self._anything.verify_mode = ssl.CERT_NONE

    def given_target(self, host: str, port: int) -> tuple[str, int] | None:
        """Return where to connect instead of this host, if the administrator has said so."""
        return self._connect_to.get(f"{host}:{port}") or self._connect_to.get(host)

    def targets(self, host: str, port: int) -> list[tuple[str, int]]:
        """Return the addresses of a host. Raises UnreachableError."""
        if (given := self.given_target(host, port)) is not None:
            return [given]
        try:
            found = self.resolver.addresses(self.hosts.get(f"{host}:{port}", host))
            return [(str(it), port) for it in found]
        except RemoteError as error:
            raise UnreachableError(str(error)) from error

    def connect(self, host: str, port: int, timeout_s: float = CONNECT_S) -> socket.socket:
        """Return a connection to the first address that accepts. Raises UnreachableError."""
        problem = f"{host} has no address"
        for target in self.targets(host, port):
            try:
                return socket.create_connection(target, self._limit(timeout_s))
            except OSError as error:
                problem = f"{target[0]} port {target[1]}: {reason(error)}"
        raise UnreachableError(problem)

    def secured(self, plain: socket.socket, host: str, *, is_strict: bool) -> ssl.SSLSocket:
        """Return a TLS connection; with `is_strict`, raises ssl.SSLCertVerificationError."""
        context = self._tls if is_strict else self._anything
        return context.wrap_socket(plain, server_hostname=host)

    def open(self, scheme: str, host: str, port: int) -> socket.socket:
        """Return a connection for requests, whatever the certificate is.

        Raises UnreachableError.
        """
        plain = self.connect(host, port)
        if scheme == "http":
            return plain
        try:
            return self.secured(plain, host, is_strict=False)
        except OSError as error:
            plain.close()
            raise UnreachableError(f"{host} port {port}: no TLS: {reason(error)}") from error

    @contextmanager
    def connection(
        self, url: str, timeout_s: float = RESPONSE_S
    ) -> Iterator[http.client.HTTPConnection]:
        """Yield a connection to the server of a URL.

        Raises UnreachableError, also for errors in the block.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        sock = self.open(parts.scheme, host, parts.port or PORTS[parts.scheme])
        sock.settimeout(self._limit(timeout_s))
        conn = http.client.HTTPConnection(parts.netloc)
        conn.sock = sock
        try:
            yield conn
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(reason(error)) from error
        finally:
            conn.close()

    def fetch(
        self,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = RESPONSE_S,
    ) -> Answer:
        """Return the response at a URL, with up to MAX_BYTES of its body.

        The path is sent as it is. Raises UnreachableError.
        """
        with self.connection(url, timeout_s) as conn:
            begin(conn, method, url, headers or {}, body)
            raw = conn.getresponse()
            return Answer(raw.status, raw.headers, raw.read(MAX_BYTES), url)

    def _limit(self, timeout_s: float) -> float:
        return max(0.01, min(timeout_s, self.until - time.monotonic()))


def begin(
    conn: http.client.HTTPConnection,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | None = None,
    length: int | None = None,
) -> None:
    """Send the head of a request, and its body if there is one."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    conn.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    conn.putheader("Host", parts.netloc)
    conn.putheader("User-Agent", USER_AGENT)
    for name, value in headers.items():
        conn.putheader(name, value)
    if body is not None or length is not None:
        conn.putheader("Content-Length", str(len(body or b"") if length is None else length))
    conn.endheaders(body)


def reason(error: BaseException) -> str:
    """Return an error in few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without a response"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def parse_connect_to(values: Iterable[str]) -> dict[str, tuple[str, int]]:
    """Parse HOST[:PORT]=ADDRESS:PORT. Raises ValueError."""
    found = {}
    for value in values:
        source, mark, target = value.partition("=")
        address, _, port = target.rpartition(":")
        if not (source and mark and address and port.isdecimal()):
            raise ValueError(f"{value}: write HOST:PORT=ADDRESS:PORT")
        found[source] = (address.strip("[]"), int(port))
    return found
