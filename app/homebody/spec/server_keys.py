"""The keys that a server publishes: how they are written, read and checked.

Spec: server-server-api#publishing-keys
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from homebody.spec import canonical_json, signing
from homebody.spec.events import Json
from homebody.spec.signing import SignatureError, SigningKey, VerifyKey

MAX_VALIDITY_MS: Final = 7 * 86_400_000
"""Of a response, from when it was received: "the lesser of this field and 7 days"."""
MAX_KEYS: Final = 100
"""In one response. Servers have one, and another for each time their key was replaced."""


@dataclass(frozen=True, slots=True)
class PublishedKey:
    """A public key in a response."""

    key_id: str
    key: VerifyKey
    expired_ts: int | None
    """When a key in `old_verify_keys` was replaced (ms)."""


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """A valid response."""

    keys: list[PublishedKey]
    valid_until_ts: int
    """As the server says: callers apply MAX_VALIDITY_MS."""


def publish(
    server_name: str, key: SigningKey, old_keys: Iterable[PublishedKey], valid_until_ts: int
) -> Json:
    """Return the signed response with a server's own keys, in the order of canonical JSON.

    Some servers verify the bytes that they get.
    """
    own = {key.key_id: {"key": signing.verify_key_to_base64(key.verify_key)}}
    old = {
        it.key_id: {"key": signing.verify_key_to_base64(it.key), "expired_ts": it.expired_ts}
        for it in old_keys
    }
    unsigned = {
        "server_name": server_name,
        "verify_keys": own,
        "old_verify_keys": old,
        "valid_until_ts": valid_until_ts,
    }
    signed = signing.sign_json(unsigned, server_name, key)
    ordered: Json = canonical_json.decode(canonical_json.encode(signed))
    return ordered


def parse(response: Any, server_name: str) -> PublishedKeys:
    """Return the keys in a response about this server.

    Raises ValueError if it is malformed, about another server, or not signed with one of its
    current keys. Keys of unknown algorithms are left out.
    """
    if not isinstance(response, dict) or response.get("server_name") != server_name:
        raise ValueError(f"The response is not about {server_name}")
    valid_until_ts = response.get("valid_until_ts")
    if not _is_timestamp(valid_until_ts):
        raise ValueError("valid_until_ts is not a timestamp")
    current = list(_keys(response.get("verify_keys"), is_old=False))
    old = list(_keys(response.get("old_verify_keys", {}), is_old=True))
    if len(current) + len(old) > MAX_KEYS:
        raise ValueError(f"The response has more than {MAX_KEYS} keys")
    if not any(_is_signed(response, server_name, it) for it in current):
        raise ValueError(f"The response is not signed with a key of {server_name}")
    names = {it.key_id for it in current}
    return PublishedKeys([*current, *(it for it in old if it.key_id not in names)], valid_until_ts)


def _keys(found: Any, *, is_old: bool) -> Iterable[PublishedKey]:
    if not isinstance(found, dict):
        raise ValueError("The keys are not an object")  # noqa: TRY004 - callers expect ValueError
    for key_id, it in found.items():
        if not key_id.startswith(f"{signing.ALGORITHM}:"):
            continue
        if not isinstance(it, dict) or not isinstance(it.get("key"), str):
            raise ValueError(f"{key_id} has no key")  # noqa: TRY004 - as above
        expired_ts = it.get("expired_ts") if is_old else None
        if is_old and not _is_timestamp(expired_ts):
            raise ValueError(f"{key_id} has no expired_ts")
        yield PublishedKey(key_id, signing.verify_key_from_base64(it["key"]), expired_ts)


def _is_signed(response: Json, server_name: str, it: PublishedKey) -> bool:
    try:
        signing.verify_json(response, server_name, it.key_id, it.key)
    except SignatureError:
        return False
    return True


def _is_timestamp(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63
