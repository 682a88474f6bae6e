"""Whether an uploaded object was signed by a key that the server knows.

Clients check every signature again, and must: the server only keeps out what is broken, so that
nobody's list of keys fills with rubbish.
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
"""Of an object with its signatures."""

_OF_DEVICES = select(DeviceKeys.device_id, DeviceKeys.device_keys).where(
    DeviceKeys.user_id == bindparam("user_id")
)


def check_form(signed: Json) -> None:
    """Raises M_BAD_JSON for what has no canonical form to be signed, M_TOO_LARGE."""
    try:
        canonical_json.check(signed)
    except ValueError as error:
        raise errors.bad_json(str(error)) from None
    if len(canonical_json.encode(signed)) > MAX_BYTES:
        raise errors.too_large(f"The keys have at most {MAX_BYTES} bytes")


def bare(signed: Json) -> Json:
    """What of an object is signed."""
    return {name: value for name, value in signed.items() if name not in ("signatures", "unsigned")}


def verify(signed: Json, user_id: str, key_id: str, verify_key: VerifyKey) -> None:
    """Raises M_INVALID_SIGNATURE unless the user has signed this object with that key."""
    try:
        signing.verify_json(signed, user_id, key_id, verify_key)
    except signing.SignatureError as error:
        raise errors.invalid_signature(str(error)) from None


def valid(signed: Json, user_id: str, signers: dict[str, VerifyKey]) -> dict[str, str]:
    """{key_id: signature} of those signatures that a user has made with these keys, {key_id: key}.

    Others are left out: the object may carry what it was given before, by whomever.
    Raises M_INVALID_SIGNATURE when one of these keys has signed something else.
    """
    own = signatures_of(signed, user_id)
    known = {key_id: own[key_id] for key_id in own if key_id in signers}
    for key_id in known:
        verify(signed, user_id, key_id, signers[key_id])
    return known


def signatures_of(signed: Json, user_id: str) -> Json:
    """Return what an object carries as the signatures of a user, {key_id: signature}."""
    signatures = signed.get("signatures")
    own = signatures.get(user_id) if isinstance(signatures, dict) else None
    return own if isinstance(own, dict) else {}


def devices(tx: Reader, user_id: str) -> dict[str, Json]:
    """{device_id: its keys, without signatures} of a user."""
    rows = tx.sql.execute(_OF_DEVICES, {"user_id": user_id})
    return {device_id: bare(orjson.loads(keys)) for device_id, keys in rows}


def signing_keys(devices: dict[str, Json]) -> dict[str, VerifyKey]:
    """{key_id: key} by which these devices sign; a device whose key is none signs nothing."""
    found = {}
    for device_id, keys in devices.items():
        key_id = PREFIX + device_id
        try:
            found[key_id] = signing.verify_key_from_base64(keys["keys"][key_id])
        except (KeyError, ValueError):
            continue
    return found
