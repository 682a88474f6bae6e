"""A client's connection: a socket with limits for slow clients, which gunicorn reads and writes.

- The size of a head (request line and headers) is limited, and the parser gets it in at most two
  pieces, as it would parse all of it again for each piece.
- A body must not pause for long, and must have a minimum rate on the whole.
- The client must not stop reading a response for long.
- All responses that wait to be sent have a common limit. Above it, the connection that has made no
  progress for the longest time is closed, so that clients that read get the memory.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import struct
import sys
import termios
import time
from dataclasses import dataclass
from typing import Any, Final

from gunicorn.http.errors import InvalidRequestMethod, LimitRequestHeaders

LOG = logging.getLogger(__name__)

MAX_HEAD_BYTES: Final = 512 * 2**10
"""Request line and headers: a filter written out in the query can have 200 KiB."""
BUFFER_BYTES: Final = 65_536
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_MAX_SPLIT_BYTES: Final = 3
"""Bytes of it that may be in the previous piece."""
_NOT_HTTP: Final = re.compile(rb"[^\r\n!-~]")
"""What a request can't begin with, but TLS does."""
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: drop unsent data when the connection is closed; the kernel would keep megabytes of it
for many minutes."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How slow a client may be."""

    idle_seconds: float = 90.0
    """Without a byte; longer than gunicorn's keepalive."""
    min_body_bytes_per_second: int = 500
    """After `idle_seconds`. The slowest mobile networks have ten times that."""
    stop_seconds: float = 2.5
    """For requests that are being served when the server is stopped."""
    max_unsent_bytes: int = 128 * 2**20
    """In all responses together."""


class Backlog:
    """The large responses that are being sent; the one without progress for longest comes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[Connection, int] = {}
        self._bytes = 0

    def add(self, connection: Connection, size: int) -> None:
        """Add a response of this size; close other connections if there are too many bytes now."""
        self._sizes[connection] = size
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._sizes) > 1:
            slowest = next(iter(self._sizes))
            LOG.warning("closed a connection with an unread response: others need its memory")
            self.remove(slowest)
            slowest.abort()

    def note_progress(self, connection: Connection) -> None:
        """Note that the client has read some of its response."""
        if connection in self._sizes:
            self._sizes[connection] = self._sizes.pop(connection)

    def remove(self, connection: Connection) -> None:
        """Remove a response that was sent or given up."""
        self._bytes -= self._sizes.pop(connection, 0)


class Connection:
    """The socket of one client; methods that are not defined here are those of the socket."""

    def __init__(
        self,
        client: socket.socket,
        limits: ConnectionLimits,
        backlog: Backlog,
        *,
        is_for_metrics: bool = False,
    ) -> None:
        self.is_for_metrics = is_for_metrics
        """Whether it came in at metrics_bind."""
        self._socket = client
        self._limits = limits
        self._backlog = backlog
        self._buffered: list[bytes] = []
        self._buffered_bytes = 0
        self._received = 0  # bytes of the current head or body
        self._head = bytearray()  # the bytes of a head, and what came with them
        self._has_line = False  # whether the first line of the head was received
        self._is_new = True  # nothing was received yet
        self._body_began = 0.0
        self.is_idle = True
        """Whether no request is being served."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def begin_request(self) -> None:
        """Prepare for the body: the head was received."""
        self.is_idle = False
        self._received = 0
        self._head.clear()
        self._has_line = False
        self._body_began = 0.0

    def end_request(self) -> None:
        """Prepare for the next head; drop what was not flushed, as there was an exception."""
        self.is_idle = True
        self._received = 0
        self._buffered, self._buffered_bytes = [], 0

    def headers_received(self) -> int:
        """Return the number of headers in a head that the parser has not accepted.

        0 within a request; too few if the head came together with the previous request.
        """
        return _END_OF_HEAD.split(self._head, 1)[0].count(b"\n")

    def setblocking(self, flag: bool | int) -> None:  # noqa: FBT001 - a socket's method
        """Limit the time to wait where gunicorn asks to wait forever."""
        self._socket.settimeout(self._limits.idle_seconds if flag else 0.0)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive some bytes.

        Raises TimeoutError for a body that is too slow, LimitRequestHeaders for a head that is too
        long.
        """
        if flags:  # MSG_PEEK, while a long poll waits
            return self._socket.recv(size, flags)
        if self.is_idle:
            return self._recv_head(size)
        self._check_pace()
        data = self._socket.recv(size)
        self._received += len(data)
        return data

    def read_body_into(self, body: Any, buffer: memoryview) -> int:
        """Read a gunicorn body of known length into the buffer; return the bytes, 0 at its end.

        gunicorn copies each piece half a dozen times. What it has already read of the body together
        with the head comes first.
        """
        reader = body.reader
        buffer = buffer[: reader.length]
        held = reader.unreader.take_buffered() if buffer else b""
        if held:
            count = min(len(held), len(buffer))
            buffer[:count] = held[:count]
            reader.unreader.unread(held[count:])
        elif buffer:
            self._check_pace()
            count = self._socket.recv_into(buffer)
            self._received += count
        else:
            count = 0
        reader.length -= count
        return count

    def _recv_head(self, size: int) -> bytes:
        """Return the first line of a head as soon as it is complete, and then all the rest of it.

        The parser keeps what follows a request in the same piece, which may be the beginning of
        this head: the first newline here counts as the end of a line, though it may be the last.
        """
        begins = len(self._head)
        is_enough = False
        while not is_enough:
            try:
                data = self._socket.recv(size)
            except TimeoutError:
                data = b""  # as if the client had closed the connection
            if not data:
                return b""
            if self._is_new and _NOT_HTTP.match(data):
                raise InvalidRequestMethod("")  # TLS, for example, may go on without a newline
            self._is_new = False
            unseen = max(0, len(self._head) - _MAX_SPLIT_BYTES)
            self._received += len(data)
            self._head += data
            if self._received > MAX_HEAD_BYTES:
                raise LimitRequestHeaders(f"more than {MAX_HEAD_BYTES} bytes")
            if len(self._head) == len(data) and b"\r\n\r\n" in data:  # the usual case
                self._has_line = True
                return data
            is_first_line = not self._has_line and b"\n" in data
            self._has_line |= is_first_line
            is_enough = is_first_line or _END_OF_HEAD.search(self._head, unseen) is not None
        return bytes(self._head[begins:])

    def _check_pace(self) -> None:
        now = time.monotonic()
        if not self._body_began:
            self._body_began = now
        granted = (
            self._limits.idle_seconds + self._received / self._limits.min_body_bytes_per_second
        )
        if now - self._body_began > granted:
            raise TimeoutError("The body is too slow")

    def sendall(self, data: bytes) -> None:
        """Buffer small data within a request.

        gunicorn writes head and body separately: two system calls, and the client wakes twice.
        """
        if self.is_idle:
            self._socket.sendall(data)
            return
        self._buffered.append(data)
        self._buffered_bytes += len(data)
        if self._buffered_bytes > BUFFER_BYTES:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> int:
        """Send a file, after what is in the buffer."""
        self.flush()
        return self._socket.sendfile(*args, **kwargs)

    def flush(self) -> None:
        """Send what is in the buffer. Raises BrokenPipeError when the client stops reading."""
        held, size = self._buffered, self._buffered_bytes
        self._buffered, self._buffered_bytes = [], 0
        if not held:
            return
        if size <= BUFFER_BYTES:
            self._send(b"".join(held))
            return
        self._backlog.add(self, size)
        try:
            for piece in held:
                self._send(piece)
        finally:
            self._backlog.remove(self)

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        queued = sys.maxsize
        while left:
            try:
                sent = self._socket.send(left)
            except TimeoutError:
                sent = 0
            left = left[sent:]
            if left:
                before, queued = queued, self._queued_bytes()
                if not sent and queued >= before:
                    self.abort()
                    raise BrokenPipeError(errno.EPIPE, "The client does not read")
                self._backlog.note_progress(self)

    def _queued_bytes(self) -> int:
        """Return the number of bytes that the kernel still has to send.

        It buffers megabytes, and accepts more when a third of them were sent. With a slow phone
        that may take minutes, during which the client does read.
        """
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        except OSError as problem:
            LOG.debug("this system does not report the bytes in a socket: %s", problem)
            return 0
        return int(struct.unpack("i", answer)[0])

    def abort(self) -> None:
        """Close the connection at once, for all greenlets that use it, and drop unsent data."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
            self.hang_up()
        except OSError as problem:
            LOG.debug("a client has gone: %s", problem)

    def hang_up(self) -> None:
        """Shut the connection down; a greenlet that reads from it gets the end of the stream."""
        try:
            # With a duplicate, as gevent's shutdown() raises in the greenlet that waits for the
            # socket, and gunicorn logs a stack trace for each.
            with socket.socket(fileno=os.dup(self._socket.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)
        except OSError as problem:
            LOG.debug("a client has gone: %s", problem)
