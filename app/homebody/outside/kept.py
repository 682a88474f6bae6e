"""Connections to other servers that are open and not in use."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Final

from homebody.outside.https import Connection

IDLE_SECONDS: Final = 180.0
MAX_AGE_SECONDS: Final = 3600.0
"""After which a server is looked up again, as it may have moved."""
MAX_PER_SERVER: Final = 4
MAX_IN_ALL: Final = 512
"""Each takes a file descriptor and about 40 KiB."""


class KeptConnections:
    """Keeps connections for the next request to the same server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_server: dict[str, list[Connection]] = {}
        self._all: OrderedDict[Connection, str] = OrderedDict()
        """In the order in which they became idle."""

    def take(self, server: str) -> Connection | None:
        """Return the connection that was used last, if one is still open."""
        while True:
            with self._lock:
                self._drop_old()
                kept = self._by_server.get(server)
                if not kept:
                    return None
                connection = kept[-1]
                self._remove(connection)
            if connection.is_open():
                return connection
            connection.close()

    def put(self, server: str, connection: Connection) -> None:
        """Keep a connection, or close it if there are enough."""
        connection.idle_since = now = time.monotonic()
        with self._lock:
            kept = self._by_server.setdefault(server, [])
            if len(kept) >= MAX_PER_SERVER or now - connection.opened > MAX_AGE_SECONDS:
                connection.close()
            else:
                kept.append(connection)
                self._all[connection] = server
            if not kept:
                del self._by_server[server]
            self._drop_old()

    def count(self) -> int:
        """Return how many connections are kept."""
        with self._lock:
            return len(self._all)

    def close(self) -> None:
        """Close all."""
        with self._lock:
            for connection in list(self._all):
                self._remove(connection)
                connection.close()

    def _drop_old(self) -> None:
        oldest_allowed = time.monotonic() - IDLE_SECONDS
        while self._all:
            connection = next(iter(self._all))
            if connection.idle_since >= oldest_allowed and len(self._all) <= MAX_IN_ALL:
                break
            self._remove(connection)
            connection.close()

    def _remove(self, connection: Connection) -> None:
        server = self._all.pop(connection)
        kept = self._by_server[server]
        kept.remove(connection)
        if not kept:
            del self._by_server[server]
