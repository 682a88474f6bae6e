"""`/.well-known/matrix/server` of other servers: by it a server name is delegated to another host.

Answers are kept as long as their headers say, within bounds, and failures too: most servers have no
such file, and some machines never answer on port 443.

Spec: server-server-api#getwell-knownmatrixserver
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import orjson

from homebody.outside import RemoteError, https
from homebody.outside.client import KEPT_IN_PATHS, KEPT_IN_URLS, USER_AGENT
from homebody.outside.expiring import Expiring
from homebody.outside.https import Connector, Target
from homebody.runtime import event_loop
from homebody.spec import identifiers

PATH: Final = "/.well-known/matrix/server"
PORT: Final = 443
TIMEOUT_S: Final = 8.0
MAX_BYTES: Final = 50 * 1024
MAX_REDIRECTS: Final = 5
DEFAULT_SECONDS: Final = 86_400.0
MIN_SECONDS, MAX_SECONDS = 300.0, 172_800.0
JITTER: Final = 0.1
"""The part by which the default varies, so that not all servers are asked again at once."""
FAILURE_SECONDS: Final = 3600.0
FAILURE_AFTER_SUCCESS_SECONDS: Final = 120.0
REMEMBERED_SECONDS: Final = MAX_SECONDS
"""How long we know that a server had the file, so that its failure is probably temporary."""
MAX_NAMES: Final = 20_000
_REDIRECTS: Final = {301, 302, 303, 307, 308}

Locate = Callable[[str, int], list[Target]]
"""Returns the addresses, to which we may connect, of a host and port. Raises RemoteError."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a server's file says."""

    server: str | None
    """The server name to which it delegates; None if there is no valid file."""
    problem: str = ""
    """Why there is no valid file."""
    seconds: float = FAILURE_SECONDS
    """How long it is valid."""


class WellKnown:
    """Fetches and keeps delegations."""

    def __init__(self, connector: Connector, locate: Locate, port: int = PORT) -> None:
        self._connector = connector
        self._locate = locate
        self._port = port
        self._kept: Expiring[str, Delegation] = Expiring(MAX_NAMES)
        self._worked: Expiring[str, bool] = Expiring(MAX_NAMES)

    def get(self, host: str) -> Delegation:
        """Return the delegation of a host, from memory if it is still valid."""
        found = self._kept.get(host)
        if found is None:
            found = self.fetch(host)
            seconds = found.seconds
            if found.server is not None:
                self._worked.put(host, True, REMEMBERED_SECONDS)  # noqa: FBT003 - a set
            elif self._worked.get(host):
                seconds = FAILURE_AFTER_SUCCESS_SECONDS
            self._kept.put(host, found, seconds)
        return found

    def forget(self, host: str, *, also_missing: bool = False) -> str | None:
        """Fetch a delegation again at the next call, and return what it was.

        `also_missing`: also if there was no file, which is not why a connection fails.
        """
        found = self._kept.get(host)
        if found is not None and (also_missing or found.server is not None):
            self._kept.drop(host)
        return None if found is None else found.server

    def fetch(self, host: str) -> Delegation:
        """Fetch the delegation of a host now."""
        until = time.monotonic() + TIMEOUT_S
        url = f"https://{host}:{self._port}{PATH}"
        try:
            with https.remote_errors(host, until), event_loop.time_limit(TIMEOUT_S):
                return self._followed(url, until)
        except RemoteError as problem:
            return Delegation(None, str(problem))

    def _followed(self, url: str, until: float) -> Delegation:
        """Return the delegation at a URL, or where it redirects. Raises RemoteError, ValueError."""
        for _ in range(MAX_REDIRECTS + 1):
            status, headers, body = self._fetch(url, until)
            location = headers.get("Location")
            if status not in _REDIRECTS or location is None:
                return _delegation(status, headers, body)
            url = urljoin(url, location)
        return Delegation(None, f"It redirects more than {MAX_REDIRECTS} times")

    def _fetch(self, url: str, until: float) -> tuple[int, HTTPMessage, bytes]:
        """Return status, headers and body. Raises RemoteError, ValueError and as connections do."""
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme != "https" or not identifiers.is_server_name(parts.netloc):
            # An answer that is not encrypted could be changed by others, who would get the name
            raise RemoteError("refused", f"It redirects to {url[:200]}, which is not https://host")
        targets = self._locate(host, self._port if port is None else port)
        connection = self._connector.connect(targets, host, until)
        target = quote(parts.path or "/", safe=KEPT_IN_PATHS)
        if parts.query:
            target += "?" + quote(parts.query, safe=KEPT_IN_URLS)
        sent = {"Host": parts.netloc.removesuffix(f":{self._port}"), "User-Agent": USER_AGENT}
        try:
            response = connection.request("GET", target, sent, None, until)
            body = b"".join(https.read(response, MAX_BYTES)) if response.status == 200 else b""
            return response.status, response.headers, body
        finally:
            connection.close()


def _delegation(status: int, headers: HTTPMessage, body: bytes) -> Delegation:
    """Return what a response says, which may be JSON of any type, or none."""
    if status != 200:
        return Delegation(None, f"It has status {status}")
    try:
        content = orjson.loads(body)
    except ValueError:
        return Delegation(None, "It is not JSON")
    server = content.get("m.server") if isinstance(content, dict) else None
    if not identifiers.is_server_name(server):
        return Delegation(None, "It has no m.server that is a server name")
    return Delegation(server, seconds=_seconds(headers))


def _seconds(headers: Mapping[str, str] | HTTPMessage) -> float:
    """Return how long an answer is valid by its headers, within our bounds."""
    seconds = _by_cache_control(headers.get("Cache-Control") or "")
    if seconds is None:
        seconds = _by_expires(headers.get("Expires"))
    if seconds is None:
        return DEFAULT_SECONDS * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return max(MIN_SECONDS, min(seconds, MAX_SECONDS))


def _by_cache_control(text: str) -> float | None:
    found = None
    for directive in text.lower().split(","):
        name, _, value = directive.strip().partition("=")
        if name in {"no-store", "no-cache"}:
            return 0.0
        if name == "max-age" and value.strip('"').isdecimal():
            found = float(value.strip('"')[:9])
    return found


def _by_expires(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0  # as RFC 9111 says of "0" and the like
