"""gunicorn's gevent worker, with the manners of a homeserver.

- SIGTERM answers parked requests at once and hangs up on idle connections, so a stop takes moments.
- Requests that no parser understands get a Matrix error.
- What is left of a refused body is read only up to a limit: a client that has not yet looked at the
  answer gets it, one that sends gigabytes is cut off.
- A client that sends or takes too slowly doesn't keep its greenlet for ever; see connection.py.
- The process notices when the command line has changed its database, and when its hub stands still.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar, cast

import gevent
import orjson
from gevent import event
from gevent.pool import Pool
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import errors as http_errors
from gunicorn.workers.ggevent import GeventWorker
from sqlalchemy.exc import DBAPIError

from homebody import errors
from homebody.config.settings import FILE_NAME, ConfigError, file_in_force
from homebody.runtime import event_loop, logs, memory
from homebody.runtime.watchdog import Watchdog
from homebody.server import startup
from homebody.server.connection import Backlog, Connection, Patience
from homebody.server.starter import STOP_SIGNALS
from homebody.storage import data_folder, disk_errors

if TYPE_CHECKING:
    import mmap
    import socket
    from types import FrameType

    from gunicorn.config import Config

    from homebody.context import Homeserver
    from homebody.web import Application

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_LOOKS = 0.5
"""How soon a running server feels `homebody user passwd` and the like."""
SECONDS_BETWEEN_SIGNS_OF_LIFE = 1.0
SECONDS_BETWEEN_TRIMS = 5.0
"""How often free memory is returned."""
SECONDS_AFTER_A_FAULT = 30.0
SECONDS_AFTER_THE_START = 5.0
"""Before a large database is looked through: first come those who wait for the server."""
SECONDS_TO_DRAIN = 5.0
MAX_DRAINED_BYTES = 32 * 2**20
CANNOT_BOOT = 3
"""The exit code by which gunicorn's master knows that another worker would do no better."""
_PIECE_BYTES = 2**16


class Worker(GeventWorker):
    """One process that serves; see the module."""

    PATIENCE: ClassVar = Patience()
    has_served: mmap.mmap
    """One byte that the master shares; see gunicorn.conf.py."""

    def init_process(self) -> None:
        """Set the process up and serve."""
        self._connections: set[Connection] = set()
        self._backlog = Backlog(self.PATIENCE.max_untaken_bytes)
        self._is_told_to_stop = event.Event()
        _fix_settings(self.cfg)
        super().init_process()

    def load_wsgi(self) -> None:
        """Make the application."""
        try:
            with memory.made_to_last():
                super().load_wsgi()
        except (ConfigError, DBAPIError) as error:
            LOG.error("homebody can't start: %s", " ".join(str(error).split()))  # noqa: TRY400 - the sentence says it all
            sys.exit(CANNOT_BOOT)

    def init_signals(self) -> None:
        """Leave the handlers of Starter while the server is being made."""

    def run(self) -> None:
        """Serve until told to stop."""
        self._begin_to_listen_to_signals()
        memory.give_back()
        self._say_where()
        gevent.spawn(self._look_for_other_writers)
        gevent.spawn(self._look_for_damage)
        gevent.spawn(self._trim)
        self._homeserver.delivery.start()
        watchdog = self._watchdog()
        watchdog.start()
        self._serve()
        watchdog.stop()
        self._homeserver.ephemeral.close()  # its timers read the database
        self._homeserver.delivery.stop()
        self._homeserver.last_seen.write()
        self._homeserver.database.close()

    def _begin_to_listen_to_signals(self) -> None:
        """Set up gunicorn's handlers; while it does so, a signal would kill the process."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        super().init_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _say_where(self) -> None:
        """Log what an administrator needs now, or could not change later."""
        config = self._homeserver.database.server.config
        # not cfg.bind: the port may have been left to the system
        listening = ", ".join(map(_place, self.sockets))
        LOG.info(
            "homebody serves %s on %s, and sends clients to %s (public_url)",
            config.server_name,
            listening,
            config.public_url,
        )
        if not startup.has_accounts(config):
            LOG.info(
                "There are no accounts yet. Once there are, server_name can't change from %s: to"
                " have another one, set it in %s now",
                config.server_name,
                file_in_force(os.environ) or config.data_dir / FILE_NAME,
            )

    def _serve(self) -> None:
        """What gunicorn's worker does in its `run`, but that looks for a stop once a second."""
        handling = Pool(self.worker_connections)
        listening = [
            StreamServer(listener, partial(self.handle, listener), spawn=handling)
            for listener in self.sockets
        ]
        for server in listening:
            server.start()
        self.has_served[0] = True
        while self.alive:
            self.notify()
            self._is_told_to_stop.wait(SECONDS_BETWEEN_SIGNS_OF_LIFE)
        for server in listening:
            server.close()
        if not handling.join(self.cfg.graceful_timeout):
            LOG.warning("some requests were not done in time, and are given up")
            handling.kill(timeout=1)

    def _watchdog(self) -> Watchdog:
        metrics = self._homeserver.metrics
        metrics.connections = self._connections
        limit_ms = self._homeserver.database.server.config.hub_stall_ms
        return Watchdog(limit_ms, metrics.stalls, _request_of)

    @property
    def _homeserver(self) -> Homeserver:
        return cast("Application", self.wsgi).homeserver

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: take no new requests, and finish those under way."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._let_go)  # a signal handler may not switch greenlets

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Ctrl-C: the same; gunicorn would end the process in the middle, with a stack trace."""
        self.handle_exit(sig, frame)

    def handle(self, listener: socket.socket, client: socket.socket, addr: Any) -> None:
        """One connection, with all its requests."""
        connection = Connection(client, self.PATIENCE, self._backlog)
        self._connections.add(connection)
        try:
            super().handle(listener, cast("socket.socket", connection), addr)
        finally:
            self._connections.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """One request of a connection."""
        sock.begin_request()
        try:
            try:
                super().handle_request(listener_name, req, sock, addr)
            except StopIteration:  # gunicorn's way to say that the connection ends
                sock.flush()
                raise
            sock.flush()
            if not _drain(req, sock):
                raise StopIteration
        finally:
            sock.end_request()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """What the HTTP parser refused, as a Matrix error."""
        if isinstance(exc, gevent.GreenletExit):
            return  # the server stops, and has waited long enough
        request_id = logs.begin_request()
        error, status = errors.unknown("The request is not valid HTTP"), 400
        if isinstance(exc, http_errors.LimitRequestLine | http_errors.LimitRequestHeaders):
            error, status = errors.too_large("The request line or a header is too long"), 431
        elif not isinstance(exc, http_errors.ParseException):
            LOG.error("fault in a connection", exc_info=exc)
            error, status = errors.unknown("Something is wrong with the server"), 500
        elif self._has_too_many_headers(client):
            error, status = errors.too_large("The request has too many headers"), 431
        # Not at the top: most of the server is to be loaded after gevent has patched the modules
        from homebody.web import middleware  # noqa: PLC0415 - see above

        body = orjson.dumps(error.body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers += [*middleware.CORS_HEADERS, (middleware.REQUEST_ID, request_id)]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        logs.log_request(addr[0] if addr else "", "-", "-", None, status, 0.0)
        phrase = HTTPStatus(status).phrase
        answer = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{head}\r\n".encode() + body
        try:
            util.write_nonblock(client, answer)
        except OSError as problem:
            LOG.debug("a refused client has gone: %s", problem)

    def _has_too_many_headers(self, client: socket.socket) -> bool:
        """Whether that is why the parser has refused a request.

        It says so up to 256 of them; of more than that, it calls the request no HTTP.
        """
        received = cast("Connection", client).headers_received()
        most: int = self.cfg.limit_request_fields
        return received > most

    def _let_go(self) -> None:
        """At a stop: parked requests answer, idle clients are hung up on; later whoever is left."""
        self._is_told_to_stop.set()
        self._homeserver.wakeups.close()
        for connection in list(self._connections):
            if connection.is_idle:
                connection.hang_up()
        gevent.sleep(self.PATIENCE.seconds_at_stop)
        for connection in list(self._connections):
            connection.cut()

    def _look_for_other_writers(self) -> None:
        database, delivery = self._homeserver.database, self._homeserver.delivery
        are_there_rows = False
        """In the outbox, possibly; it stays true until a look at them has succeeded."""
        while self.alive:
            gevent.sleep(SECONDS_BETWEEN_LOOKS)
            try:
                if self.alive and database.notice_other_writers():  # it is closed after that
                    are_there_rows = True
                if self.alive and are_there_rows:
                    delivery.look()
                    are_there_rows = False
            except Exception as problem:
                if disk_errors.answer_to(problem) is None:
                    LOG.exception("cannot see what others have written")
                gevent.sleep(SECONDS_AFTER_A_FAULT)

    def _trim(self) -> None:
        while self.alive:
            gevent.sleep(SECONDS_BETWEEN_TRIMS)
            memory.trim()

    def _look_for_damage(self) -> None:
        """Read a large database once; the start had no time for it."""
        path = data_folder.database_path(self._homeserver.database.server.config.database_url)
        if path.stat().st_size <= disk_errors.LARGE_BYTES:
            return
        gevent.sleep(SECONDS_AFTER_THE_START)
        found = event_loop.offload(disk_errors.damage, path, lambda: not self.alive)
        if found is not None:
            LOG.error(
                "the database is damaged (%s): stop the server, then %s", found, disk_errors.ADVICE
            )


def _fix_settings(cfg: Config) -> None:
    """Make gunicorn's settings plain attributes: they don't change any more.

    Each request asks for a dozen of them, and its own way takes two calls and two look-ups for one.
    """
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})


def _place(listener: socket.socket) -> str:
    """Return address and port as they stand in URLs."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _request_of(frame: FrameType) -> str | None:
    """Method and path, without secrets, of the request that this frame answers."""
    if frame.f_code is not Worker.handle_request.__code__:
        return None
    req = frame.f_locals["req"]
    return f"{req.method} {logs.masked_path(req.uri)}"


def _drain(req: Any, sock: Any) -> bool:
    """Return whether what the view has not read of a body is out of the way now."""
    length = getattr(req.body.reader, "length", None)
    if length == 0:
        return True  # the usual case: a body of known length that was read, or none
    piece = memoryview(bytearray(_PIECE_BYTES))
    try:
        with gevent.Timeout(SECONDS_TO_DRAIN):
            for _ in range(MAX_DRAINED_BYTES // _PIECE_BYTES):
                if length is None:  # in chunks, whose end only gunicorn finds
                    count = len(req.body.read(_PIECE_BYTES))
                else:  # its own way copies each piece several times, and others wait meanwhile
                    count = sock.read_body_into(req.body, piece)
                if not count:
                    return True
    except (OSError, http_errors.ParseException, gevent.Timeout) as problem:
        LOG.debug("the rest of a body does not come: %s", problem)
    return False
