"""The one HTTP client of this server, with which everything it asks of others goes out.

Each request has a limit in time, counted from its beginning to the last byte of the answer, and one
in size; so a peer that sends a byte a minute, or gigabytes, costs no more than it may. Names are
resolved and judged by `addresses`, and the connection goes to the address that was judged. Answers
are not decompressed, and redirects are followed only where the caller says how many.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
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
_KEPT_IN_URLS: Final = "/%:@!$&'()*+,;=~-._?"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer has answered, whatever the status."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any case of letters."""
    body: bytes
    url: str
    """Where it came from, after redirects."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A URL, taken apart."""

    url: str
    scheme: str
    host: str
    port: int
    target: str
    """Path and query, as the request line has them."""

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked of a place."""

    method: str
    body: bytes | None
    headers: Mapping[str, str]
    until: float  # of time.monotonic()
    max_bytes: int
    is_owners: bool
    may_cut: bool


class Client:
    """Makes requests, within the limits that the settings and the caller set."""

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
        is_owners: bool = False,
        may_cut: bool = False,
    ) -> Answer:
        """What the server at this URL answers; `json` is anything that orjson writes.

        `redirects`: how many of them to follow, each under the same checks.
        `is_owners`: the owner of this server has written the URL into its configuration himself,
        so that it may lead to any address.
        `may_cut`: a larger answer is no fault; its first `max_bytes` bytes will do.
        Raises RemoteError.
        """
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
        if json is not None:
            body = orjson.dumps(json)
            sent["Content-Type"] = "application/json"
        until = time.monotonic() + timeout_s
        asked = _Request(method, body, sent, until, max_bytes, is_owners, may_cut)
        for _ in range(redirects + 1):
            answer = self._ask(_place(url), asked)
            if answer.status not in _REDIRECTS or "Location" not in answer.headers:
                break
            url = _followed(url, answer.headers["Location"])
            if answer.status == 303:
                asked = replace(asked, method="GET", body=None)
        return answer

    def check(self, url: str) -> None:
        """Raises RemoteError when a request to this URL would be refused, or can't be made."""
        place = _place(url)
        addresses.permitted(place.host, place.port, self._allowed)

    def _ask(self, place: _Place, asked: _Request) -> Answer:
        if asked.is_owners:
            found = addresses.resolve(place.host, place.port)
        else:
            found = addresses.permitted(place.host, place.port, self._allowed)
        line = self._connect(place, found, asked)
        with _cut_at(line, asked.until), _faults_of(place, asked):
            headers = {"Host": place.authority, **asked.headers}
            line.request(
                asked.method,
                place.target,
                asked.body,
                headers,
                preload_content=False,
                decode_content=False,
            )
            with closing(line.getresponse()) as response:
                content = _read(response, place, asked)
                headers_told = HTTPHeaderDict(response.headers.items())
            return Answer(response.status, headers_told, content, place.url)

    def _connect(
        self, place: _Place, found: list[Address], asked: _Request
    ) -> connection.HTTPConnection:
        """A connection to the first of these addresses that takes one. Raises RemoteError."""
        problem = RemoteError("unreachable", f"{place.host} has no address")
        for address in found:
            left = asked.until - time.monotonic()
            line = self._line(place, address, max(left, 0.001))
            try:
                with _faults_of(place, asked):
                    line.connect()
            except RemoteError as error:
                line.close()
                problem = error
            else:
                return line
        raise problem

    def _line(self, place: _Place, address: Address, timeout_s: float) -> connection.HTTPConnection:
        if place.scheme == "http":
            return connection.HTTPConnection(str(address), place.port, timeout=timeout_s)
        return connection.HTTPSConnection(
            str(address),
            place.port,
            timeout=timeout_s,
            ssl_context=self._tls,
            server_hostname=place.host,
        )

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """Certificates are believed as the system does; made once, as it reads them all."""
        return ssl.create_default_context()


def _followed(url: str, location: str) -> str:
    """Where a redirect leads. Raises RemoteError (refused) for what is no URL."""
    try:
        return urljoin(url, location)
    except ValueError as problem:
        raise RemoteError("refused", f"The redirect leads nowhere: {problem}") from problem


def _place(url: str) -> _Place:
    """Raises RemoteError (refused) for what is no http or https URL, or carries a password."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode("ascii")
        port = parts.port
    except ValueError as problem:  # also UnicodeError
        raise RemoteError("refused", f"This is no URL: {problem}") from problem
    if parts.scheme not in _PORTS or not host or parts.username is not None:
        raise RemoteError("refused", "Only http:// and https:// are called, and without a password")
    target = quote(parts.path or "/", safe=_KEPT_IN_URLS.removesuffix("?"))
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT_IN_URLS)
    return _Place(url, parts.scheme, host, port or _PORTS[parts.scheme], target)


def _read(response: BaseHTTPResponse, place: _Place, asked: _Request) -> bytes:
    """The body. Raises RemoteError as soon as it is known to be too large."""
    pieces: list[bytes] = []
    left = asked.max_bytes
    told = response.headers.get("Content-Length", "")
    is_told = told.isdecimal() and asked.method != "HEAD" and not asked.may_cut
    is_too_large = is_told and int(told) > left
    while not is_too_large and (piece := response.read(min(_PIECE_BYTES, left + 1))):
        pieces.append(piece)
        left -= len(piece)
        is_too_large = left < 0
    if is_too_large and not asked.may_cut:
        sentence = f"{place.host} answers with more than {asked.max_bytes} bytes"
        raise RemoteError("too_large", sentence)
    if time.monotonic() > asked.until:
        raise TimeoutError  # cut off: what looks like the end of the body need not be it
    return b"".join(pieces)[: asked.max_bytes]


@contextmanager
def _cut_at(line: connection.HTTPConnection, until: float) -> Iterator[None]:
    """Hang up when it is time: a timeout of the socket begins anew with every byte."""
    # By a twin: the connection forgets its socket when the peer wants to close after the answer,
    # and closing a socket on which somebody waits is undefined, while a shutdown is seen.
    twin = socket.socket(fileno=os.dup(line.sock.fileno()))

    def cut() -> None:
        with suppress(OSError):  # it has ended by itself in this moment
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(until - time.monotonic(), 0.001), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        twin.close()
        line.close()


@contextmanager
def _faults_of(place: _Place, asked: _Request) -> Iterator[None]:
    """Turn what goes wrong with a connection into a RemoteError."""
    try:
        yield
    except (OSError, HTTPError, HTTPException, ValueError) as problem:
        if time.monotonic() >= asked.until or isinstance(problem, TimeoutError):
            raise RemoteError("timeout", f"{place.host} takes too long") from problem
        raise RemoteError("unreachable", f"{place.host} can't be talked to: {problem}") from problem
