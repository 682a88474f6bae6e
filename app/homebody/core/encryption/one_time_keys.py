"""One-time keys, each of which is given out once, and fallback keys for when none is left.

Claims are serialized by the single writer, so that concurrent claims get different keys.

How many keys a user may claim is in claim_limits.py.

A client that got no response to an upload repeats it, possibly after some of the keys were claimed.
So digests of a device's claimed keys are stored, and an upload never adds these keys again. At most
MAX_KEYS keys can be claimed between two uploads, so the last MAX_KEYS claims cover every upload
that may still be repeated; older ones are deleted. Claims of a removed device are kept for
CLAIMS_KEPT_MS, as a client may log in with the same device ID and still have the old keys.

A claim wakes the owner's waiting /sync, and ends its wait, also that of the next request if there
is none: a device whose keys are claimed is to upload new ones at once. Which device's keys were
claimed at what position is kept in memory only. What is forgotten ends no wait, but each response
has the number of keys.

This module alone writes the tables one_time_keys, claimed_one_time_keys and fallback_keys.
Spec: client-server-api#one-time-and-fallback-keys
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core.appservices import bridged_devices
from homebody.core.encryption import claim_limits
from homebody.core.encryption.claim_limits import Claim
from homebody.models.device_keys import ClaimedKey, FallbackKey, OneTimeKey
from homebody.models.devices import Device
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, declare
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches, item, listed

SIGNED_CURVE25519: Final = "signed_curve25519"
MAX_KEYS: Final = 1000
"""Per device. Clients maintain 50 to 100."""
MAX_FALLBACKS: Final = 10
"""Algorithms per device. In practice there is one; /sync lists them all."""
MAX_BYTES: Final = 8192
"""The size of a key in JSON."""
CLAIMED_AT_ONCE: Final = 500
"""Devices in one write transaction, during which no other request can write."""
CLAIMS_KEPT_MS: Final = 90 * 24 * 3_600_000
"""How long claims are kept after their device was removed."""

Key = str | Json


class KeyCounts(NamedTuple):
    """How many keys of a device are left to claim."""

    one_time_keys: dict[str, int]
    """{algorithm: count}"""
    unused_fallback_types: list[str]
    claimed_at: int
    """The position of the last claim that is known; 0: none."""


KEY_COUNTS: CacheKind[tuple[str, str], KeyCounts] = declare("key_counts", 1, lambda _: 400)
"""By (user_id, device_id)."""
CLAIMED_AT: CacheKind[tuple[str, str], int] = declare("key_claims", 1, lambda _: 28)
"""The position of the last claim, by (user_id, device_id)."""

_OF_DEVICE = (
    OneTimeKey.user_id == bindparam("user_id"),
    OneTimeKey.device_id == bindparam("device_id"),
)
_FALLBACK_OF_DEVICE = (
    FallbackKey.user_id == bindparam("user_id"),
    FallbackKey.device_id == bindparam("device_id"),
)
_ALL = select(OneTimeKey.algorithm, OneTimeKey.key_id, OneTimeKey.key).where(*_OF_DEVICE)
_COUNTS = (
    select(OneTimeKey.algorithm, func.count()).where(*_OF_DEVICE).group_by(OneTimeKey.algorithm)
)
_FALLBACKS = select(
    FallbackKey.algorithm, FallbackKey.key_id, FallbackKey.key, FallbackKey.is_used
).where(*_FALLBACK_OF_DEVICE)
_INSERT = insert(OneTimeKey)
_DELETE_ALL = delete(OneTimeKey)
_DEVICES = select(OneTimeKey.user_id, OneTimeKey.device_id).distinct()
_CLAIMED_OF_DEVICE = (
    ClaimedKey.user_id == bindparam("user_id"),
    ClaimedKey.device_id == bindparam("device_id"),
)
_CLAIMED = select(ClaimedKey.digest).where(*_CLAIMED_OF_DEVICE)
_INSERT_CLAIMED = insert(ClaimedKey).on_conflict_do_nothing()
_DELETE_OLD_CLAIMED = delete(ClaimedKey).where(
    ClaimedKey.user_id == bindparam("of_user"),
    ClaimedKey.device_id == bindparam("of_device"),
    ClaimedKey.claimed_ts
    < select(ClaimedKey.claimed_ts)
    .where(*_CLAIMED_OF_DEVICE)
    .order_by(ClaimedKey.claimed_ts.desc())
    .offset(bindparam("kept"))
    .limit(1)
    .scalar_subquery(),
)
_DELETE_CLAIMED_OF_REMOVED = delete(ClaimedKey).where(
    ClaimedKey.user_id == bindparam("of_user"),
    ClaimedKey.claimed_ts < bindparam("before"),
    ClaimedKey.device_id.not_in(
        select(Device.device_id).where(Device.user_id == bindparam("of_user"))
    ),
)
_UPSERT_FALLBACK = insert(FallbackKey)
_UPSERT_FALLBACK = _UPSERT_FALLBACK.on_conflict_do_update(
    index_elements=["user_id", "device_id", "algorithm"],
    set_={name: _UPSERT_FALLBACK.excluded[name] for name in ("key_id", "key", "is_used")},
)
_WANTED = listed("wanted")  # [user_id, device_id, algorithm, claimer or null, limit]
_Oldest = aliased(OneTimeKey)
_OLDEST = (
    select(OneTimeKey.__table__)
    .select_from(_WANTED)
    .join(
        OneTimeKey,
        (OneTimeKey.user_id == item(_WANTED, 0))
        & (OneTimeKey.device_id == item(_WANTED, 1))
        & (OneTimeKey.algorithm == item(_WANTED, 2)),
    )
    .where(
        OneTimeKey.key_id
        == select(_Oldest.key_id)
        .where(
            _Oldest.user_id == item(_WANTED, 0),
            _Oldest.device_id == item(_WANTED, 1),
            _Oldest.algorithm == item(_WANTED, 2),
        )
        .order_by(_Oldest.position, _Oldest.key_id)
        .limit(1)
        .correlate(_WANTED)
        .scalar_subquery()
    )
)
_DELETE_ONE = delete(OneTimeKey).where(
    OneTimeKey.user_id == bindparam("of_user"),
    OneTimeKey.device_id == bindparam("of_device"),
    OneTimeKey.algorithm == bindparam("of_algorithm"),
    OneTimeKey.key_id == bindparam("with_id"),
)
_FALLBACKS_FOR = (
    select(FallbackKey.__table__)
    .select_from(_WANTED)
    .join(
        FallbackKey,
        (FallbackKey.user_id == item(_WANTED, 0))
        & (FallbackKey.device_id == item(_WANTED, 1))
        & (FallbackKey.algorithm == item(_WANTED, 2)),
    )
)
_MARK_USED = (
    update(FallbackKey)
    .where(
        FallbackKey.user_id == bindparam("of_user"),
        FallbackKey.device_id == bindparam("of_device"),
        FallbackKey.algorithm == bindparam("of_algorithm"),
    )
    .values(is_used=True)
)


def add(tx: Tx, user_id: str, device_id: str, keys: Mapping[str, Key]) -> None:
    """Add one-time keys, {"algorithm:id": key}, except existing and claimed ones.

    Raises M_INVALID_PARAM for an invalid id or a different key with an existing id, M_TOO_LARGE.
    """
    if len(keys) > MAX_KEYS:  # before processing them, which blocks all other writers
        raise errors.too_large(f"A device may have at most {MAX_KEYS} one-time keys")
    device = {"user_id": user_id, "device_id": device_id}
    known = {(algorithm, key_id): key for algorithm, key_id, key in tx.sql.execute(_ALL, device)}
    claimed = _claimed(tx, user_id, device_id)
    position = tx.next_position()
    added = []
    for name, key in keys.items():
        algorithm, key_id = _split(name)
        encoded = _encoded(key)
        before = known.get((algorithm, key_id))
        if before is None and _digest(algorithm, key_id, key) in claimed:
            continue
        if before is None:
            row = {"algorithm": algorithm, "key_id": key_id, "key": encoded, "position": position}
            added.append(device | row)
        elif _unsigned(orjson.loads(before)) != _unsigned(key):
            # Clients recognise this error by Synapse's text
            message = f"One time key {name} already exists. Old key: {before}; new key: {encoded}"
            raise errors.invalid_param(message)
    if len(known) + len(added) > MAX_KEYS:
        raise errors.too_large(f"A device may have at most {MAX_KEYS} one-time keys")
    if added:
        tx.sql.execute(_INSERT, added)
        _note_change(tx, user_id, device_id)


def set_fallbacks(tx: Tx, user_id: str, device_id: str, keys: Mapping[str, Key]) -> None:
    """Replace the fallback keys of these algorithms, {"algorithm:id": key}.

    Raises M_INVALID_PARAM for an invalid id or two keys of one algorithm, M_TOO_LARGE.
    """
    device = {"user_id": user_id, "device_id": device_id}
    known = {
        row.algorithm: (row.key_id, _unsigned(orjson.loads(row.key)))
        for row in tx.sql.execute(_FALLBACKS, device)
    }
    if len(known.keys() | {name.partition(":")[0] for name in keys}) > MAX_FALLBACKS:
        raise errors.too_large(f"At most {MAX_FALLBACKS} algorithms of fallback keys per device")
    given: dict[str, tuple[str, Key]] = {}
    for name, key in keys.items():
        algorithm, key_id = _split(name)
        if algorithm in given:
            raise errors.invalid_param(f"There can only be one fallback key for {algorithm}")
        given[algorithm] = (key_id, key)
    for algorithm, (key_id, key) in given.items():
        encoded = _encoded(key)
        if known.get(algorithm) == (key_id, _unsigned(key)):
            continue  # a repeated request must not reset `is_used`
        row = {"algorithm": algorithm, "key_id": key_id, "key": encoded, "is_used": False}
        tx.sql.execute(_UPSERT_FALLBACK, device | row)
    _note_change(tx, user_id, device_id)


def counts(tx: Reader, user_id: str, device_id: str) -> KeyCounts:
    """Return the counts of a device's one-time keys and its unused fallback keys."""
    found = tx.cached(KEY_COUNTS, (user_id, device_id))
    if found is None:
        device = {"user_id": user_id, "device_id": device_id}
        # Zero could be omitted, but older clients only upload keys if there is a number
        left = {SIGNED_CURVE25519: 0}
        left.update((row[0], row[1]) for row in tx.sql.execute(_COUNTS, device))
        fallbacks = tx.sql.execute(_FALLBACKS, device)
        unused = sorted(row.algorithm for row in fallbacks if not row.is_used)
        found = KeyCounts(left, unused, tx.cached(CLAIMED_AT, (user_id, device_id)) or 0)
        tx.fill(KEY_COUNTS, (user_id, device_id), found)
    return found


def claim(tx: Tx, wanted: Collection[Claim]) -> dict[str, dict[str, Json]]:
    """Return {user_id: {device_id: {"algorithm:id": key}}} with at most one key per claim.

    This is the oldest one-time key, which is deleted, or the fallback key.
    """
    # Deviates: a claimer over the limit gets the fallback key, or none, although one-time keys are
    # left. Otherwise any user could exhaust the keys of a device.
    over_limit = claim_limits.exceeded(tx, wanted)
    allowed = [it for it in wanted if it[:2] not in over_limit]
    taken = tx.sql.execute(_OLDEST, {"wanted": allowed}).all()
    found: dict[str, dict[str, Json]] = {}
    _hand_out(found, taken)
    if taken:
        tx.sql.execute(_DELETE_ONE, [{**_parameters(row), "with_id": row.key_id} for row in taken])
        _record_claims(tx, taken, {it[:2]: it[3] for it in allowed})
        _note_claims(tx, taken)
    served = {(row.user_id, row.device_id, row.algorithm) for row in taken}
    rest = [it for it in wanted if it[:3] not in served]
    if not rest:
        return found
    fallbacks = tx.sql.execute(_FALLBACKS_FOR, {"wanted": rest}).all()
    _hand_out(found, fallbacks)
    newly_used = [row for row in fallbacks if not row.is_used]
    if newly_used:
        tx.sql.execute(_MARK_USED, [_parameters(row) for row in newly_used])
        _note_claims(tx, newly_used)
    return found


def claim_all(db: Database, wanted: Collection[Claim]) -> dict[str, dict[str, Json]]:
    """Return what `claim` does for any number of claims, in several writes."""
    found: dict[str, dict[str, Json]] = {}
    for some in batches(wanted, CLAIMED_AT_ONCE):
        with db.write() as tx:
            claimed = claim(tx, some)
        for user_id, devices in claimed.items():
            found.setdefault(user_id, {}).update(devices)
    return found


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete all keys of removed or reset devices; the digests of claimed ones are kept."""
    for table in (OneTimeKey, FallbackKey):
        tx.sql.execute(
            delete(table).where(table.user_id == user_id, table.device_id.in_(device_ids))
        )
    tx.sql.execute(
        _DELETE_CLAIMED_OF_REMOVED, {"of_user": user_id, "before": tx.now_ms - CLAIMS_KEPT_MS}
    )
    for device_id in device_ids:
        tx.forget(KEY_COUNTS, (user_id, device_id))


def erase(tx: Tx, user_id: str) -> None:
    """Delete the claims of a deactivated account, whose keys were deleted with its devices.

    Nobody can log in to it again.
    """
    tx.sql.execute(delete(ClaimedKey).where(ClaimedKey.user_id == user_id))


def _note_change(tx: Tx, user_id: str, device_id: str) -> None:
    tx.forget(KEY_COUNTS, (user_id, device_id))
    bridged_devices.note_keys(tx, user_id, device_id)


def _note_claims(tx: Tx, claimed: Collection[Any]) -> None:
    position = tx.next_position()
    for row in claimed:
        _note_change(tx, row.user_id, row.device_id)
        tx.remember(CLAIMED_AT, (row.user_id, row.device_id), position)
        tx.wake(row.user_id)


def _hand_out(found: dict[str, dict[str, Json]], rows: Collection[Any]) -> None:
    for row in rows:
        keys = found.setdefault(row.user_id, {}).setdefault(row.device_id, {})
        keys[f"{row.algorithm}:{row.key_id}"] = orjson.Fragment(row.key)


def remove_all(tx: Tx) -> None:
    """Delete all one-time keys after a backup was restored, so that clients upload new ones.

    Some were claimed since the backup, and a message encrypted with a key that was claimed twice
    can't be decrypted. So all of them count as claimed.
    """
    for user_id, device_id in tx.sql.execute(_DEVICES).all():
        device = {"user_id": user_id, "device_id": device_id}
        claimed = [
            {
                **device,
                "digest": _digest(row.algorithm, row.key_id, orjson.loads(row.key)),
                "claimed_ts": tx.now_ms,
                "claimer": user_id,
            }
            for row in tx.sql.execute(_ALL, device).all()
        ]
        tx.sql.execute(_INSERT_CLAIMED, claimed)
    tx.sql.execute(_DELETE_ALL)


def _claimed(tx: Tx, user_id: str, device_id: str) -> frozenset[bytes]:
    """Return the digests of a device's claimed keys, and delete old ones."""
    device = {"user_id": user_id, "device_id": device_id}
    found = frozenset(tx.sql.execute(_CLAIMED, device).scalars())
    if len(found) > MAX_KEYS:
        which = {"of_user": user_id, "of_device": device_id, "kept": MAX_KEYS - 1}
        tx.sql.execute(_DELETE_OLD_CLAIMED, device | which)
    return found


def _record_claims(
    tx: Tx, taken: Collection[Any], limits: Mapping[tuple[str, str], str | None]
) -> None:
    claimers = {it: it[0] if limit is None else limit for it, limit in limits.items()}
    tx.sql.execute(
        _INSERT_CLAIMED,
        [
            {
                "user_id": row.user_id,
                "device_id": row.device_id,
                "digest": _digest(row.algorithm, row.key_id, orjson.loads(row.key)),
                "claimed_ts": tx.now_ms,
                "claimer": claimers[row.user_id, row.device_id],
            }
            for row in taken
        ],
    )


def _digest(algorithm: str, key_id: str, key: Key) -> bytes:
    """Return a short digest that identifies a key among those of its device."""
    named = orjson.dumps([algorithm, key_id, _unsigned(key)], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(named).digest()[:16]


def _parameters(row: Any) -> Json:
    return {"of_user": row.user_id, "of_device": row.device_id, "of_algorithm": row.algorithm}


def _split(name: str) -> tuple[str, str]:
    """Split "algorithm:id". Raises M_INVALID_PARAM."""
    algorithm, _, key_id = name.partition(":")
    if not (algorithm and key_id and identifiers.has_at_most_255_bytes(name)):
        raise errors.invalid_param("The id of a key must be algorithm:id with at most 255 bytes")
    return algorithm, key_id


def _encoded(key: Key) -> str:
    encoded = orjson.dumps(key).decode()
    if len(encoded) > MAX_BYTES:
        raise errors.too_large(f"A key may have at most {MAX_BYTES} bytes")
    return encoded


def _unsigned(key: Key) -> Key:
    """Return a key without signatures, as signing it again is not a change."""
    if isinstance(key, str):
        return key
    return {name: value for name, value in key.items() if name != "signatures"}
