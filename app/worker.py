"""gunicorn's gevent worker, with the manners of a homeserver.

- SIGTERM answers parked requests at once and hangs up on idle connections, so a stop takes moments.
- Requests that no parser understands get a Matrix error.
- What is left of a refused body is read only up to a limit: a client that has not yet looked at the
  answer gets it, one that sends gigabytes is cut off.
- A client that has gone away in the middle of a body doesn't keep its greenlet for ever.
- The process notices when the command line has changed its database.
"""

from __future__ import annotations

import logging
import os
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import gevent
import orjson
from gunicorn import util
from gunicorn.http import errors as http_errors
from gunicorn.workers.ggevent import GeventWorker

from app import errors, memory

if TYPE_CHECKING:
    from types import FrameType

    from flask import Flask

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 0.5
"""How soon a running server feels `homebody user passwd` and the like."""
SECONDS_WITHOUT_A_BYTE = 120.0
"""How long a body may stand still before the connection is given up."""
SECONDS_TO_DRAIN = 5.0
MAX_DRAINED_BYTES = 32 * 2**20
_PIECE_BYTES = 2**16


class OneWrite:
    """A socket that sends head and body of an answer together.

    gunicorn writes them one by one: two system calls, and a client that wakes up twice.
    """

    HELD_BYTES = 65_536

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __enter__(self) -> OneWrite:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None or kind is StopIteration:  # gunicorn's way to say: close after this one
            self.flush()

    def sendall(self, data: bytes) -> None:
        """Hold it back for what follows, unless that is much."""
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self.HELD_BYTES:
            self.flush()

    def sendfile(self, *args: Any, **kwargs: Any) -> int:
        """A file, after what was held back."""
        self.flush()
        self._socket.settimeout(None)
        return self._socket.sendfile(*args, **kwargs)

    def flush(self) -> None:
        """Send what was held back."""
        held, self._held, self._held_bytes = self._held, [], 0
        if held:
            # The limit is for a body that stands still; an answer of megabytes may take its time
            self._socket.settimeout(None)
            self._socket.sendall(b"".join(held))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class Worker(GeventWorker):
    """One process that serves; see the module."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: set[socket.socket] = set()

    def run(self) -> None:
        """Serve until told to stop."""
        memory.give_back()
        LOG.info("homebody listens on %s", ", ".join(self.cfg.bind))
        gevent.spawn(self._look_for_other_writers)
        self._app.extensions["delivery"].start()
        super().run()
        self._app.extensions["delivery"].stop()
        self._app.extensions["last_seen"].write()
        self._app.extensions["db"].close()

    @property
    def _app(self) -> Flask:
        return cast("Flask", self.wsgi)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: take no new requests, and finish those under way."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._let_go)  # a signal handler may not switch greenlets

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C: the same; gunicorn would end the process in the middle, with a stack trace."""
        self.handle_exit(sig, frame)

    def handle(self, listener: socket.socket, client: socket.socket, addr: Any) -> None:
        """One connection, with all its requests."""
        self._idle.add(client)
        try:
            super().handle(listener, client, addr)
        finally:
            self._idle.discard(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """One request of a connection."""
        self._idle.discard(sock)
        sock.settimeout(SECONDS_WITHOUT_A_BYTE)
        try:
            with OneWrite(sock) as whole:
                super().handle_request(listener_name, req, cast("socket.socket", whole), addr)
            if not _drain(req):
                raise StopIteration  # gunicorn's way to say that the connection ends
        finally:
            self._idle.add(sock)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """What the HTTP parser refused, as a Matrix error."""
        if isinstance(exc, gevent.GreenletExit):
            return  # the server stops, and has waited long enough
        error, status = errors.unknown("This is no HTTP that the server understands"), 400
        if isinstance(exc, http_errors.LimitRequestLine | http_errors.LimitRequestHeaders):
            error, status = errors.too_large("The request line or a header is too long"), 431
        elif not isinstance(exc, http_errors.ParseException):
            LOG.error("fault in a connection", exc_info=exc)
            error, status = errors.unknown("Something is wrong with the server"), 500
        # Not at the top: gunicorn's master loads this module, and would keep all of Flask in memory
        from app.web import wsgi  # noqa: PLC0415 - see above

        body = orjson.dumps(error.body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        head = "".join(f"{name}: {value}\r\n" for name, value in [*headers, *wsgi.CORS_HEADERS])
        phrase = HTTPStatus(status).phrase
        answer = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{head}\r\n".encode() + body
        try:
            util.write_nonblock(client, answer)
        except OSError as problem:
            LOG.debug("a refused client has gone: %s", problem)

    def _let_go(self) -> None:
        self._app.extensions["wakeups"].close()
        for connection in list(self._idle):
            try:
                # By a twin: gevent's shutdown() raises in the greenlet that waits for the socket,
                # and gunicorn logs a trace for each. This way it reads the end of the connection.
                with socket.socket(fileno=os.dup(connection.fileno())) as twin:
                    twin.shutdown(socket.SHUT_RDWR)
            except OSError as problem:
                LOG.debug("an idle client has gone: %s", problem)

    def _look_for_other_writers(self) -> None:
        database, delivery = self._app.extensions["db"], self._app.extensions["delivery"]
        while self.alive:
            gevent.sleep(SECONDS_BETWEEN_LOOKS)
            if database.notice_other_writers():
                delivery.look()


def _drain(req: Any) -> bool:
    """Whether what the view has not read of a body is out of the way now."""
    if getattr(req.body.reader, "length", None) == 0:
        return True  # the usual case: a body of known length that was read, or none
    try:
        with gevent.Timeout(SECONDS_TO_DRAIN):
            for _ in range(MAX_DRAINED_BYTES // _PIECE_BYTES):
                if not req.body.read(_PIECE_BYTES):
                    return True
    except (OSError, http_errors.ParseException, gevent.Timeout) as problem:
        LOG.debug("the rest of a body does not come: %s", problem)
    return False
