"""Verify signatures of uploaded objects.

Clients must verify every signature themselves. The server rejects invalid ones so that lists of
keys don't fill up with them.
Spec: appendices#signing-json, client-server-api#key-and-signature-security
"""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.encryption.key_signatures import PREFIX
from homebody.models.device_keys import DeviceKeys
from homebody.spec import canonical_json, signing
from homebody.spec.events import Json
from homebody.spec.signing import VerifyKey
from homebody.storage.database import Reader

MAX_BYTES: Final = 65536
"""Of an object including its signatures."""

_OF_DEVICES = select(DeviceKeys.device_id, DeviceKeys.device_keys).where(
    DeviceKeys.user_id == bindparam("user_id")
)


def check_form(signed: Json) -> None:
    """Raise M_BAD_JSON for an object without a canonical JSON form, or M_TOO_LARGE."""
    try:
        canonical_json.check(signed)
    except ValueError as error:
        raise errors.bad_json(str(error)) from None
    if len(canonical_json.encode(signed)) > MAX_BYTES:
        raise errors.too_large(f"The keys may have at most {MAX_BYTES} bytes")


def bare(signed: Json) -> Json:
    """Return the signed part of an object."""
    return {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}


def verify(signed: Json, user_id: str, key_id: str, verify_key: VerifyKey) -> None:
    """Raise M_INVALID_SIGNATURE unless the user has signed this object with this key."""
    try:
        signing.verify_json(signed, user_id, key_id, verify_key)
    except signing.SignatureError as error:
        raise errors.invalid_signature(str(error)) from None


def valid(signed: Json, user_id: str, signers: dict[str, VerifyKey]) -> dict[str, str]:
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


def devices(tx: Reader, user_id: str) -> dict[str, Json]:
    """Return {device_id: keys without signatures} of a user."""
    rows = tx.sql.execute(_OF_DEVICES, {"user_id": user_id})
    return {device_id: bare(orjson.loads(keys)) for device_id, keys in rows}


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
