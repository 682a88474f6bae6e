"""Ed25519 signatures of JSON, and the content hash and reference hash of events.

The *content hash* covers the whole event and is stored in it, under `hashes`. The *reference hash*
and the signature cover the redacted event, which includes the content hash but not the content.
Both are computed from the same bytes (redacted, without `signatures` and `unsigned`), and since
room version 3 the event's id is the reference hash. So a new event is encoded twice; most of the
time goes into the ed25519 operation.

Spec: appendices#signing-json, server-server-api#signing-events
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Final

import nacl.exceptions
import nacl.signing

from homebody.spec import canonical_json, events
from homebody.spec.events import Json
from homebody.spec.room_versions import RoomVersion

VerifyKey = nacl.signing.VerifyKey

ALGORITHM: Final = "ed25519"
MAX_SIGNATURES: Final = 10
"""Of one signer. Servers have a key or two, and their policy server another one."""
_KEY_PREFIX: Final = f"{ALGORITHM}:"
_KEY_VERSION: Final = re.compile(r"[0-9A-Za-z_]+")
_NOT_SIGNED: Final = ("signatures", "unsigned")
_NOT_HASHED: Final = ("hashes", *_NOT_SIGNED)
_ENCODE: Final = {True: canonical_json.encode, False: canonical_json.encode_historical}
"""By whether the room version enforces canonical JSON."""


class SignatureError(ValueError):
    """A signature is missing, malformed or wrong, as the message says."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and its id, from a seed of 32 random bytes or a line of the key file."""

    key_id: str
    """`ed25519:` and the key's version: the key of its signatures in JSON."""
    _key: nacl.signing.SigningKey = field(repr=False)

    @classmethod
    def from_seed(cls, key_version: str, seed: bytes) -> SigningKey:
        """Create a key from a seed of 32 bytes. Raises ValueError for a bad version or length."""
        if not _KEY_VERSION.fullmatch(key_version):
            raise ValueError("The version of a signing key consists of letters, digits and _")
        return cls(f"{ALGORITHM}:{key_version}", nacl.signing.SigningKey(seed))

    @classmethod
    def from_text(cls, text: str) -> SigningKey:
        """Parse a line of a key file, `ed25519 a_abcd <unpadded base64 of the seed>`.

        Raises ValueError with a message that doesn't contain the seed.
        """
        parts = text.split()
        if len(parts) != 3 or parts[0] != ALGORITHM:
            raise ValueError(f"A signing key is written as: {ALGORITHM} version seed")
        return cls.from_seed(parts[1], canonical_json.decode_base64(parts[2]))

    def to_text(self) -> str:
        """Return the line for a key file, in the format of other servers. It is secret."""
        algorithm, key_version = self.key_id.split(":")
        return f"{algorithm} {key_version} {canonical_json.encode_base64(bytes(self._key))}"

    @property
    def verify_key(self) -> VerifyKey:
        """The public key."""
        return self._key.verify_key

    def sign(self, message: bytes) -> str:
        """Return the signature of these bytes, in unpadded base64."""
        return canonical_json.encode_base64(self._key.sign(message).signature)


def verify_key_from_base64(text: str) -> VerifyKey:
    """Decode a published public key. Raises ValueError."""
    return VerifyKey(canonical_json.decode_base64(text))


def verify_key_to_base64(key: VerifyKey) -> str:
    """Encode a public key for publication."""
    return canonical_json.encode_base64(bytes(key))


def sign_json(value: Json, server_name: str, key: SigningKey) -> Json:
    """Return a copy with the signature of `server_name` added to the existing ones.

    Raises ValueError for values that can't be encoded or have malformed `signatures`.
    """
    message = canonical_json.encode(_without(value, _NOT_SIGNED))
    return _with_signature(value, server_name, key.key_id, key.sign(message))


def verify_json(value: Json, entity: str, key_id: str, verify_key: VerifyKey) -> None:
    """Raise SignatureError unless `entity` (a server or user) signed this with that key."""
    signature = _signature(value, entity, key_id)
    try:
        message = canonical_json.encode(_without(value, _NOT_SIGNED))
    except ValueError as problem:
        raise SignatureError(str(problem)) from problem
    _verify(message, signature, verify_key)


def key_ids(value: Json, entity: str) -> list[str]:
    """Return the ids of the ed25519 keys by which `entity` (a server or user) signed this.

    At most `MAX_SIGNATURES`, as each is verified or even fetched.
    """
    signatures = value.get("signatures")
    own = signatures.get(entity) if isinstance(signatures, dict) else None
    found = [it for it in own if it.startswith(_KEY_PREFIX)] if isinstance(own, dict) else []
    return found[:MAX_SIGNATURES]


def verify_bytes(message: bytes, signature: str, verify_key: VerifyKey) -> None:
    """Raise SignatureError unless this is the key's signature of the bytes, in base64."""
    try:
        decoded = canonical_json.decode_base64(signature)
    except ValueError as problem:
        raise SignatureError("The signature is not base64") from problem
    _verify(message, decoded, verify_key)


def add_hashes_and_signatures(
    pdu: Json, version: RoomVersion, server_name: str, key: SigningKey
) -> tuple[str, Json]:
    """Return (event ID, PDU with content hash and our signature) of a new event.

    The PDU must have passed `canonical_json.check`. In room versions 1 and 2 it must have its id.
    """
    digest = content_hash(pdu, version)
    hashed = {**pdu, "hashes": {"sha256": canonical_json.encode_base64(digest)}}
    message = _redacted_bytes(hashed, version)
    event_id = _event_id(hashed, version, message)
    return event_id, _with_signature(hashed, server_name, key.key_id, key.sign(message))


def sign_event(pdu: Json, version: RoomVersion, server_name: str, key: SigningKey) -> Json:
    """Return a copy of another server's event with our signature added.

    Used for invites and restricted joins, which two servers sign. `hashes` are left unchanged.
    """
    signature = key.sign(_redacted_bytes(pdu, version))
    return _with_signature(pdu, server_name, key.key_id, signature)


def verify_event(
    pdu: Json, version: RoomVersion, server_name: str, key_id: str, verify_key: VerifyKey
) -> None:
    """Raise SignatureError unless the server signed this event, redacted or not, with that key."""
    signature = _signature(pdu, server_name, key_id)
    _verify(_redacted_bytes(pdu, version), signature, verify_key)


def content_hash(pdu: Json, version: RoomVersion) -> bytes:
    """Return the SHA-256 of the event without `unsigned`, `signatures` and `hashes`."""
    covered = {key: member for key, member in pdu.items() if key not in _NOT_HASHED}
    return hashlib.sha256(_ENCODE[version.is_canonical_json_strict](covered)).digest()


def has_valid_content_hash(pdu: Json, version: RoomVersion) -> bool:
    """Return whether the content hash matches; if not, only the redacted event may be used."""
    try:
        claimed = canonical_json.decode_base64(pdu["hashes"]["sha256"])
    except ValueError:
        return False
    return claimed == content_hash(pdu, version)


def reference_hash(pdu: Json, version: RoomVersion) -> bytes:
    """Return the SHA-256 of the redacted event without signatures, used to refer to the event."""
    return hashlib.sha256(_redacted_bytes(pdu, version)).digest()


def event_id_of(pdu: Json, version: RoomVersion) -> str:
    """Return the event's id: its reference hash, or `event_id` in room versions 1 and 2."""
    if version.event_ids == "given":
        return _event_id(pdu, version, b"")
    return _event_id(pdu, version, _redacted_bytes(pdu, version))


def reference(pdu: Json, version: RoomVersion) -> str | list[Any]:
    """Return the reference to an event for `prev_events` and `auth_events`.

    It is the event ID, or in versions 1 and 2 [event ID, {"sha256": reference hash}].
    """
    event_id = event_id_of(pdu, version)
    if version.event_ids != "given":
        return event_id
    return [event_id, {"sha256": canonical_json.encode_base64(reference_hash(pdu, version))}]


def _event_id(pdu: Json, version: RoomVersion, redacted_bytes: bytes) -> str:
    if version.event_ids == "given":
        event_id: str = pdu["event_id"]
        return event_id
    digest = hashlib.sha256(redacted_bytes).digest()
    is_url_safe = version.event_ids != "reference_hash"
    return "$" + canonical_json.encode_base64(digest, is_url_safe=is_url_safe)


def _redacted_bytes(pdu: Json, version: RoomVersion) -> bytes:
    """Return the bytes covered by signatures and the reference hash."""
    redacted = events.redact(pdu, version)
    redacted.pop("signatures", None)  # redaction has removed `unsigned` and copied the event
    return _ENCODE[version.is_canonical_json_strict](redacted)


def _without(value: Json, keys: tuple[str, ...]) -> Json:
    return {key: member for key, member in value.items() if key not in keys}


def _with_signature(value: Json, server_name: str, key_id: str, signature: str) -> Json:
    signatures = value.get("signatures", {})
    own = signatures.get(server_name, {}) if isinstance(signatures, dict) else None
    if not isinstance(own, dict):
        raise ValueError("Malformed signatures")  # noqa: TRY004 - callers expect ValueError
    return {**value, "signatures": {**signatures, server_name: {**own, key_id: signature}}}


def _signature(value: Json, entity: str, key_id: str) -> bytes:
    """Return the bytes of a signature of a possibly malformed object. Raises SignatureError."""
    found: Any = value
    for key in ("signatures", entity, key_id):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise SignatureError(f"No signature of {entity} with key {key_id}")
    try:
        return canonical_json.decode_base64(found)
    except ValueError as problem:
        raise SignatureError(f"The signature of {entity} is not base64") from problem


def _verify(message: bytes, signature: bytes, verify_key: VerifyKey) -> None:
    try:
        verify_key.verify(message, signature)
    except (nacl.exceptions.BadSignatureError, nacl.exceptions.ValueError) as problem:
        raise SignatureError("The signature does not match") from problem
