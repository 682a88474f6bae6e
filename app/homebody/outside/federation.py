"""Requests to other homeservers, signed by this one.

Connections are kept, as a TLS handshake takes longer than most requests. A request has one time
limit for everything: finding the server, connecting, waiting for the turn, and the last byte of the
response.

Spec: server-server-api#api-standards, server-server-api#request-authentication
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPMessage, HTTPResponse
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode
from weakref import WeakValueDictionary

from homebody.config.settings import Config
from homebody.outside import RemoteError, https
from homebody.outside.client import USER_AGENT
from homebody.outside.expiring import Expiring
from homebody.outside.https import ClosedError, Connection, Connector
from homebody.outside.kept import KeptConnections
from homebody.outside.server_discovery import ServerDiscovery
from homebody.runtime import event_loop
from homebody.spec import canonical_json, x_matrix
from homebody.spec.events import Json
from homebody.spec.signing import SigningKey

Query = Mapping[str, str | Sequence[str]]

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 10 * 2**20
"""Of a response that is decoded as a whole, which takes 3 ms for each MiB."""
MAX_ERROR_BYTES: Final = 65_536
FAILING_SECONDS: Final = 3600.0
"""How long a server counts as failing that could not be reached, if nothing is heard of it."""
MAX_FAILING: Final = 10_000
MAX_AT_ONCE: Final = 8
"""Requests to one server, and as many downloads."""
POLICY: Final = "/_matrix/policy/"
_REPEATABLE: Final = {"GET", "HEAD", "PUT", "DELETE"}
"""The Server-Server API's PUTs name what they put (a transaction, an event)."""


def path_of(*segments: str, version: str = "v1") -> str:
    """Return the path of an operation of the Server-Server API. No segment is quoted yet."""
    return "/".join(["/_matrix/federation", version, *(quote(it, safe="") for it in segments)])


class _Writable(Protocol):
    def write(self, content: bytes, /) -> object: ...


def _accept(_headers: HTTPMessage) -> None:
    """Accept a download, whatever its headers."""


@dataclass(frozen=True, slots=True)
class Download:
    """The response to a download; its body is in the caller's file."""

    status: int
    headers: HTTPMessage
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class _Request:
    server: str
    method: str
    target: str
    body: bytes | None
    headers: dict[str, str]
    until: float


class FederationClient:
    """Makes requests to other homeservers."""

    def __init__(self, config: Config, server_name: str, key: SigningKey) -> None:
        """Read the certificate authorities. Raises ConfigError."""
        self._config = config
        self._server_name = server_name
        self._key = key
        self._connector = Connector(config)
        self.discovery = ServerDiscovery(config, self._connector)
        self._kept = KeptConnections()
        self._failing: Expiring[str, bool] = Expiring(MAX_FAILING)
        self._lock = threading.Lock()
        self._turns: WeakValueDictionary[tuple[str, bool], threading.Semaphore] = (
            WeakValueDictionary()
        )

    def reload(self, config: Config) -> None:
        """Follow changed settings: which servers are allowed."""
        self._config = config

    def request(
        self,
        server: str,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        timeout_s: float = TIMEOUT_S,
        max_bytes: int = MAX_BYTES,
        is_signed: bool = True,
        decode: Callable[[bytes], Any] = canonical_json.decode,
    ) -> Any:
        """Return the decoded JSON of a server's response.

        `path` is percent-encoded already; values of `query` are texts or lists of texts; `json` may
        be bytes in canonical JSON. `decode` gets the body and raises ValueError. Raises
        RemoteError: for each status but 2xx with that `status`, and the `content` of the error.
        """
        request = self._request(server, method, path, query, json, timeout_s, is_signed=is_signed)
        with self._response(request) as response:
            body = b"".join(https.read(response, max_bytes))
        try:
            return decode(body)
        except ValueError as error:
            raise RemoteError("bad_response", f"The response of {server} is not JSON") from error

    def download(
        self,
        server: str,
        path: str,
        to_file: _Writable,
        *,
        query: Query | None = None,
        method: str = "GET",
        json: Any = None,
        timeout_s: float,
        max_bytes: int,
        is_signed: bool = True,
        check: Callable[[HTTPMessage], None] = _accept,
    ) -> Download:
        """Write the body of a server's response to a file, in pieces. Raises as `request` does.

        When it raises, the file may contain the beginning. What is written is decompressed. Errors
        of the file are raised as they are. `check` gets the headers before anything is written.
        """
        request = self._request(server, method, path, query, json, timeout_s, is_signed=is_signed)
        size = 0
        try:
            with self._response(request, is_download=True) as response:
                check(response.headers)
                for piece in https.read(response, max_bytes):
                    _write(to_file, piece)
                    size += len(piece)
                return Download(response.status, response.headers, size)
        except _FileError as error:
            raise error.problem from error

    def forget(self, server: str) -> None:
        """Look a server up again at the next request, also if it could not be found before.

        For servers that have just made a request to us, and so are there.
        """
        self._failing.drop(server)
        self.discovery.forget(server, also_missing=True)

    def is_failing(self, server: str) -> bool:
        """Return whether the latest request to a server did not reach it, or had no response."""
        return self._failing.get(server) is not None

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._kept.close()

    def _request(
        self,
        server: str,
        method: str,
        path: str,
        query: Query | None,
        json: Any,
        timeout_s: float,
        *,
        is_signed: bool,
    ) -> _Request:
        """Return a request with its headers. Raises RemoteError if it must not be made."""
        self._check_permitted(server, path)
        target = f"{path}?{urlencode(query, doseq=True, quote_via=quote)}" if query else path
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "gzip"}
        body = None
        if json is not None:
            body = json if isinstance(json, bytes) else canonical_json.encode(json)
            headers["Content-Type"] = "application/json"
        elif method in {"POST", "PUT"}:
            body = b""
        if is_signed:
            headers["Authorization"] = x_matrix.sign(
                self._key,
                method=method,
                uri=target,
                origin=self._server_name,
                destination=server,
                content=json,
            )
        return _Request(server, method, target, body, headers, time.monotonic() + timeout_s)

    def _check_permitted(self, server: str, path: str) -> None:
        """Raise RemoteError (refused) if this server does not talk to that one.

        The policy server of its own name is another program.
        """
        if server == self._server_name and not path.startswith(POLICY):
            raise RemoteError("refused", f"{server} is this server")
        if not self._config.federation:
            raise RemoteError("refused", "This server does not talk to others (federation = false)")
        if not self._config.is_server_allowed(server):
            raise RemoteError("refused", f"The settings exclude {server} from federation")

    @contextmanager
    def _response(self, request: _Request, *, is_download: bool = False) -> Iterator[HTTPResponse]:
        """Yield a successful response; keep the connection if it has been read to its end."""
        seconds = request.until - time.monotonic()
        errors = https.remote_errors(request.server, request.until)
        limit = event_loop.time_limit(seconds)
        with (
            self._noting(request.server),
            errors,
            limit,
            self._turn(request, is_download=is_download),
        ):
            connection, response = self._send(request)
            try:
                if not 200 <= response.status < 300:
                    raise _error(request.server, response)
                yield response
            finally:
                if connection.is_reusable():
                    self._kept.put(request.server, connection)
                else:
                    connection.close()

    @contextmanager
    def _noting(self, server: str) -> Iterator[None]:
        """Remember whether the server can be reached."""
        try:
            yield
        except RemoteError as error:
            if error.kind in {"unreachable", "timeout"}:
                self._failing.put(server, value=True, seconds=FAILING_SECONDS)
            elif error.kind != "refused":
                self._failing.drop(server)
            raise
        self._failing.drop(server)

    @contextmanager
    def _turn(self, request: _Request, *, is_download: bool) -> Iterator[None]:
        """Wait until few enough requests to this server are under way."""
        key = (request.server, is_download)
        with self._lock:
            turns = self._turns.get(key)
            if turns is None:
                turns = self._turns[key] = threading.Semaphore(MAX_AT_ONCE)
        if not turns.acquire(timeout=max(request.until - time.monotonic(), 0)):
            raise TimeoutError
        try:
            yield
        finally:
            turns.release()

    def _send(self, request: _Request) -> tuple[Connection, HTTPResponse]:
        """Send a request over a kept connection, or a new one."""
        while connection := self._kept.take(request.server):
            try:
                return connection, self._sent(connection, request)
            except ClosedError:
                # The peer closed it at the same moment, and did not see the request
                if request.method not in _REPEATABLE:
                    raise
        connection = self._connect(request)
        return connection, self._sent(connection, request)

    def _connect(self, request: _Request) -> Connection:
        location, targets = self.discovery.find(request.server, request.until)
        try:
            connection = self._connector.connect(targets, location.tls_name, request.until)
        except RemoteError:
            self.discovery.forget(request.server)
            raise
        connection.host_header = location.host_header
        return connection

    def _sent(self, connection: Connection, request: _Request) -> HTTPResponse:
        headers = {"Host": connection.host_header, **request.headers}
        try:
            return connection.request(
                request.method, request.target, headers, request.body, request.until
            )
        except BaseException:
            connection.close()
            raise


class _FileError(Exception):
    """Writing the file failed, which is not the peer's fault."""

    def __init__(self, problem: OSError) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _write(file: _Writable, piece: bytes) -> None:
    try:
        file.write(piece)
    except TimeoutError:  # of the request, while the file waits for a thread
        raise
    except OSError as problem:
        raise _FileError(problem) from problem


def _error(server: str, response: HTTPResponse) -> RemoteError:
    """Return the exception for a response with another status than 2xx."""
    content: Any = None
    with suppress(*https.ERRORS, RemoteError):  # an error page of a proxy, or half of one
        content = canonical_json.decode(b"".join(https.read(response, MAX_ERROR_BYTES)))
    if not isinstance(content, dict):
        content = {}
    sentence = f"{server} responds with status {response.status}{_described(content)}"
    return RemoteError("bad_response", sentence, status=response.status, content=content)


def _described(content: Json) -> str:
    parts = [content.get("errcode"), content.get("error")]
    text = ": ".join(part for part in parts if isinstance(part, str))
    printable = "".join(it if it.isprintable() else " " for it in text[:300])
    return f" ({printable})" if printable else ""
