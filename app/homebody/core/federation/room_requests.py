"""Requests about one room to servers that are in it, one server after the other.

What a server sends is checked by the caller. The number of requests is limited, as one event may
cite hundreds that nobody has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from homebody.core.events import state
from homebody.core.federation import rooms
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, Query, path_of
from homebody.spec import room_state
from homebody.spec.events import Json
from homebody.storage.database import Reader

LOG = logging.getLogger(__name__)
T = TypeVar("T")

SECONDS: Final = 20.0
MAX_SERVERS: Final = 5
MAX_BYTES: Final = 20 * 2**20
"""Of a response: a hundred events and more, or 200,000 ids."""
LOOKED_AT: Final = 50
"""Servers of a large room among which some are chosen."""


class RoomRequests:
    """What may be asked of some servers about a room."""

    def __init__(
        self,
        client: FederationClient,
        room_id: str,
        servers: Sequence[str],
        limit: int,
        until: float,
    ) -> None:
        self.room_id = room_id
        self._client = client
        self.servers = list(servers)
        self._left = limit
        self._until = until
        self.seconds = SECONDS
        """For one request."""

    def about_room(
        self, operation: str, *parts: str, query: Query | None = None, json: Any = None
    ) -> Json:
        """Return the response of the first server that has one, to an operation on the room."""
        return self.first(operation, self.room_id, *parts, query=query, json=json)

    def first(
        self, operation: str, *parts: str, query: Query | None = None, json: Any = None
    ) -> Json:
        """Return the response of the first server that has one. Raises as `first_of` does."""
        return self.first_of(
            lambda server: self.of_server(server, operation, *parts, query=query, json=json)
        )

    def first_of(self, ask: Callable[[str], T]) -> T:
        """Return what `ask` returns for the first server for which it does not raise RemoteError.

        Raises RemoteError: of a server that may respond later if there is one, else the last.
        """
        problem: RemoteError | None = None
        for server in list(self.servers):
            try:
                return ask(server)
            except RemoteError as error:
                if problem is None or not may_pass(problem):
                    problem = error
        raise problem or RemoteError("unreachable", f"No server of {self.room_id} can be asked")

    def of_server(
        self,
        server: str,
        operation: str,
        *parts: str,
        query: Query | None = None,
        json: Any = None,
    ) -> Json:
        """Return the response of one server, which is not asked again if it can't be reached.

        Raises RemoteError.
        """
        seconds = min(self._until - time.monotonic(), self.seconds)
        if seconds <= 0:
            raise RemoteError("timeout", f"The servers of {self.room_id} take too long")
        if self._left <= 0:
            raise RemoteError("refused", f"The servers of {self.room_id} were asked enough")
        self._left -= 1
        try:
            found = self._client.request(
                server,
                "GET" if json is None else "POST",
                path_of(operation, *parts),
                query=query,
                json=json,
                timeout_s=seconds,
                max_bytes=MAX_BYTES,
            )
        except RemoteError as error:
            LOG.info("%s of %s: %s", operation, server, error)
            if error.status is None and server in self.servers:
                self.servers.remove(server)
            raise
        if not isinstance(found, dict):
            raise RemoteError("bad_response", f"{server} responds to {operation} without an object")
        return found


def may_pass(problem: RemoteError) -> bool:
    """Return whether a request may succeed later."""
    status = problem.status or 0
    return problem.kind in {"unreachable", "timeout"} or status == 429 or status >= 500


def pdus_of(response: Json, key: str, limit: int) -> list[Any]:
    """Return at most `limit` PDUs of a response, which are to be checked."""
    found = response.get(key)
    return found[:limit] if isinstance(found, list) else []


def ids_of(response: Json, key: str) -> list[str]:
    """Return the event IDs in a response. Raises RemoteError where there are none."""
    found = response.get(key)
    if not isinstance(found, list) or not all(isinstance(it, str) for it in found):
        raise RemoteError("bad_response", f"A response without the event IDs of {key}")
    return list(dict.fromkeys(found))


def servers_of(tx: Reader, room_id: str, first: Iterable[str] = ()) -> list[str]:
    """Return servers of a room that probably have its events, the best ones first.

    These are those in `first`, those of the users with the most power, and of the creator, who has
    been there longest; then the ones with the most users.
    """
    present = rooms.servers(tx, room_id)[:LOOKED_AT]
    there = state.joined(tx, room_id).servers
    powerful = [it for it in _powerful(tx, room_id) if it in there]
    wanted = dict.fromkeys([*first, *powerful, *present])
    return [it for it in wanted if it != tx.server.name]


def _powerful(tx: Reader, room_id: str) -> list[str]:
    keys = [room_state.CREATE, room_state.POWER_LEVELS]
    found = state.current_many(tx, room_id, keys)
    users: list[str] = []
    levels = found.get(room_state.POWER_LEVELS)
    if levels is not None and isinstance(given := levels.content.get("users"), dict):
        ranked = {user: level for user, level in given.items() if isinstance(level, int)}
        users += sorted(ranked, key=lambda it: -ranked[it])
    if (create := found.get(room_state.CREATE)) is not None:
        users.insert(1, create.sender)
    return [user.partition(":")[2] for user in users]
