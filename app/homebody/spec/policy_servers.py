"""Policy servers: servers that check the events of a room before others see them.

A room names its policy server, and the key with which that signs the events it recommends.

Spec: server-server-api#policy-servers, client-server-api#policy-servers
"""

from __future__ import annotations

from typing import Final, NamedTuple

from homebody.spec import identifiers, signing
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.signing import SignatureError, VerifyKey

POLICY: Final[StateKey] = ("m.room.policy", "")
KEY_ID: Final = "ed25519:policy_server"
"""Of the key in the room's state, and of no key that servers publish."""


class Policy(NamedTuple):
    """The policy server of a room."""

    server: str
    key: VerifyKey


def of_content(content: Json) -> Policy | None:
    """Return the policy server that an m.room.policy event names; None if it is not valid."""
    server, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not identifiers.is_server_name(server) or not isinstance(key, str):
        return None
    try:
        return Policy(server, signing.verify_key_from_base64(key))
    except ValueError:
        return None


def applies_to(event_type: str, state_key: str | None) -> bool:
    """Return whether a policy server checks such an event: all but the one that names it."""
    return (event_type, state_key) != POLICY


def is_approved(event: Event, policy: Policy) -> bool:
    """Return whether an event has a valid signature of the policy server, if it needs one."""
    if not applies_to(event.type, event.state_key):
        return True
    try:
        signing.verify_event(event.pdu, event.version, policy.server, KEY_ID, policy.key)
    except SignatureError:
        return False
    return True


def with_signature(event: Event, policy: Policy, answer: object) -> Event:
    """Return the event with the signature of a response, beside the others of the same server.

    Raises ValueError unless it is valid.
    """
    by_key = answer.get(policy.server) if isinstance(answer, dict) else None
    signature = by_key.get(KEY_ID) if isinstance(by_key, dict) else None
    if not (isinstance(signature, str) and signature):
        raise ValueError(f"{policy.server} has not signed the event")
    signatures = event.pdu["signatures"]
    others = signatures.get(policy.server, {})
    signatures = {**signatures, policy.server: {**others, KEY_ID: signature}}
    signed = Event(event.event_id, {**event.pdu, "signatures": signatures}, event.version)
    if not is_approved(signed, policy):
        raise ValueError(f"{policy.server} has signed the event with another key than its room has")
    return signed
