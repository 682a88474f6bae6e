"""gunicorn's gevent worker, adapted to a homeserver.

- SIGTERM ends long polls and closes idle connections at once, so that the server stops quickly.
- Requests that the parser refuses get a Matrix error.
- The rest of a refused body is read up to a limit: a client that sends before it reads gets the
  response, one that sends gigabytes is disconnected.
- Slow clients don't keep their greenlets forever; see connection.py.
- The process notices when a command has changed the database, and when its event loop is blocked.
- systemd learns when the server is ready, and that it is alive; SIGHUP reloads the settings.
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
import gevent.socket
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
from homebody.runtime import event_loop, memory
from homebody.runtime.watchdog import Watchdog
from homebody.server import listeners, reload, startup
from homebody.server.connection import Backlog, Connection, ConnectionLimits
from homebody.server.starter import STOP_SIGNALS
from homebody.storage import data_folder, disk_errors

if TYPE_CHECKING:
    import mmap
    import socket
    from types import FrameType

    from gunicorn.config import Config

    from homebody.context import Homeserver
    from homebody.server.systemd import Notifier
    from homebody.web import Application

LOG = logging.getLogger(__name__)
SECONDS_BETWEEN_CHECKS = 0.5
"""How soon a running server notices `homebody user passwd` and other commands."""
SECONDS_BETWEEN_HEARTBEATS = 1.0
SECONDS_BETWEEN_TRIMS = 5.0
"""How often free memory is returned to the system."""
SECONDS_AFTER_A_FAULT = 30.0
SECONDS_AFTER_THE_START = 5.0
"""Before a large database is checked, as clients that wait for the server come first."""
SECONDS_TO_DRAIN = 5.0
MAX_DRAINED_BYTES = 32 * 2**20
CANNOT_BOOT = 3
"""The exit code for gunicorn's master that says that another worker would fail as well."""
_PIECE_BYTES = 2**16


class Worker(GeventWorker):
    """The worker process; see the module."""

    LIMITS: ClassVar = ConnectionLimits()
    has_served: mmap.mmap
    """One byte that is shared with the master; see gunicorn_config.py."""
    notifier: Notifier
    metrics_listener: socket.socket | None
    is_reload_due: bool

    def init_process(self) -> None:
        """Set the process up and serve."""
        self._connections: set[Connection] = set()
        self._backlog = Backlog(self.LIMITS.max_unsent_bytes)
        self._is_stopping = event.Event()
        _cache_settings(self.cfg)
        super().init_process()

    def load_wsgi(self) -> None:
        """Create the application."""
        try:
            with memory.frozen():
                super().load_wsgi()
        except (ConfigError, DBAPIError) as error:
            LOG.error("homebody can't start: %s", " ".join(str(error).split()))  # noqa: TRY400 - the message is enough
            sys.exit(CANNOT_BOOT)

    def init_signals(self) -> None:
        """Keep Starter's handlers while the application is being created."""

    def run(self) -> None:
        """Serve until a signal stops the server."""
        self._install_signal_handlers()
        memory.tune_allocator()
        self._log_addresses()
        self._homeserver.traces.refresh()
        gevent.spawn(self._watch_for_other_writers)
        gevent.spawn(self._check_large_database)
        gevent.spawn(self._trim)
        gevent.spawn(self._ping)
        self._homeserver.sender.start()
        self._homeserver.inbound.queues.start()
        self._homeserver.gap_filler.start()
        self._homeserver.delivery.start()
        self._homeserver.tasks.start()
        self._homeserver.delayed_events.start()
        self._homeserver.upkeep.start()
        self._homeserver.backups.start()
        self._homeserver.device_resync.start()
        self._homeserver.joins.start()
        self._homeserver.partial_joins.start()
        watchdog = self._watchdog()
        watchdog.start()
        self._serve()
        watchdog.stop()
        self._homeserver.ephemeral.close()  # its timers read the database
        self._homeserver.joins.stop()
        self._homeserver.partial_joins.stop()
        self._homeserver.delivery.stop()
        self._homeserver.tasks.stop()
        self._homeserver.delayed_events.stop()
        self._homeserver.upkeep.stop()
        self._homeserver.backups.stop()
        self._homeserver.sender.stop()
        self._homeserver.device_resync.stop()
        self._homeserver.inbound.stop()
        self._homeserver.gap_filler.stop()
        self._write_the_last()
        self._homeserver.database.close()

    def _write_the_last(self) -> None:
        """Write what is written from time to time only."""
        # Not at the top: gevent replaces parts of ssl and threading only after this module is
        # imported, and what was imported before would block the event loop
        from homebody.core.sliding_sync import kept_states  # noqa: PLC0415

        parts = self._homeserver
        parts.last_seen.write()
        parts.media_used.write()
        kept_states.write(parts.database, parts.sliding_connections, is_last=True)

    def _install_signal_handlers(self) -> None:
        """Install gunicorn's handlers; meanwhile a signal would kill the process."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGHUP})
        super().init_signals()
        signal.signal(signal.SIGHUP, self.handle_reload)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _log_addresses(self) -> None:
        """Log the addresses, and what can't be changed once there are accounts."""
        config = self._homeserver.database.server.config
        LOG.info(
            "homebody serves %s on %s, and sends clients to %s (public_url)",
            config.server_name,
            self._addresses(),
            config.public_url,
        )
        if self.metrics_listener is not None:
            LOG.info("metrics are on %s", listeners.address_of(self.metrics_listener))
        if not startup.has_accounts(config):
            LOG.info(
                "There are no accounts yet. Once there are, server_name can't change from %s: to"
                " have another one, set it in %s now",
                config.server_name,
                file_in_force(os.environ) or config.data_dir / FILE_NAME,
            )

    def _serve(self) -> None:
        """Do what gunicorn's `run` does, without its delay of up to a second when it stops."""
        handling = Pool(self.worker_connections)
        served = [*self.sockets, *self._metrics_sockets()]
        listening = [
            StreamServer(listener, partial(self.handle, listener), spawn=handling)
            for listener in served
        ]
        for server in listening:
            server.start()
        self.has_served[0] = True
        self.notifier.ready(self._status())
        if self.is_reload_due:
            gevent.spawn(self._reload)
        while self.alive:
            self.notify()
            self._is_stopping.wait(SECONDS_BETWEEN_HEARTBEATS)
        for server in listening:
            server.close()
        if not handling.join(self.cfg.graceful_timeout):
            LOG.warning("some requests were not finished in time and are cancelled")
            handling.kill(timeout=1)

    def _metrics_sockets(self) -> list[socket.socket]:
        if self.metrics_listener is None:
            return []
        listener = self.metrics_listener
        return [gevent.socket.socket(listener.family, fileno=os.dup(listener.fileno()))]

    def _addresses(self) -> str:
        # not cfg.bind: its port may be 0
        return ", ".join(map(listeners.address_of, self.sockets))

    def _status(self) -> str:
        return f"Serving {self._homeserver.server.name} on {self._addresses()}"

    def _ping(self) -> None:
        """Tell systemd that the event loop turns, while it does."""
        while self.alive and (seconds := self.notifier.ping_seconds):
            self.notifier.alive()
            gevent.sleep(seconds)

    def handle_reload(self, _signal: int, _frame: FrameType | None) -> None:
        """Reload the settings (SIGHUP)."""
        gevent.spawn(self._reload)  # as in handle_exit

    def _reload(self) -> None:
        self.notifier.reloading()
        try:
            reload.reload(self._homeserver, os.environ)
        finally:
            self.notifier.ready(self._status())

    def _watchdog(self) -> Watchdog:
        metrics = self._homeserver.metrics
        metrics.connections = self._connections
        limit_ms = self._homeserver.database.server.config.hub_stall_ms
        return Watchdog(limit_ms, metrics.stalls, _request_of)

    @property
    def _homeserver(self) -> Homeserver:
        return cast("Application", self.wsgi).homeserver

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Finish the requests that are being served, and stop (SIGTERM)."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._close_connections)  # a signal handler may not switch greenlets

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """Stop as on SIGTERM (Ctrl-C); gunicorn would exit with a stack trace."""
        self.handle_exit(sig, frame)

    def handle(self, listener: socket.socket, client: socket.socket, addr: Any) -> None:
        """Serve all requests of a connection."""
        is_for_metrics = listener not in self.sockets
        connection = Connection(client, self.LIMITS, self._backlog, is_for_metrics=is_for_metrics)
        self._connections.add(connection)
        try:
            super().handle(listener, cast("socket.socket", connection), addr)
        finally:
            self._connections.discard(connection)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> Any:
        """Serve one request of a connection."""
        sock.begin_request()
        try:
            try:
                super().handle_request(listener_name, req, sock, addr)
            except StopIteration:  # gunicorn's sign that the connection ends
                sock.flush()
                raise
            sock.flush()
            if not _drain(req, sock):
                raise StopIteration
        finally:
            sock.end_request()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Send a Matrix error for what the HTTP parser refused."""
        if isinstance(exc, gevent.GreenletExit):
            return  # the server stops
        # Not at the top: gevent has to patch modules before most of the server is imported
        from homebody.web import middleware  # noqa: PLC0415 - see above

        request_id = middleware.begin_request()
        error, status = errors.unknown("The request is not valid HTTP"), 400
        if isinstance(exc, http_errors.LimitRequestLine | http_errors.LimitRequestHeaders):
            error, status = errors.too_large("The request line or a header is too long"), 431
        elif not isinstance(exc, http_errors.ParseException):
            LOG.error("exception in a connection", exc_info=exc)
            error, status = errors.unknown("Something is wrong with the server"), 500
        elif self._has_too_many_headers(client):
            error, status = errors.too_large("The request has too many headers"), 431
        body = orjson.dumps(error.body)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        headers += [*middleware.CORS_HEADERS, (middleware.REQUEST_ID, request_id)]
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        middleware.log_request(addr[0] if addr else "", "-", "-", None, status, 0.0)
        phrase = HTTPStatus(status).phrase
        response = f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n{head}\r\n".encode() + body
        try:
            util.write_nonblock(client, response)
        except OSError as problem:
            LOG.debug("can't send an error to a client: %s", problem)

    def _has_too_many_headers(self, client: socket.socket) -> bool:
        """Return whether the parser has refused a request for the number of its headers.

        The parser itself says so for up to 256 headers; for more, it says that it isn't HTTP.
        """
        received = cast("Connection", client).headers_received()
        most: int = self.cfg.limit_request_fields
        return received > most

    def _close_connections(self) -> None:
        """End long polls and idle connections; after some seconds, all that are left."""
        self.notifier.stopping()
        self._is_stopping.set()
        self._homeserver.wakeups.close()
        for connection in list(self._connections):
            if connection.is_idle:
                connection.hang_up()
        gevent.sleep(self.LIMITS.stop_seconds)
        for connection in list(self._connections):
            connection.abort()

    def _watch_for_other_writers(self) -> None:
        database, delivery = self._homeserver.database, self._homeserver.delivery
        traces = self._homeserver.traces
        are_there_rows = False
        """Whether there may be new rows in the outbox; stays true until they have been read."""
        while self.alive:
            gevent.sleep(SECONDS_BETWEEN_CHECKS)
            try:
                if self.alive and database.notice_other_writers():  # at a stop it is closed
                    are_there_rows = True
                if self.alive and (are_there_rows or traces.sockets):
                    traces.refresh()
                if self.alive and are_there_rows:
                    delivery.rescan()
                    self._homeserver.sender.rescan()
                    self._homeserver.tasks.notify()
                    are_there_rows = False
            except Exception as problem:
                if disk_errors.answer_to(problem) is None:
                    LOG.exception("can't check whether a command has changed the database")
                gevent.sleep(SECONDS_AFTER_A_FAULT)

    def _trim(self) -> None:
        while self.alive:
            gevent.sleep(SECONDS_BETWEEN_TRIMS)
            memory.trim()

    def _check_large_database(self) -> None:
        """Check a large database once, as that would have delayed the start."""
        path = data_folder.database_path(self._homeserver.database.server.config.database_url)
        if path.stat().st_size <= disk_errors.LARGE_BYTES:
            return
        gevent.sleep(SECONDS_AFTER_THE_START)
        found = event_loop.offload(disk_errors.damage, path, lambda: not self.alive)
        if found is not None:
            LOG.error(
                "the database is damaged (%s): stop the server, then %s", found, disk_errors.ADVICE
            )


def _cache_settings(cfg: Config) -> None:
    """Make gunicorn's settings plain attributes: they don't change any more.

    Each request reads a dozen of them, with two calls and two dict lookups each.
    """
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})


def _request_of(frame: FrameType) -> str | None:
    """Return method and path, without secrets, of the request that this frame serves."""
    if frame.f_code is not Worker.handle_request.__code__:
        return None
    # Not at the top: see handle_error
    from homebody.web import middleware  # noqa: PLC0415 - see above

    req = frame.f_locals["req"]
    return f"{req.method} {middleware.masked_path(req.uri)}"


def _drain(req: Any, sock: Any) -> bool:
    """Read what the view has not read of a body; return whether that was all of it."""
    length = getattr(req.body.reader, "length", None)
    if length == 0:
        return True  # the usual case: a body of known length that was read, or none
    piece = memoryview(bytearray(_PIECE_BYTES))
    try:
        with gevent.Timeout(SECONDS_TO_DRAIN):
            for _ in range(MAX_DRAINED_BYTES // _PIECE_BYTES):
                if length is None:  # chunked: gunicorn finds the end
                    count = len(req.body.read(_PIECE_BYTES))
                else:  # gunicorn copies each piece several times
                    count = sock.read_body_into(req.body, piece)
                if not count:
                    return True
    except (OSError, http_errors.ParseException, gevent.Timeout) as problem:
        LOG.debug("can't read the rest of a body: %s", problem)
    return False
