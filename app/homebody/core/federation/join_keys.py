"""The keys for the events that come with a join: of hundreds of servers, some of which are gone.

    known       what this server has
    notaries    the trusted ones are asked for all others in one request
    servers     are asked themselves, many at the same time
    resident    the server that has sent the events is asked about those that don't answer

Each step has a short time limit, as a client waits for the join.

The resident server could make up a key and sign events with it. So it may say only what the keys
of servers are that don't answer, they count for the events of this one response, and they are not
stored. Once this server is in the room, no other one is believed like this: it could replace the
power levels that a server which is gone has set.

Spec: server-server-api#retrieving-server-keys,
server-server-api#querying-keys-through-another-server
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future, wait
from typing import Final

from homebody.core.federation.keys import KeyName, KnownKey, ServerKeys
from homebody.runtime import event_loop
from homebody.spec.server_keys import MAX_VALIDITY_MS

LOG = logging.getLogger(__name__)

WITHIN_SECONDS: Final = 30.0
NOTARIES_FIRST_SECONDS: Final = 2.0
"""How long only notaries are asked. They may be waiting for a server that hangs."""
SERVERS_FIRST_SECONDS: Final = 1.0
"""How long only the servers themselves are asked."""
NOTARY_SECONDS: Final = 5.0


def find(
    keys: ServerKeys, wanted: Mapping[KeyName, int], resident: str | None
) -> dict[KeyName, KnownKey]:
    """Return the keys of a batch as `ServerKeys.many` does. Waits: never within a transaction.

    `resident` is the server that has sent the events, or None if it must not be asked.
    """
    until = time.monotonic() + WITHIN_SECONDS
    missing = keys.missing(wanted)
    if not missing:
        return keys.known(wanted)
    notaries = event_loop.spawn(keys.ask_notaries, missing, NOTARY_SECONDS)
    wait([notaries], NOTARIES_FIRST_SECONDS)
    missing = keys.missing(wanted)
    left_s = until - time.monotonic()
    servers = event_loop.spawn(keys.fetch_all, missing, left_s, with_notaries=False)
    wait([servers], SERVERS_FIRST_SECONDS)
    said = _said_by(keys, resident, wanted) if resident else {}
    _wait([notaries, servers], until)
    found = keys.known(wanted)
    for (server, key_id), key in said.items():
        name = server, key_id
        if not keys.has_answered(server) and _may_count(key, found.get(name), wanted[name]):
            LOG.info("%s doesn't answer; its key %s is as %s says", server, key_id, resident)
            found[name] = key
    return found


def _said_by(
    keys: ServerKeys, resident: str, wanted: Mapping[KeyName, int]
) -> dict[KeyName, KnownKey]:
    """Return what the resident server says about servers that have not answered yet."""
    missing = {
        server: ids
        for server, ids in keys.missing(wanted).items()
        if server != resident and not keys.has_answered(server)
    }
    if not missing:
        return {}
    now_ms = time.time_ns() // 1_000_000
    latest_ms = now_ms + MAX_VALIDITY_MS
    return {
        (server, it.key_id): KnownKey(
            it.key, it.expired_ts, min(found.valid_until_ts, latest_ms), now_ms
        )
        for server, found, _ in keys.said_by(resident, missing, NOTARY_SECONDS)
        for it in found.keys
        if it.key_id in missing[server]
    }


def _wait(futures: list[Future[None]], until: float) -> None:
    """Wait for the ends of these, and raise their errors."""
    for future in wait(futures, max(until - time.monotonic(), 0)).done:
        future.result()


def _may_count(key: KnownKey, known: KnownKey | None, at_ts: int) -> bool:
    """Return whether a key is valid at a time, and is not another one than that which is known."""
    return (known is None or known.key == key.key) and key.is_valid_at(at_ts)
