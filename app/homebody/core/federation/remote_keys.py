"""The keys of users of other servers: query and claim them for a client.

Device lists that are kept and up to date are in the database (encryption/remote_devices.py). Others
are requested from their servers, for all users of a server at once and of many servers at the same
time. Those of users who share a room are kept then, until a change comes that was not announced.

All clients in a room query a user whose devices have changed at the same moment. So a query that
is under way is shared by all that need it.

Spec: server-server-api#end-to-end-encryption
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from homebody.core.encryption import device_list_changes, remote_devices
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.spec import device_lists, identifiers
from homebody.spec.device_lists import DeviceList, OneTimeKey
from homebody.spec.events import Json
from homebody.storage.database import Database
from homebody.storage.expressions import batches

MAX_TIMEOUT_S: Final = 30.0
MIN_TIMEOUT_S: Final = 1.0
FAILING_TIMEOUT_S: Final = 2.0
"""For servers that did not respond to the last request."""
USERS_AT_ONCE: Final = 250
"""In a query of one server."""
KEPT_AT_ONCE: Final = 100
"""Lists kept in one write, which takes some milliseconds."""
CLAIMS_AT_ONCE: Final = 500
"""Devices in a claim at one server."""
REQUESTS_AT_ONCE: Final = 50
"""For one client's request."""
_QUERY: Final = "/_matrix/federation/v1/user/keys/query"
_CLAIM: Final = "/_matrix/federation/v1/user/keys/claim"

LOG = logging.getLogger(__name__)

Failures = dict[str, Json]
"""{server: why it has not responded}"""
Claims = Mapping[str, Mapping[str, str]]
"""{user_id: {device_id: algorithm}}"""
Claimed = dict[str, dict[str, dict[str, OneTimeKey]]]
"""{user_id: {device_id: {"algorithm:id": key}}}"""
_Lists = dict[str, DeviceList]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Query:
    """A query of one server, for all that need these lists."""

    server: str
    user_ids: list[str]
    since: int
    """The position before it was sent: changes up to there are in the response."""
    lists: Future[_Lists] = field(default_factory=Future)


class RemoteKeys:
    """Queries and claims keys at other servers."""

    def __init__(self, db: Database, client: FederationClient) -> None:
        self._db = db
        self._client = client
        self._lock = threading.Lock()
        self._under_way: dict[str, _Query] = {}
        """The last query of each user's keys that has no response yet."""

    def query(
        self, requester_id: str, wanted: Mapping[str, Collection[str]], timeout_s: float
    ) -> Json:
        """Return the response of /keys/query for {user_id: [device_id]}; an empty list means all.

        Of a server that does not respond, it has the lists that are kept, although they are stale.
        """
        with self._db.read() as tx:
            fresh, stale = remote_devices.kept(tx, wanted)
        missing = [user_id for user_id in wanted if user_id not in fresh]
        found, failures = self.fetch(missing, timeout_s)
        with self._db.read() as tx:
            lists = {**stale, **fresh, **found}
            return {
                "failures": failures,
                **remote_devices.response(tx, requester_id, lists, wanted),
            }

    def fetch(self, user_ids: Collection[str], timeout_s: float) -> tuple[_Lists, Failures]:
        """Return the lists of these users from their servers, and keep them."""
        if not user_ids:
            return {}, {}
        until = time.monotonic() + max(MIN_TIMEOUT_S, min(timeout_s, MAX_TIMEOUT_S))
        queries, is_new = self._queries(user_ids)
        _each(is_new, lambda query: self._run(query, until))
        found: _Lists = {}
        failures: Failures = {}
        wanted = set(user_ids)
        for query in queries:
            try:
                lists = query.lists.result(max(until - time.monotonic(), 0))
            except (RemoteError, TimeoutError) as problem:
                failures[query.server] = _failure(query.server, problem)
            else:
                found.update((it, lists[it]) for it in wanted.intersection(lists))
        return found, failures

    def claim(self, wanted: Claims, timeout_s: float) -> tuple[Claimed, Failures]:
        """Claim one-time keys at other servers.

        Each is requested once: a key that was handed out is used up, also if its response is lost.
        """
        until = time.monotonic() + max(MIN_TIMEOUT_S, min(timeout_s, MAX_TIMEOUT_S))
        found: Claimed = {}
        failures: Failures = {}

        def run(claim: tuple[str, Claims]) -> None:
            server, part = claim
            try:
                response = self._post(server, _CLAIM, {"one_time_keys": part}, until)
            except RemoteError as problem:
                failures[server] = _failure(server, problem)
            else:
                for user_id, devices in device_lists.claimed(response, part).items():
                    found.setdefault(user_id, {}).update(devices)

        _each(_split(wanted), run)
        return found, failures

    def _queries(self, user_ids: Collection[str]) -> tuple[list[_Query], list[_Query]]:
        """Return the queries that have these lists: all, and those that have yet to be sent.

        One that is under way is used unless the user's devices have changed since it was sent.
        """
        with self._db.read() as tx:
            since, changes = tx.position, device_list_changes.last_changes(tx, user_ids)
        new: list[_Query] = []
        found: list[_Query] = []
        with self._lock:
            by_server: dict[str, list[str]] = {}
            for user_id in user_ids:
                query = self._under_way.get(user_id)
                if query is None or changes.get(user_id, 0) > query.since:
                    by_server.setdefault(identifiers.server_name(user_id), []).append(user_id)
                elif query not in found:
                    found.append(query)
            for server, of_server in by_server.items():
                new += [_Query(server, it, since) for it in batches(of_server, USERS_AT_ONCE)]
            for query in new:
                self._under_way.update(dict.fromkeys(query.user_ids, query))
        return found + new, new

    def _run(self, query: _Query, until: float) -> None:
        """Send a query, keep the lists in its response, and give it to all that wait for it."""
        asked: Json = {"device_keys": {user_id: [] for user_id in query.user_ids}}
        try:
            response = self._post(query.server, _QUERY, asked, until)
            lists = device_lists.of_users(response, query.user_ids)
            self._keep(lists, query.since)
        except BaseException as problem:  # noqa: BLE001 - raised again by those that wait
            query.lists.set_exception(problem)
        else:
            query.lists.set_result(lists)
        finally:
            with self._lock:
                for user_id in query.user_ids:
                    if self._under_way.get(user_id) is query:
                        del self._under_way[user_id]

    def _keep(self, lists: _Lists, since: int) -> None:
        """Keep lists for the next query, if the database is writable."""
        try:
            for some in batches(lists, KEPT_AT_ONCE):
                with self._db.write() as tx:
                    remote_devices.keep(tx, {it: lists[it] for it in some}, since)
        except MatrixError as problem:  # such as a full disk
            LOG.warning("can't keep the device lists of other servers: %s", problem)

    def _post(self, server: str, path: str, body: Json, until: float) -> Any:
        """Return the response of a server. Raises RemoteError."""
        left_s = until - time.monotonic()
        if self._client.is_failing(server):
            left_s = min(left_s, FAILING_TIMEOUT_S)
        if left_s <= 0:
            raise RemoteError("timeout", f"There was no time left for {server}")
        return self._client.request(server, "POST", path, json=body, timeout_s=left_s)


def _each(items: Collection[T], call: Callable[[T], None]) -> None:
    """Call a function for each item, of many at the same time, and wait until all are done."""
    waiting = deque(items)

    def work() -> None:
        while waiting:
            call(waiting.popleft())

    workers = [event_loop.spawn(work) for _ in range(min(len(waiting), REQUESTS_AT_ONCE))]
    for worker in workers:
        worker.result()


def _split(wanted: Claims) -> list[tuple[str, Claims]]:
    """Return the claims to send, as (server, claims)."""
    by_server: dict[str, list[tuple[str, str, str]]] = {}
    for user_id, devices in wanted.items():
        server = identifiers.server_name(user_id)
        by_server.setdefault(server, []).extend((user_id, *it) for it in devices.items())
    found: list[tuple[str, Claims]] = []
    for server, every in by_server.items():
        for some in batches(every, CLAIMS_AT_ONCE):
            part: dict[str, dict[str, str]] = {}
            for user_id, device_id, algorithm in some:
                part.setdefault(user_id, {})[device_id] = algorithm
            found.append((server, part))
    return found


def _failure(server: str, problem: RemoteError | TimeoutError) -> Json:
    """Return a failure for the client, without what the other server says in its own words."""
    kind = problem.kind if isinstance(problem, RemoteError) else "timeout"
    status = 504 if kind == "timeout" else 502
    return {"status": status, "message": f"{server} does not respond as it should ({kind})"}
