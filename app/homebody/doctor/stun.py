"""Ask a TURN server whether it would relay a call: STUN (RFC 5389) and TURN (RFC 5766) by hand.

An Allocate request without credentials is refused with a realm and a nonce; one with credentials of
our shared secret shows whether the server has the same secret. What it allocates ends with the
connection, or after ten minutes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from homebody.core.accounts import turn
from homebody.doctor.examination import Examination
from homebody.doctor.fetching import CONNECT_S, UnreachableError, reason

BINDING, ALLOCATE = 0x0001, 0x0003
SUCCESS, ERROR = 0x0100, 0x0110
COOKIE: Final = 0x2112A442
USERNAME, MESSAGE_INTEGRITY, ERROR_CODE = 0x0006, 0x0008, 0x0009
REALM, NONCE, REQUESTED_TRANSPORT = 0x0014, 0x0015, 0x0019
UNAUTHORIZED: Final = 401
UDP: Final = struct.pack("!Bxxx", 17)
TRIES_S: Final = (0.5, 1.0, 2.0)
"""How long to wait for each of the datagrams, which may get lost."""
_HEAD: Final = struct.Struct("!HHI12s")

Exchange = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Message:
    """A response of a TURN server."""

    kind: int
    attributes: dict[int, bytes]

    @property
    def error(self) -> int:
        """The code of an error; 0 if it is not one."""
        value = self.attributes.get(ERROR_CODE, b"")
        return value[2] % 8 * 100 + value[3] if self.kind & ERROR == ERROR and len(value) > 3 else 0


def check(ex: Examination, uri: str) -> str:
    """Return what a TURN server has answered. Raises UnreachableError."""
    scheme, _, rest = uri.partition(":")
    place, _, query = rest.partition("?")
    host, port = _split(place, 5349 if scheme in {"turns", "stuns"} else 3478)
    is_tls = scheme in {"turns", "stuns"}
    is_tcp = is_tls or "transport=tcp" in query
    with _connected(ex, host, port, is_tcp=is_tcp, is_tls=is_tls) as sock:
        exchange = _over_tcp(sock) if is_tcp else _over_udp(sock)
        try:
            if not scheme.startswith("turn"):
                _request(exchange, BINDING, {})
                return "answers"
            return _allocate(ex, exchange)
        except (OSError, ValueError) as error:
            raise UnreachableError(reason(error)) from error


def _split(place: str, default: int) -> tuple[str, int]:
    host, colon, port = place.rpartition(":")
    if colon and port.isdecimal() and not host.endswith(":"):
        return host.strip("[]"), int(port)
    return place.strip("[]"), default


def _connected(
    ex: Examination, host: str, port: int, *, is_tcp: bool, is_tls: bool
) -> socket.socket:
    if is_tcp:
        plain = ex.fetcher.connect(host, port)
        if not is_tls:
            return plain
        try:
            return ex.fetcher.secured(plain, host, is_strict=True)
        except OSError as error:
            plain.close()
            raise UnreachableError(f"TLS: {reason(error)}") from error
    address, target_port = ex.fetcher.targets(host, port)[0]
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.connect((address, target_port))
    except OSError as error:
        sock.close()
        raise UnreachableError(reason(error)) from error
    return sock


def _allocate(ex: Examination, exchange: Exchange) -> str:
    """Return what came of a request for a relay. Raises UnreachableError, OSError, ValueError."""
    first = _request(exchange, ALLOCATE, {REQUESTED_TRANSPORT: UDP})
    if first.kind == ALLOCATE | SUCCESS:
        raise UnreachableError("relays for anybody, without credentials")
    if first.error != UNAUTHORIZED:
        raise UnreachableError(f"refuses to relay with error {first.error}")
    credentials = turn.credentials(ex.config, "@doctor", time.time_ns() // 1_000_000)
    if credentials is None:
        raise UnreachableError("turn_shared_secret is not set, so clients get no credentials")
    realm, nonce = first.attributes.get(REALM, b""), first.attributes.get(NONCE, b"")
    username = str(credentials["username"]).encode()
    key = hashlib.md5(  # noqa: S324 - as RFC 5389 has it
        b":".join((username, realm, str(credentials["password"]).encode()))
    ).digest()
    wanted = {REQUESTED_TRANSPORT: UDP, USERNAME: username, REALM: realm, NONCE: nonce}
    second = _request(exchange, ALLOCATE, wanted, key)
    if second.error == UNAUTHORIZED:
        raise UnreachableError("refuses credentials made with turn_shared_secret")
    if second.kind != ALLOCATE | SUCCESS:
        raise UnreachableError(f"refuses to relay with error {second.error}")
    return "relays with our credentials"


def _request(
    exchange: Exchange, kind: int, attributes: dict[int, bytes], key: bytes | None = None
) -> Message:
    transaction = secrets.token_bytes(12)
    body = b"".join(_attribute(it, value) for it, value in attributes.items())
    if key is not None:  # its length counts in the head, of which it is made
        head = _HEAD.pack(kind, len(body) + 24, COOKIE, transaction)
        body += _attribute(MESSAGE_INTEGRITY, hmac.digest(key, head + body, "sha1"))
    answer = exchange(_HEAD.pack(kind, len(body), COOKIE, transaction) + body)
    return _parsed(answer, transaction)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)


def _parsed(data: bytes, transaction: bytes) -> Message:
    """Parse a response. Raises ValueError."""
    if len(data) < _HEAD.size:
        raise ValueError("what answers is not a TURN server")
    kind, length, cookie, echoed = _HEAD.unpack_from(data)
    if cookie != COOKIE or echoed != transaction or _HEAD.size + length > len(data):
        raise ValueError("what answers is not a TURN server")
    attributes: dict[int, bytes] = {}
    place = _HEAD.size
    while place + 4 <= _HEAD.size + length:
        name, size = struct.unpack_from("!HH", data, place)
        attributes.setdefault(name, data[place + 4 : place + 4 + size])
        place += 4 + size + -size % 4
    return Message(kind, attributes)


def _over_udp(sock: socket.socket) -> Exchange:
    def exchange(data: bytes) -> bytes:
        for seconds in TRIES_S:
            sock.settimeout(seconds)
            sock.send(data)
            try:
                return sock.recv(2048)
            except TimeoutError:
                continue
        raise TimeoutError

    return exchange


def _over_tcp(sock: socket.socket) -> Exchange:
    def exchange(data: bytes) -> bytes:
        sock.settimeout(CONNECT_S)
        sock.sendall(data)
        head = _exactly(sock, _HEAD.size)
        _, length, cookie, _ = _HEAD.unpack(head)
        if cookie != COOKIE:  # the length has no meaning, then
            raise ValueError("what answers is not a TURN server")
        return head + _exactly(sock, length)

    return exchange


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ValueError("the connection was closed")
        data += piece
    return data
