"""The HTTP client for all requests to other servers.

Each request has a timeout from its beginning to the last byte of the response, and a limit of size,
against peers that send a byte a minute, or gigabytes. Names are resolved and checked by
`addresses`, and the connection is made to the checked address. Responses are not decompressed, and
redirects are followed only as often as the caller says.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urljoin, urlsplit

import orjson
from urllib3 import BaseHTTPResponse, HTTPHeaderDict, connection
from urllib3.exceptions import HTTPError

from homebody.outside import RemoteError, addresses

if TYPE_CHECKING:
    from homebody.config.settings import Config
    from homebody.outside.addresses import Address

USER_AGENT: Final = "homebody"
_REDIRECTS: Final = {301, 302, 303, 307, 308}
_PIECE_BYTES: Final = 65_536
_PORTS: Final = {"http": 80, "https": 443}
KEPT_IN_PATHS: Final = "/%:@!$&'()*+,;=~-._"
KEPT_IN_URLS: Final = KEPT_IN_PATHS + "?"


@dataclass(frozen=True, slots=True)
class Response:
    """The response of a peer, with any status."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes
    url: str
    """The URL after redirects."""


@dataclass(frozen=True, slots=True)
class _Peer:
    """A URL in parts."""

    url: str
    scheme: str
    host: str
    port: int
    target: str
    """The path and query for the request line."""

    @property
    def authority(self) -> str:
        """The Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Request:
    """A request, apart from its URL."""

    method: str
    body: bytes | None
    headers: Mapping[str, str]
    until: float  # of time.monotonic()
    max_bytes: int
    is_trusted: bool
    truncate: bool
    write_to: Callable[[bytes], object] | None


class Client:
    """Makes requests within the limits of the settings and the caller."""

    def __init__(self, config: Config) -> None:
        self._allowed = config.outside_allowed

    def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = 20.0,
        max_bytes: int = 2**20,
        redirects: int = 0,
        is_trusted: bool = False,
        truncate: bool = False,
        write_to: Callable[[bytes], object] | None = None,
    ) -> Response:
        """Return the response of the server at this URL; `json` is anything that orjson writes.

        `redirects`: how many redirects to follow, each under the same checks.
        `is_trusted`: the URL is from the configuration, so it may lead to any address.
        `truncate`: cut a larger response to `max_bytes` instead of raising RemoteError.
        `write_to`: gets the body of a 2xx response in pieces, and the response has none.
        Raises RemoteError.
        """
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if json is not None:
            body = orjson.dumps(json)
            sent["Content-Type"] = "application/json"
        until = time.monotonic() + timeout_s
        request = _Request(method, body, sent, until, max_bytes, is_trusted, truncate, write_to)
        for _ in range(redirects + 1):
            response = self._send(_parse(url), request)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                break
            url = _followed(url, response.headers["Location"])
            if response.status == 303:
                request = replace(request, method="GET", body=None)
        return response

    def check(self, url: str) -> None:
        """Raise RemoteError if a request to this URL would be refused, or is impossible."""
        peer = _parse(url)
        addresses.permitted(peer.host, peer.port, self._allowed)

    def _send(self, peer: _Peer, request: _Request) -> Response:
        if request.is_trusted:
            found = addresses.resolve(peer.host, peer.port)
        else:
            found = addresses.permitted(peer.host, peer.port, self._allowed)
        conn = self._connect(peer, found, request)
        with _close_at(conn, request.until), _remote_errors(peer, request):
            headers = {"Host": peer.authority, **request.headers}
            conn.request(
                request.method,
                peer.target,
                request.body,
                headers,
                preload_content=False,
                decode_content=False,
            )
            with closing(conn.getresponse()) as raw:
                content = _read(raw, peer, request)
                response_headers = HTTPHeaderDict(raw.headers.items())
            return Response(raw.status, response_headers, content, peer.url)

    def _connect(
        self, peer: _Peer, found: list[Address], request: _Request
    ) -> connection.HTTPConnection:
        """Connect to the first of these addresses that accepts. Raises RemoteError."""
        problem = RemoteError("unreachable", f"{peer.host} has no address")
        for address in found:
            left = request.until - time.monotonic()
            conn = self._connection(peer, address, max(left, 0.001))
            try:
                with _remote_errors(peer, request):
                    conn.connect()
            except RemoteError as error:
                conn.close()
                problem = error
            else:
                return conn
        raise problem

    def _connection(
        self, peer: _Peer, address: Address, timeout_s: float
    ) -> connection.HTTPConnection:
        if peer.scheme == "http":
            return connection.HTTPConnection(str(address), peer.port, timeout=timeout_s)
        return connection.HTTPSConnection(
            str(address),
            peer.port,
            timeout=timeout_s,
            ssl_context=self._tls,
            server_hostname=peer.host,
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context with the certificate authorities of the system; reading them is slow."""
        return ssl.create_default_context()


def _followed(url: str, location: str) -> str:
    """Return the URL of a redirect. Raises RemoteError (refused) if it is not valid."""
    try:
        return urljoin(url, location)
    except ValueError as problem:
        raise RemoteError("refused", f"The redirect is not a valid URL: {problem}") from problem


def _parse(url: str) -> _Peer:
    """Parse a URL. Raises RemoteError (refused) unless it is http or https without a password."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port
    except ValueError as problem:  # also UnicodeError
        raise RemoteError("refused", f"Not a valid URL: {problem}") from problem
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise RemoteError(
            "refused", "Only http:// and https:// URLs without a password are allowed"
        )
    target = quote(parts.path or "/", safe=KEPT_IN_PATHS)
    if parts.query:
        target += "?" + quote(parts.query, safe=KEPT_IN_URLS)
    return _Peer(url, parts.scheme, host, port or _PORTS[parts.scheme], target)


def _read(response: BaseHTTPResponse, peer: _Peer, request: _Request) -> bytes:
    """Read the body. Raises RemoteError as soon as it is known to be too large."""
    pieces: list[bytes] = []
    is_passed_on = request.write_to is not None and 200 <= response.status < 300
    take = request.write_to if request.write_to and is_passed_on else pieces.append
    left = request.max_bytes
    length = response.headers.get("Content-Length", "")
    is_declared = length.isdecimal() and request.method != "HEAD" and not request.truncate
    is_too_large = is_declared and int(length) > left
    while not is_too_large and (piece := response.read(min(_PIECE_BYTES, left + 1))):
        left -= len(piece)
        is_too_large = left < 0
        take(piece)
    if is_too_large and not request.truncate:
        sentence = f"The response of {peer.host} has more than {request.max_bytes} bytes"
        raise RemoteError("too_large", sentence)
    if time.monotonic() > request.until:
        raise TimeoutError  # cut off: this may not be the end of the body
    return b"".join(pieces)[: request.max_bytes]


@contextmanager
def _close_at(conn: connection.HTTPConnection, until: float) -> Iterator[None]:
    """Close the connection at a time: a socket timeout starts over with each byte."""
    # By a duplicate: the connection drops its socket when the peer closes after the response, and
    # closing a socket in use is undefined, while a shutdown ends its reads.
    duplicate = socket.socket(fileno=os.dup(conn.sock.fileno()))

    def close() -> None:
        with suppress(OSError):  # it ended at the same moment
            duplicate.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(until - time.monotonic(), 0.001), close)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        duplicate.close()
        conn.close()


@contextmanager
def _remote_errors(peer: _Peer, request: _Request) -> Iterator[None]:
    """Raise RemoteError for errors of a connection."""
    try:
        yield
    except (OSError, HTTPError, HTTPException, ValueError) as problem:
        if time.monotonic() >= request.until or isinstance(problem, TimeoutError):
            raise RemoteError("timeout", f"{peer.host} takes too long to respond") from problem
        raise RemoteError("unreachable", f"{peer.host} can't be reached: {problem}") from problem
