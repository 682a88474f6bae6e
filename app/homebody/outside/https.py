"""HTTPS connections to other servers, on which many requests can be made.

Each call has a time until which it has to be done. Addresses are tried in turn: those of IPv6 are
left after 300 ms if there are others, because many machines have IPv6 that leads nowhere. Responses
may be compressed; the limit of size is that of the decompressed body, against bodies that are
small only until they are decompressed.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from http.client import HTTPException, HTTPResponse, IncompleteRead
from typing import Any, Final

from homebody.config.settings import Config, ConfigError
from homebody.outside import RemoteError
from homebody.outside.addresses import Address
from homebody.runtime import event_loop

IPV6_SECONDS: Final = 0.3
IPV6_AVOIDED_SECONDS: Final = 600.0
"""How long IPv4 comes first after IPv6 did not lead anywhere."""
SECONDS_PER_ADDRESS: Final = 10.0
_PIECE_BYTES: Final = 65_536
_BYTES_BETWEEN_PAUSES: Final = 4 * _PIECE_BYTES
_MIN_SECONDS: Final = 0.001  # a timeout of 0 would mean something else

Target = tuple[Address, int]
"""An address and a port."""


class ClosedError(Exception):
    """The peer closed a connection before it sent anything of the response."""


ERRORS: Final = (OSError, HTTPException, ClosedError, ValueError, zlib.error)
"""What can be raised while a response is read."""


class Connector:
    """Makes connections."""

    def __init__(self, config: Config) -> None:
        """Read the certificate authorities of the settings. Raises ConfigError."""
        self._ca_file = config.federation_ca_file
        self._ipv6_again = 0.0
        if self._ca_file is not None:
            try:
                self._tls = ssl.create_default_context(cafile=self._ca_file)
            except OSError as error:  # also of OpenSSL
                sentence = f"federation_ca_file: {self._ca_file} can't be used: {error.strerror}"
                raise ConfigError(sentence) from error

    def connect(self, targets: list[Target], tls_name: str, until: float) -> Connection:
        """Connect to the first of these that has a certificate of this name.

        Raises RemoteError (unreachable, timeout). `until` is a time of time.monotonic().
        """
        problem: RemoteError | None = None
        for target, limit in self._attempts(targets):
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                with remote_errors(shown(target), until):
                    return self._connected(target, tls_name, min(left, limit), until)
            except RemoteError as error:
                problem = error
                self._note_ipv6(target, limit, error)
        raise problem or RemoteError("timeout", f"{tls_name} takes too long to respond")

    def _attempts(self, targets: list[Target]) -> Iterator[tuple[Target, float]]:
        """Yield what to try, and the seconds for its TCP connection."""
        ipv6 = [target for target in targets if target[0].version == 6]
        ipv4 = [target for target in targets if target[0].version == 4]
        if ipv6 and ipv4 and time.monotonic() >= self._ipv6_again:
            yield from ((target, IPV6_SECONDS) for target in ipv6[:2])
        yield from ((target, SECONDS_PER_ADDRESS) for target in [*ipv4, *ipv6])

    def _note_ipv6(self, target: Target, limit: float, problem: RemoteError) -> None:
        if target[0].version == 6 and limit == IPV6_SECONDS and problem.kind == "timeout":
            self._ipv6_again = time.monotonic() + IPV6_AVOIDED_SECONDS

    def _connected(self, target: Target, tls_name: str, seconds: float, until: float) -> Connection:
        address, port = target
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6)
        try:
            sock.settimeout(seconds)
            sock.connect((str(address), port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock = self._tls.wrap_socket(
                sock,
                server_hostname=tls_name,
                do_handshake_on_connect=False,
                # An end without TLS's close_notify may be a cut by somebody else
                suppress_ragged_eofs=False,
            )
            left = until - time.monotonic()
            sock.settimeout(max(min(left, SECONDS_PER_ADDRESS), _MIN_SECONDS))
            sock.do_handshake()
        except BaseException:
            sock.close()
            raise
        return Connection(sock)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """The context with the system's certificate authorities, which take 50 ms to read.

        It requires TLS 1.2. For an IP address, Python sends no SNI and compares the certificate's
        addresses.
        """
        return event_loop.offload(ssl.create_default_context)


class Connection:
    """A connection over which one request after the other is made."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        self._socket = sock
        self._until = 0.0
        self._response: HTTPResponse | None = None
        self.host_header = ""
        self.opened = self.idle_since = time.monotonic()

    def request(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        until: float,
    ) -> HTTPResponse:
        """Send a request; return the response with its body unread.

        Raises ClosedError, OSError and HTTPException.
        """
        self._until = until
        lines = [f"{method} {target} HTTP/1.1", *(f"{it}: {headers[it]}" for it in headers)]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        response = HTTPResponse(self, method=method)  # type: ignore[arg-type] # it calls makefile only
        try:
            self._send(head + (body or b""))
            response.begin()
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as problem:
            response.close()
            raise ClosedError("The connection was closed") from problem
        except BaseException:
            response.close()
            raise
        self._response = response
        return response

    def is_reusable(self) -> bool:
        """Return whether another request can follow: the whole response has been read."""
        it = self._response
        return it is not None and it.isclosed() and not it.will_close

    def is_open(self) -> bool:
        """Return whether an idle connection is still open, as far as we have heard.

        Anything to read is a farewell.
        """
        self._socket.settimeout(0)
        try:
            socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        """Close the connection."""
        if self._response is not None:
            self._response.close()
        self._socket.close()

    def certificate(self) -> dict[str, Any]:
        """Return the peer's certificate, as ssl describes it."""
        return self._socket.getpeercert() or {}

    def peer(self) -> str:
        """Return the address and port of the peer."""
        return ":".join(map(str, self._socket.getpeername()[:2]))

    def makefile(self, *_: Any) -> io.BufferedReader:
        """Return a file from which HTTPResponse reads."""
        return io.BufferedReader(_Incoming(self), _PIECE_BYTES)

    def receive_into(self, buffer: Any) -> int:
        """Receive bytes. Raises TimeoutError."""
        self._socket.settimeout(self._left())
        return self._socket.recv_into(buffer)

    def _send(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            self._socket.settimeout(self._left())
            rest = rest[self._socket.send(rest[:_PIECE_BYTES]) :]

    def _left(self) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Incoming(io.RawIOBase):
    """The bytes of a connection as a file; closing it leaves the connection open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._connection.receive_into(buffer)


def read(response: HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """Yield the decompressed body in pieces.

    Raises RemoteError (too_large) as soon as it is known to be too large, (bad_response) if it is
    compressed in another way than by gzip, OSError, HTTPException.
    """
    encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise RemoteError("bad_response", f"The response is compressed by {encoding[:20]!r}")
    pieces = _received(response, max_bytes)
    left, until_pause = max_bytes, _BYTES_BETWEEN_PAUSES
    for piece in pieces if encoding == "identity" else _decompressed(pieces):
        left -= len(piece)
        until_pause -= len(piece)
        if left < 0:
            raise _too_large(max_bytes)
        yield piece
        if until_pause < 0:  # a quick peer never lets us wait
            until_pause = _BYTES_BETWEEN_PAUSES
            event_loop.pause()


def _received(response: HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    if (response.length or 0) > max_bytes:
        raise _too_large(max_bytes)
    while piece := response.read(_PIECE_BYTES):
        yield piece
    if response.length:
        raise IncompleteRead(b"", response.length)


def _decompressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
    is_empty = True
    for piece in pieces:
        is_empty, rest = False, piece
        while rest and not decompressor.eof:
            if found := decompressor.decompress(rest, _PIECE_BYTES):
                yield found
            rest = decompressor.unconsumed_tail
    if not is_empty and not decompressor.eof:
        raise IncompleteRead(b"")


def _too_large(max_bytes: int) -> RemoteError:
    return RemoteError("too_large", f"The response has more than {max_bytes} bytes")


@contextmanager
def remote_errors(peer: str, until: float) -> Iterator[None]:
    """Raise RemoteError for errors of a connection."""
    try:
        yield
    except ssl.SSLCertVerificationError as problem:
        sentence = f"The certificate of {peer} is not valid: {problem.verify_message}"
        raise RemoteError("unreachable", sentence) from problem
    except ERRORS as problem:
        if time.monotonic() >= until or isinstance(problem, TimeoutError):
            raise RemoteError("timeout", f"{peer} takes too long to respond") from problem
        text = str(problem) or type(problem).__name__
        raise RemoteError("unreachable", f"{peer} can't be reached: {text}") from problem


def shown(target: Target) -> str:
    """Return an address and port as in a URL."""
    address, port = target
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
