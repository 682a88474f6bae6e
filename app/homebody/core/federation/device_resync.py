"""Fetch the device lists of users again of whom a change was lost, from their servers.

A change that names an unknown one before it makes a list stale (encryption/remote_devices.py). The
list is fetched with its `stream_id` then, so that later changes can be applied to it. Lists that
are not kept are not fetched here: there may be thousands after a join, and clients query only those
that they need.

Few servers are asked at once, by one request each. One that fails is asked again later, as long as
it takes; or as soon as it makes a request itself.

Spec: server-server-api#device-management
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from homebody.core.encryption import remote_devices
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec import device_lists, identifiers
from homebody.spec.device_lists import DeviceList
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

REQUESTS_AT_ONCE: Final = 5
FIRST_WAIT_S: Final = 5.0
MAX_WAIT_S: Final = 3600.0
TIMEOUT_S: Final = 20.0
MAX_ATTEMPTS: Final = 3
"""Requests for one list, if changes come meanwhile. Then the next change leads to another."""
_SECONDS_TO_STOP: Final = 1.0
_HAS_NONE: Final = frozenset({403, 404})
"""The statuses by which a server says that it has no devices of a user for this one."""


@dataclass(slots=True)
class _Server:
    """A server, and the users whose lists have yet to be fetched from it, in their order."""

    user_ids: dict[str, None] = field(default_factory=dict)
    tries: int = 0
    """Failed requests in a row."""
    next_try: float = 0.0
    """By time.monotonic()."""
    is_busy: bool = False


class DeviceResync:
    """Greenlets that fetch device lists. `start` after fork; `stop` before closing the database."""

    def __init__(self, db: Database, client: FederationClient) -> None:
        self._db = db
        self._client = client
        self._changed = threading.Condition()
        self._servers: dict[str, _Server] = {}
        self._workers: set[threading.Thread] = set()
        self._is_running = False

    def start(self) -> None:
        """Fetch lists that were stale at the last stop, and others from now on."""
        with self._db.read() as tx:
            stale = remote_devices.stale_users(tx)
        self._is_running = self._db.server.config.federation
        for user_id in stale:
            self.note(user_id)

    def stop(self) -> None:
        """Fetch nothing more, and give running requests a moment."""
        with self._changed:
            self._is_running = False
            self._changed.notify_all()
            workers = list(self._workers)
        until = time.monotonic() + _SECONDS_TO_STOP
        for worker in workers:
            worker.join(max(until - time.monotonic(), 0))

    def note(self, user_id: str) -> None:
        """Have the list of a user fetched soon."""
        with self._changed:
            if not self._is_running:
                return
            server = self._servers.setdefault(identifiers.server_name(user_id), _Server())
            server.user_ids[user_id] = None
            if len(self._workers) < REQUESTS_AT_ONCE:
                worker = threading.Thread(target=self._work, name="device lists", daemon=True)
                self._workers.add(worker)
                worker.start()
            self._changed.notify_all()

    def heard_from(self, name: str) -> None:
        """End the wait for a server, as it has made a request."""
        server = self._servers.get(name)
        if server is not None and server.tries:
            with self._changed:
                server.tries, server.next_try = 0, 0.0
                self._changed.notify_all()

    def _work(self) -> None:
        """Fetch lists until there are none. Run by each greenlet."""
        while (found := self._take()) is not None:
            name, server, user_id = found
            try:
                is_there = self._fetch(name, user_id)
            except Exception:
                is_there = False
                if self._is_running:
                    LOG.exception("can't fetch the device list of %s", user_id)
            self._finish(name, server, user_id, is_there=is_there)

    def _take(self) -> tuple[str, _Server, str] | None:
        """Return the next list to fetch, once its server may be asked; None if there is none."""
        with self._changed:
            while self._is_running and self._servers:
                now = time.monotonic()
                idle = [it for it in self._servers.items() if not it[1].is_busy]
                name, server = min(idle, key=lambda it: it[1].next_try, default=("", None))
                if server is not None and server.next_try <= now:
                    server.is_busy = True
                    user_id = next(iter(server.user_ids))
                    del server.user_ids[user_id]  # a change may come before the request is done
                    return name, server, user_id
                self._changed.wait(None if server is None else server.next_try - now)
            self._workers.discard(threading.current_thread())
            return None

    def _finish(self, name: str, server: _Server, user_id: str, *, is_there: bool) -> None:
        with self._changed:
            server.is_busy = False
            if is_there:
                server.tries, server.next_try = 0, 0.0
                if not server.user_ids:
                    del self._servers[name]
            else:
                server.user_ids[user_id] = None
                wait_s = min(FIRST_WAIT_S * 2 ** min(server.tries, 20), MAX_WAIT_S)
                server.tries += 1
                server.next_try = time.monotonic() + wait_s
            self._changed.notify_all()

    def _fetch(self, name: str, user_id: str) -> bool:
        """Fetch a list, and return whether the server has responded."""
        for _ in range(MAX_ATTEMPTS):
            with self._db.read() as tx:
                if not remote_devices.is_stale(tx, user_id):
                    return True
                since = tx.position
            try:
                known = self._request(name, user_id)
            except RemoteError as problem:
                LOG.info("can't fetch the device list of %s: %s", user_id, problem)
                return False
            with self._db.write() as tx:
                if not remote_devices.keep(tx, {user_id: known}, since):
                    return True
        return True

    def _request(self, name: str, user_id: str) -> DeviceList:
        try:
            response = self._client.request(
                name, "GET", path_of("user", "devices", user_id), timeout_s=TIMEOUT_S
            )
        except RemoteError as problem:
            if problem.status in _HAS_NONE:
                return DeviceList({})
            raise
        return device_lists.of_user(response, user_id)
