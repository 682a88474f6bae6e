"""Answers to queries for the keys of other servers, signed by this server too: a notary.

Keys are fetched from their servers alone, not from other notaries, which could ask this one in
turn. Expired keys are answered as well: old events are verified with them.

Spec: server-server-api#querying-keys-through-another-server
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
import orjson

from homebody.core.federation import keys
from homebody.core.federation.keys import KnownKey, ServerKeys
from homebody.spec import identifiers, signing
from homebody.spec.events import Json
from homebody.storage.database import Database

FETCH_SECONDS: Final = 10.0
MAX_FETCHED: Final = 50
"""Servers that one query makes this one ask. Of others it answers what it knows."""

Query = Mapping[str, Mapping[str, int | None]]
"""`{server name: {key id: minimum of valid_until_ts}}`; without key IDs, all keys."""


class Criteria(msgspec.Struct):
    """What a key has to fulfil."""

    minimum_valid_until_ts: int | None = None


def answer(
    db: Database, server_keys: ServerKeys, wanted: Query, minimum_ts: int | None = None
) -> list[Json]:
    """Return the responses of the servers with these keys, as far as they are known.

    `minimum_ts` applies to queries for all keys of a server; None is now.
    """
    allowed = db.server.config.is_server_allowed
    others = {
        name: ids
        for name, ids in wanted.items()
        if name != db.server.name and identifiers.is_server_name(name) and allowed(name)
    }
    missing = _missing(db, others, minimum_ts)
    server_keys.fetch_all(missing, FETCH_SECONDS, with_notaries=False)
    with db.read() as tx:
        own = [keys.own_keys(tx)] if db.server.name in wanted else []
        texts = dict.fromkeys(
            text
            for name, ids in others.items()
            for key_id, (_, text) in keys.responses(tx, name).items()
            if not ids or key_id in ids
        )
    key = db.server.signing_key
    return own + [signing.sign_json(orjson.loads(it), db.server.name, key) for it in texts]


def _missing(db: Database, wanted: Query, minimum_ts: int | None) -> dict[str, dict[str, int]]:
    """Return which servers have to be asked: `{server name: {key ID: valid at (ms)}}`."""
    missing: dict[str, dict[str, int]] = {}
    with db.read() as tx:
        for name, ids in wanted.items():
            stored = {key_id: known for key_id, (known, _) in keys.responses(tx, name).items()}
            current = [key_id for key_id, it in stored.items() if it.expired_ts is None]
            sought = ids or dict.fromkeys(current or [""], minimum_ts)
            needed = {
                key_id: tx.now_ms if minimum is None else minimum
                for key_id, minimum in sought.items()
            }
            if len(missing) < MAX_FETCHED and any(
                _is_outdated(stored.get(key_id), minimum, tx.now_ms)
                for key_id, minimum in needed.items()
            ):
                missing[name] = needed
    return missing


def _is_outdated(known: KnownKey | None, minimum_ts: int, now_ms: int) -> bool:
    if known is None:
        return True
    is_too_short = known.expired_ts is None and known.valid_until_ts < minimum_ts
    return is_too_short or known.is_half_over(now_ms)
