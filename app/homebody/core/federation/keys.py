"""The public keys of other servers: fetched, kept for ever, and used to verify signatures.

A key is fetched from its server, or, when that has failed, from the notary servers in
`trusted_key_servers`. Each server is asked by one request at a time, and rarely: a failure is
remembered, so that a server that is down does not delay whatever it has signed.

A response counts until its `valid_until_ts`, for 7 days at most, and is fetched again after half of
that. Its keys stay valid for what was signed until then; since room version 5 that is compared with
the timestamp of the event.

This module alone writes the table server_keys.
Spec: server-server-api#retrieving-server-keys
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.models.federation import ServerKey
from homebody.outside import RemoteError
from homebody.outside.expiring import Expiring
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.runtime.single_flight import Repeats
from homebody.spec import server_keys, signing
from homebody.spec.events import Json
from homebody.spec.server_keys import MAX_VALIDITY_MS, PublishedKey, PublishedKeys
from homebody.spec.signing import SignatureError, VerifyKey
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import item, listed

LOG = logging.getLogger(__name__)

LIFETIME_MS: Final = 86_400_000
"""Of the response with this server's own keys."""
FETCH_SECONDS: Final = 10.0
MAX_RESPONSE_BYTES: Final = 32 * 2**10
MAX_KEPT: Final = 50
"""Keys of one server, each with the response that it was in: anyone could fill the disk by new keys
otherwise. Servers have one, and another for each time that theirs was replaced."""
MAX_NOTARY_BYTES: Final = 4 * 2**20
MIN_INTERVAL_S: Final = 30.0
"""Between two requests to a server that responds: anyone can make up key IDs. Also the longest that
a server which is there again waits."""
FIRST_BACK_OFF_S: Final = 10.0
MAX_BACK_OFF_S: Final = 3600.0
MAX_REMEMBERED: Final = 10_000
"""Servers with their last attempt, and with keys in memory."""
AT_ONCE: Final = 150
"""Servers asked at the same time for one batch: half of those of an old room may hang."""
BATCH_FETCH_SECONDS: Final = 3.0

KeyName = tuple[str, str]
"""A server's name and a key ID."""

_COLUMNS = (
    ServerKey.server_name,
    ServerKey.key_id,
    ServerKey.key,
    ServerKey.expired_ts,
    ServerKey.valid_until_ts,
    ServerKey.fetched_ts,
)
_wanted = listed("wanted")
_MANY = select(*_COLUMNS).join_from(
    _wanted,
    ServerKey,
    (ServerKey.server_name == item(_wanted, 0)) & (ServerKey.key_id == item(_wanted, 1)),
)
_OF_SERVER = select(*_COLUMNS, ServerKey.response).where(
    ServerKey.server_name == bindparam("server_name")
)
_SUPERFLUOUS = (
    select(ServerKey.key_id)
    .where(ServerKey.server_name == bindparam("of_server"))
    .order_by(ServerKey.fetched_ts.desc(), ServerKey.expired_ts.is_not(None), ServerKey.key_id)
    .offset(bindparam("kept"))
)
_REMOVE = delete(ServerKey).where(
    ServerKey.server_name == bindparam("of_server"), ServerKey.key_id.in_(_SUPERFLUOUS)
)
_PUT = insert(ServerKey)
_PUT = _PUT.on_conflict_do_update(
    index_elements=[ServerKey.server_name, ServerKey.key_id],
    set_={
        name: _PUT.excluded[name]
        for name in ("key", "expired_ts", "valid_until_ts", "fetched_ts", "response")
    },
)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """A key of another server, as far as this one knows."""

    key: VerifyKey
    expired_ts: int | None
    valid_until_ts: int
    fetched_ts: int

    def is_valid_at(self, ts: int) -> bool:
        """Return whether a signature of this time (ms) counts."""
        return ts <= (self.valid_until_ts if self.expired_ts is None else self.expired_ts)

    def is_half_over(self, now_ms: int) -> bool:
        """Return whether it is time to fetch the key again."""
        middle = (self.fetched_ts + self.valid_until_ts) // 2
        return self.expired_ts is None and now_ms > middle


def own_keys(tx: Reader) -> Json:
    """Return the response with this server's own keys, valid for a day."""
    server = tx.server
    old = [
        PublishedKey(it.key_id, signing.verify_key_from_base64(it.key), it.expired_ts)
        for it in server.config.old_verify_keys
    ]
    return server_keys.publish(server.name, server.signing_key, old, tx.now_ms + LIFETIME_MS)


def store(tx: Tx, server_name: str, found: PublishedKeys, response: Json, *, direct: bool) -> None:
    """Store the keys of a response, unless what is stored of a key is better.

    What the server itself says now is better than anything older, as long as it has not expired;
    what a notary says is better if it is valid longer.
    """
    stored = {row.key_id: row for row in tx.sql.execute(_OF_SERVER, {"server_name": server_name})}
    valid_until_ts = min(found.valid_until_ts, tx.now_ms + MAX_VALIDITY_MS)
    is_newest = direct and valid_until_ts > tx.now_ms
    text = orjson.dumps(response).decode()
    rows = [
        {
            "server_name": server_name,
            "key_id": it.key_id,
            "key": signing.verify_key_to_base64(it.key),
            "expired_ts": it.expired_ts,
            "valid_until_ts": valid_until_ts,
            "fetched_ts": tx.now_ms,
            "response": text,
        }
        for it in found.keys
        if is_newest or it.key_id not in stored or valid_until_ts > stored[it.key_id].valid_until_ts
    ]
    if rows:
        tx.sql.execute(_PUT, rows)
    if len(stored) + len(rows) > MAX_KEPT:
        tx.sql.execute(_REMOVE, {"of_server": server_name, "kept": MAX_KEPT})


def responses(tx: Reader, server_name: str) -> dict[str, tuple[KnownKey, str]]:
    """Return the stored keys of a server by key ID, each with the response that it was in."""
    rows = tx.sql.execute(_OF_SERVER, {"server_name": server_name})
    return {row.key_id: (_known(row), row.response) for row in rows}


def _known(row: Any) -> KnownKey:
    key = signing.verify_key_from_base64(row.key)
    return KnownKey(key, row.expired_ts, row.valid_until_ts, row.fetched_ts)


class ServerKeys:
    """The keys of other servers, and this server's own.

    Its methods make requests, so none may be called inside a transaction.
    """

    def __init__(self, db: Database, client: FederationClient) -> None:
        self._db = db
        self._client = client
        self._config = db.server.config
        self._in_memory: OrderedDict[str, dict[str, KnownKey]] = OrderedDict()
        """By server and key ID."""
        self._attempts = _Attempts()
        self._fetches = Repeats()

    def verify_key(
        self, server_name: str, key_id: str, at_ts: int | None = None
    ) -> VerifyKey | None:
        """Return a key if its signatures count at a time (ms), the key being fetched if necessary.

        The time is that of the event, or 0 where any key counts, as in room versions 1 to 4; None
        is now, for what a server has just sent.
        """
        now_ms = _now_ms()
        is_there, at_ts = at_ts is None, now_ms if at_ts is None else at_ts
        name = (server_name, key_id)
        known = self.known([name]).get(name)
        if known is None or (known.expired_ts is None and not known.is_valid_at(at_ts)):
            self.fetch(server_name, {key_id: at_ts}, is_there=is_there)
            known = self.known([name]).get(name)
        elif known.is_half_over(now_ms) and at_ts > known.fetched_ts:
            event_loop.spawn(self.fetch, server_name, {key_id: now_ms})
        return known.key if known is not None and known.is_valid_at(at_ts) else None

    def verify(self, value: Json, server_name: str) -> bool:
        """Return whether a server has signed this JSON with a key that is valid now."""
        for key_id in signing.key_ids(value, server_name):
            key = self.verify_key(server_name, key_id)
            try:
                if key is not None:
                    signing.verify_json(value, server_name, key_id, key)
                    return True
            except SignatureError:
                continue
        return False

    def many(self, wanted: Mapping[KeyName, int], timeout_s: float) -> dict[KeyName, KnownKey]:
        """Return the keys that are known or can be fetched in this time, for a batch of events.

        `wanted` has the latest time (ms) at which each has to be valid, 0 if that doesn't matter.
        The caller has to look whether a key is valid at the time of its event (`is_valid_at`).
        """
        self.fetch_all(self.missing(wanted), timeout_s)
        return self.known(wanted)

    def fetch_all(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        timeout_s: float,
        *,
        with_notaries: bool = True,
    ) -> None:
        """Fetch keys, `{server name: {key ID: valid at (ms)}}`, from several servers at once.

        What has not come in this time may come later.
        """
        until = time.monotonic() + timeout_s
        left = iter(list(wanted.items()))
        starting = threading.Lock()

        def work() -> None:
            for server_name, key_ids in left:
                with starting:  # else other requests would wait until all of them have begun
                    event_loop.pause()
                seconds = min(BATCH_FETCH_SECONDS, until - time.monotonic())
                if seconds <= 0:
                    return
                self.fetch(server_name, key_ids, seconds, with_notaries=with_notaries)

        workers = [event_loop.spawn(work) for _ in range(min(AT_ONCE, len(wanted)))]
        wait(workers, max(timeout_s, 0))

    def fetch(
        self,
        server_name: str,
        wanted: Mapping[str, int],
        seconds: float = FETCH_SECONDS,
        *,
        with_notaries: bool = True,
        is_there: bool = False,
    ) -> bool:
        """Fetch a server's keys from it, or else from notaries, unless it was asked recently.

        `is_there`: the server has just made a request, so it is not down any more.
        Returns whether the server itself has answered, now or recently.
        """
        if server_name == self._db.server.name:
            return True

        def fetch() -> bool:
            outcome = self._attempts.recent(server_name, is_there=is_there)
            if outcome is not None:
                return outcome
            if is_there:
                self._client.forget(server_name)
            is_done = self._ask_server(server_name, seconds)
            self._attempts.note(server_name, is_done=is_done)
            # A notary's own key is not for another notary to say
            if with_notaries and server_name not in self._config.trusted_key_servers:
                # They may remember a key that the server has forgotten
                self.ask_notaries(self.missing(_by_name(server_name, wanted)), seconds)
            return is_done

        return self._fetches.once(server_name, fetch)

    def _ask_server(self, server_name: str, seconds: float) -> bool:
        try:
            response = self._client.request(
                server_name,
                "GET",
                "/_matrix/key/v2/server",
                is_signed=False,
                timeout_s=seconds,
                max_bytes=MAX_RESPONSE_BYTES,
            )
            found = server_keys.parse(response, server_name)
        except (RemoteError, ValueError) as error:
            LOG.info("The keys of %s can't be fetched: %s", server_name, error)
            return False
        self._store(server_name, found, response, direct=True)
        return True

    def ask_notaries(self, wanted: Mapping[str, Mapping[str, int]], seconds: float) -> None:
        """Fetch keys from the trusted notaries, if any are wanted, and store what they say."""
        for notary in self._config.trusted_key_servers if wanted else ():
            for server_name, found, response in self.said_by(notary, wanted, seconds):
                self._store(server_name, found, response, direct=False)

    def said_by(
        self, notary: str, wanted: Mapping[str, Mapping[str, int]], seconds: float
    ) -> Iterator[tuple[str, PublishedKeys, Json]]:
        """Ask a server for the keys of others, and yield (server name, keys, response)."""
        query = {
            name: {key_id: {"minimum_valid_until_ts": ts} for key_id, ts in ids.items()}
            for name, ids in wanted.items()
        }
        try:
            response = self._client.request(
                notary,
                "POST",
                "/_matrix/key/v2/query",
                json={"server_keys": query},
                is_signed=False,
                timeout_s=seconds,
                max_bytes=MAX_NOTARY_BYTES,
            )
        except RemoteError as error:
            LOG.info("The notary %s does not answer: %s", notary, error)
            return
        given = response.get("server_keys") if isinstance(response, dict) else None
        for it in given if isinstance(given, list) else []:
            server_name = str(it.get("server_name")) if isinstance(it, dict) else ""
            if server_name not in wanted or server_name == self._db.server.name:
                continue
            try:
                found = server_keys.parse(it, server_name)
            except ValueError as error:
                LOG.info("The keys of %s from %s are wrong: %s", server_name, notary, error)
                continue
            if self.verify(it, notary):
                yield server_name, found, it

    def has_answered(self, server_name: str) -> bool:
        """Return whether a server was asked for its keys recently, and has answered."""
        return self._attempts.recent(server_name, is_there=False) or False

    def _store(
        self, server_name: str, found: PublishedKeys, response: Json, *, direct: bool
    ) -> None:
        with self._db.write() as tx:
            store(tx, server_name, found, response, direct=direct)
        self._in_memory.pop(server_name, None)

    def missing(self, wanted: Mapping[KeyName, int]) -> dict[str, dict[str, int]]:
        """Return which keys are not known for the time at which they are needed, by server."""
        known = self.known(wanted)
        missing: dict[str, dict[str, int]] = {}
        for name, at_ts in wanted.items():
            it = known.get(name)
            if it is None or (it.expired_ts is None and not it.is_valid_at(at_ts)):
                missing.setdefault(name[0], {})[name[1]] = at_ts
        return missing

    def known(self, names: Collection[KeyName]) -> dict[KeyName, KnownKey]:
        """Return the keys that are known, from memory or the database."""
        memory = self._in_memory
        of_servers = {name: memory.get(name[0], {}).get(name[1]) for name in names}
        found = {name: it for name, it in of_servers.items() if it is not None}
        rest = [name for name in names if name not in found]
        if not rest:
            return found
        with self._db.read() as tx:
            for row in tx.sql.execute(_MANY, {"wanted": rest}):
                known = found[row.server_name, row.key_id] = _known(row)
                memory.setdefault(row.server_name, {})[row.key_id] = known
            if any(name[0] == tx.server.name for name in rest):
                found |= _own(tx)
        while len(memory) > MAX_REMEMBERED:
            memory.popitem(last=False)
        return found


def _own(tx: Reader) -> dict[KeyName, KnownKey]:
    """Return this server's own keys, as events of its own may come back."""
    published = server_keys.parse(own_keys(tx), tx.server.name)
    return {
        (tx.server.name, it.key_id): KnownKey(
            it.key, it.expired_ts, published.valid_until_ts, tx.now_ms
        )
        for it in published.keys
    }


def _by_name(server_name: str, wanted: Mapping[str, int]) -> dict[KeyName, int]:
    return {(server_name, key_id): at_ts for key_id, at_ts in wanted.items()}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class _Attempts:
    """When each server was asked last, and how that ended."""

    def __init__(self) -> None:
        self._last: Expiring[str, tuple[float, int]] = Expiring(MAX_REMEMBERED)
        """By server: (time, number of failures since the last success)."""

    def recent(self, server_name: str, *, is_there: bool) -> bool | None:
        """Return how the last attempt ended, or None if it is time for another.

        `is_there`: the server itself has just made a request.
        """
        last = self._last.get(server_name)
        if last is None:
            return None
        at, failures = last
        pause = MIN_INTERVAL_S
        if failures:
            most = MIN_INTERVAL_S if is_there else MAX_BACK_OFF_S
            pause = min(FIRST_BACK_OFF_S * 2 ** (failures - 1), most)
        return failures == 0 if time.monotonic() < at + pause else None

    def note(self, server_name: str, *, is_done: bool) -> None:
        """Remember how an attempt ended."""
        last = self._last.get(server_name)
        failures = 0 if is_done else min(last[1] + 1 if last else 1, 30)
        self._last.put(server_name, (time.monotonic(), failures), 2 * MAX_BACK_OFF_S)
