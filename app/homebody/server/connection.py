"""A client's connection: a socket that loses its patience.

gunicorn reads and writes through it. What a client may do to us by being slow ends here:
- a head may not be endless, and its parser gets it whole, as it would look at all of it again for
  each piece;
- a body has to come: some bytes now and then, and on the whole a least number of them a second;
- an answer has to be taken: slowly, but some of it now and then;
- all the answers that wait to be taken have a limit together. Beyond it the client that has taken
  nothing for the longest time is let go: the memory belongs to those who read.
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
HELD_BYTES: Final = 65_536
_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_MOST_OF_AN_END: Final = 3
"""Bytes of it that may have come with the piece before."""
_NOT_HTTP: Final = re.compile(rb"[^\r\n!-~]")
"""What no request begins with, but TLS does."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: what the client has not taken is dropped with the connection; the kernel would keep
megabytes of it for many minutes."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for."""

    seconds: float = 90.0
    """Without a byte; longer than a connection may idle."""
    least_bytes_per_second: int = 500
    """Of a body, after so many seconds. The slowest mobile networks have ten times that."""
    seconds_at_stop: float = 2.5
    """For requests that are under way when the server is told to stop."""
    max_untaken_bytes: int = 128 * 2**20
    """Of answers that clients have not taken yet, all together."""


class Backlog:
    """The large answers that clients are taking; who has taken nothing for longest comes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[Connection, int] = {}
        self._bytes = 0

    def add(self, connection: Connection, size: int) -> None:
        """An answer of this size begins; others may have to go for it."""
        self._sizes[connection] = size
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._sizes) > 1:
            slowest = next(iter(self._sizes))
            LOG.warning("a client does not take its answer, and others need the memory: let go")
            self.remove(slowest)
            slowest.cut()

    def note_progress(self, connection: Connection) -> None:
        """The client has taken some of it."""
        if connection in self._sizes:
            self._sizes[connection] = self._sizes.pop(connection)

    def remove(self, connection: Connection) -> None:
        """The answer is over."""
        self._bytes -= self._sizes.pop(connection, 0)


class Connection:
    """The socket of one client; everything that is not here, the socket does itself."""

    def __init__(self, client: socket.socket, patience: Patience, backlog: Backlog) -> None:
        self._socket = client
        self._patience = patience
        self._backlog = backlog
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._received = 0  # bytes of this head, or of this body
        self._head = bytearray()  # those of a head, and what came with them
        self._has_line = False  # whether the first line of the head has come
        self._is_new = True  # nothing has come at all
        self._body_began = 0.0
        self.is_idle = True
        """No request of it is under way."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def begin_request(self) -> None:
        """The head has come."""
        self.is_idle = False
        self._received = 0
        self._head.clear()
        self._has_line = False
        self._body_began = 0.0

    def end_request(self) -> None:
        """What was held back and not sent is forgotten: there was a fault in the middle."""
        self.is_idle = True
        self._received = 0
        self._held, self._held_bytes = [], 0

    def headers_received(self) -> int:
        """How many headers of a head have come that no parser has taken.

        0 within a request. Not all of them if the head came along with the request before it.
        """
        return _END_OF_HEAD.split(self._head, 1)[0].count(b"\n")

    def setblocking(self, flag: bool | int) -> None:  # noqa: FBT001 - a socket's method
        """Where gunicorn asks to wait for ever, wait as long as our patience."""
        self._socket.settimeout(self._patience.seconds if flag else 0.0)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Some bytes that the client sends.

        Raises TimeoutError for a body that comes too slowly, LimitRequestHeaders for a head that
        goes on and on.
        """
        if flags:  # a look at what comes, by who waits for something else
            return self._socket.recv(size, flags)
        if self.is_idle:
            return self._recv_head(size)
        self._check_pace()
        data = self._socket.recv(size)
        self._received += len(data)
        return data

    def read_body_into(self, body: Any, buffer: memoryview) -> int:
        """How many bytes of a gunicorn body of known length are in the buffer now; 0 at its end.

        gunicorn's own way copies each piece half a dozen times. What it has read of the body
        together with the head comes first.
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
        """Return the first line of a head as soon as it has come, and then all the rest of it.

        What follows a request in the same piece is left in the parser, and so may be the beginning
        of this head: its first newline counts as the end of a line, though it may be the last one.
        """
        begins = len(self._head)
        is_enough = False
        while not is_enough:
            try:
                data = self._socket.recv(size)
            except TimeoutError:
                data = b""  # as if it had hung up
            if not data:
                return b""
            if self._is_new and _NOT_HTTP.match(data):
                raise InvalidRequestMethod("")  # TLS, for one, may go on without a line's end
            self._is_new = False
            unseen = max(0, len(self._head) - _MOST_OF_AN_END)
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
        granted = self._patience.seconds + self._received / self._patience.least_bytes_per_second
        if now - self._body_began > granted:
            raise TimeoutError("The body comes too slowly")

    def sendall(self, data: bytes) -> None:
        """Within a request: hold it back for what follows, unless that is much.

        gunicorn writes head and body one by one: two system calls, and a client that wakes twice.
        """
        if self.is_idle:
            self._socket.sendall(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> int:
        """A file, after what was held back."""
        self.flush()
        return self._socket.sendfile(*args, **kwargs)

    def flush(self) -> None:
        """Send what was held back. Raises BrokenPipeError when the client does not take it."""
        held, size = self._held, self._held_bytes
        self._held, self._held_bytes = [], 0
        if not held:
            return
        if size <= HELD_BYTES:
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
                    self.cut()
                    raise BrokenPipeError(errno.EPIPE, "The client takes nothing")
                self._backlog.note_progress(self)

    def _queued_bytes(self) -> int:
        """What the kernel still has to bring to the client.

        It has room for megabytes, and asks for more when a third of that has been taken: from a
        slow phone that may take minutes, in which it does read.
        """
        try:
            answer = fcntl.ioctl(self._socket.fileno(), termios.TIOCOUTQ, struct.pack("i", 0))
        except OSError as problem:
            LOG.debug("this system does not say what waits in a socket: %s", problem)
            return 0
        return int(struct.unpack("i", answer)[0])

    def cut(self) -> None:
        """End the connection now, whoever waits for it; what was not taken is dropped."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.hang_up()
        except OSError as problem:
            LOG.debug("a client has gone: %s", problem)

    def hang_up(self) -> None:
        """Say that there will be no more; who waits for the client reads the connection's end."""
        try:
            # By a twin: gevent's shutdown() raises in the greenlet that waits for the socket,
            # and gunicorn logs a trace for each. This way it reads the end of the connection.
            with socket.socket(fileno=os.dup(self._socket.fileno())) as twin:
                twin.shutdown(socket.SHUT_RDWR)
        except OSError as problem:
            LOG.debug("a client has gone: %s", problem)
