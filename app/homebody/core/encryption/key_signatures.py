"""Signatures of device keys and cross-signing keys: verify, store and read them.

Clients must verify every signature themselves. The server rejects invalid ones so that lists of
keys don't fill up with them. Signatures are stored apart from the keys, as other users add theirs.
`signed_key` and the part of a key ID after `ed25519:` are a device ID or a public key, as in the
spec.

Signatures must not reveal which users have verified each other: signatures by a user of their own
keys are visible to all, signatures of another user's keys only to the signer.

This module alone writes the table key_signatures.
Spec: client-server-api#key-and-signature-security, appendices#signing-json
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.models.cross_signing import KeySignature
from homebody.models.device_keys import DeviceKeys
from homebody.spec import canonical_json, signing
from homebody.spec.events import Json
from homebody.spec.signing import VerifyKey
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches

Signatures = dict[str, dict[str, str]]
"""{user_id: {key_id: signature}}, the format of `signatures` in a signed object."""

PREFIX: Final = "ed25519:"
MAX_BYTES: Final = 65536
"""The size of an object including its signatures."""
IDS_AT_ONCE: Final = 10_000
"""Per statement; SQLite allows 32,766 values."""

_PUT = insert(KeySignature)
_PUT = _PUT.on_conflict_do_update(
    index_elements=["signed_user_id", "signer_user_id", "signed_key", "signer_key_id"],
    set_={"signature": _PUT.excluded.signature, "position": _PUT.excluded.position},
)
_VISIBLE = select(
    KeySignature.signed_user_id,
    KeySignature.signed_key,
    KeySignature.signer_user_id,
    KeySignature.signer_key_id,
    KeySignature.signature,
).where(
    KeySignature.signed_user_id.in_(bindparam("user_ids", expanding=True)),
    or_(
        KeySignature.signer_user_id == KeySignature.signed_user_id,
        KeySignature.signer_user_id == bindparam("requester_id"),
    ),
)
_OF_DEVICES = select(DeviceKeys.device_id, DeviceKeys.device_keys).where(
    DeviceKeys.user_id == bindparam("user_id")
)
_LAST = select(func.coalesce(func.max(KeySignature.position), 0))
_SIGNED_SINCE = (
    select(KeySignature.signed_user_id)
    .where(
        KeySignature.signer_user_id == bindparam("signer_id"),
        KeySignature.signed_user_id != bindparam("signer_id"),
        KeySignature.position > bindparam("since"),
    )
    .distinct()
)


def put(tx: Tx, signed: tuple[str, str], signer_id: str, signatures: dict[str, str]) -> None:
    """Store {key_id: signature} of a key (user ID, device ID or public key)."""
    signed_user_id, signed_key = signed
    position = tx.next_position()
    rows = [
        {
            "signed_user_id": signed_user_id,
            "signed_key": signed_key,
            "signer_user_id": signer_id,
            "signer_key_id": key_id,
            "signature": signature,
            "position": position,
        }
        for key_id, signature in signatures.items()
    ]
    if rows:
        tx.sql.execute(_PUT, rows)


def visible(
    tx: Reader, requester_id: str, user_ids: Collection[str]
) -> dict[str, dict[str, Signatures]]:
    """Return {user_id: {device ID or public key: signatures}} visible to the requester."""
    found: dict[str, dict[str, Signatures]] = {}
    for some in batches(user_ids, IDS_AT_ONCE):
        values = {"user_ids": some, "requester_id": requester_id}
        for user_id, key, signer_id, key_id, signature in tx.sql.execute(_VISIBLE, values):
            signatures = found.setdefault(user_id, {}).setdefault(key, {})
            signatures.setdefault(signer_id, {})[key_id] = signature
    return found


def signed_since(tx: Reader, signer_id: str, since: int) -> set[str]:
    """Return the other users whose keys a user has signed, for the user's other devices.

    For everybody else this is not a change of those users' keys.
    """
    values = {"signer_id": signer_id, "since": since}
    return set(tx.sql.execute(_SIGNED_SINCE, values).scalars())


def last_position(tx: Reader) -> int:
    """Return the position of the last signature of any user."""
    found: int = tx.sql.execute(_LAST).scalar_one()
    return found


def remove(tx: Tx, user_id: str, keys: Collection[str]) -> None:
    """Delete signatures of, and by, removed devices (by id) or public keys of a user."""
    signed = (KeySignature.signed_user_id == user_id, KeySignature.signed_key.in_(keys))
    key_ids = [PREFIX + key for key in keys]
    signer = (KeySignature.signer_user_id == user_id, KeySignature.signer_key_id.in_(key_ids))
    tx.sql.execute(delete(KeySignature).where(*signed))
    tx.sql.execute(delete(KeySignature).where(*signer))


def erase(tx: Tx, user_id: str) -> None:
    """Delete all signatures by a user or of their keys."""
    tx.sql.execute(delete(KeySignature).where(KeySignature.signed_user_id == user_id))
    tx.sql.execute(delete(KeySignature).where(KeySignature.signer_user_id == user_id))


def check_form(signed: Json) -> None:
    """Raise M_BAD_JSON for an object without a canonical JSON form, or M_TOO_LARGE."""
    try:
        canonical_json.check(signed)
    except ValueError as error:
        raise errors.bad_json(str(error)) from None
    if len(canonical_json.encode(signed)) > MAX_BYTES:
        raise errors.too_large(f"The keys may have at most {MAX_BYTES} bytes")


def signed_part(signed: Json) -> Json:
    """Return the signed part of an object."""
    return {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}


def verify(signed: Json, user_id: str, key_id: str, verify_key: VerifyKey) -> None:
    """Raise M_INVALID_SIGNATURE unless the user has signed this object with this key."""
    try:
        signing.verify_json(signed, user_id, key_id, verify_key)
    except signing.SignatureError as error:
        raise errors.invalid_signature(str(error)) from None


def valid_signatures(signed: Json, user_id: str, signers: dict[str, VerifyKey]) -> dict[str, str]:
    """Return {key_id: signature} of the user's signatures made with these keys, {key_id: key}.

    Other signatures on the object are ignored. Raises M_INVALID_SIGNATURE if a signature by one of
    these keys is invalid.
    """
    own = signatures_of(signed, user_id)
    known = {key_id: own[key_id] for key_id in own if key_id in signers}
    for key_id in known:
        verify(signed, user_id, key_id, signers[key_id])
    return known


def signatures_of(signed: Json, user_id: str) -> Json:
    """Return the unverified signatures of a user, {key_id: signature}."""
    signatures = signed.get("signatures")
    own = signatures.get(user_id) if isinstance(signatures, dict) else None
    return own if isinstance(own, dict) else {}


def device_objects(tx: Reader, user_id: str) -> dict[str, Json]:
    """Return {device_id: keys without signatures} of a user."""
    rows = tx.sql.execute(_OF_DEVICES, {"user_id": user_id})
    return {device_id: signed_part(orjson.loads(keys)) for device_id, keys in rows}


def signing_keys(devices: dict[str, Json]) -> dict[str, VerifyKey]:
    """Return {key_id: key} of these devices, without those whose key is invalid."""
    found = {}
    for device_id, keys in devices.items():
        key_id = PREFIX + device_id
        try:
            found[key_id] = signing.verify_key_from_base64(keys["keys"][key_id])
        except (KeyError, ValueError):
            continue
    return found
