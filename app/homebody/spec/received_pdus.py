"""PDUs as other servers send them: from untrusted JSON to an `Event`, and who must have signed it.

The checks that a server performs on receipt of a PDU begin here: `receive` does those of format and
content hash, which need neither keys nor a room's state; the caller fetches the `wanted_keys`,
`verify` does the signatures, and spec/event_auth.py decides about authorization.

Spec: server-server-api#checks-performed-on-receipt-of-a-pdu,
server-server-api#validating-hashes-and-signatures-on-received-events
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from homebody.spec import events, policy_servers, room_state, signing
from homebody.spec.events import Event
from homebody.spec.room_versions import RoomVersion
from homebody.spec.signing import SignatureError, VerifyKey

KeyName = tuple[str, str]
"""(server name, key ID)"""


def receive(pdu: Any, version: RoomVersion, *, is_limited: bool = True) -> Event:
    """Return the event of a PDU in a room of this version. Raises ValueError with a message.

    `is_limited`: whether the numbers of `prev_events` and `auth_events` are limited, which they are
    not in responses to /backfill. Spec: server-server-api#get_matrixfederationv1backfillroomid

    `unsigned` is removed, as anybody may have written it. If the content hash doesn't match, the
    event is redacted: the sender's signature covers no more than that. `pdu` is left unchanged.
    """
    if isinstance(pdu, dict) and "unsigned" in pdu:
        pdu = {key: member for key, member in pdu.items() if key != "unsigned"}
    events.check_format(pdu, version, is_limited=is_limited)
    if not signing.has_valid_content_hash(pdu, version):
        pdu = events.redact(pdu, version)
    return Event(signing.event_id_of(pdu, version), pdu, version)


def required_signers(event: Event) -> set[str]:
    """Return the servers whose signatures a received event needs.

    Takes the event as `receive` returned it. With the content of the PDU instead, somebody could
    add a `third_party_invite` that redaction removes, and no signature would be required.
    """
    version = event.version
    signers = set()
    is_member = event.type == "m.room.member"
    if not (is_member and _is_third_party_invite(event)):
        signers.add(room_state.domain_of(event.sender))
    if version.event_ids == "given":
        signers.add(room_state.domain_of(event.event_id))
    if is_member and version.may_restrict_joins and event.content.get("membership") == "join":
        authoriser = event.content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):  # the authorization rules reject anything else
            signers.add(room_state.domain_of(authoriser))
    return signers


def wanted_keys(event: Event) -> dict[KeyName, int]:
    """Return {key: the time in ms at which it has to be valid, 0 for any} of the signatures.

    For a batch of events, whose keys are fetched together. Only the required signatures count.
    """
    at_ts = _valid_at(event)
    return {
        (server_name, key_id): at_ts
        for server_name in required_signers(event)
        for key_id in _key_ids(event, server_name)
    }


def verify(event: Event, find_key: Callable[[str, str, int], VerifyKey | None]) -> None:
    """Raise SignatureError unless the event has all signatures that it needs.

    `find_key(server_name, key_id, at_ts)` returns a key if it is known and valid at that time.
    Signatures by other keys are skipped; all others must be valid, and each server needs one.
    """
    at_ts = _valid_at(event)
    for server_name in sorted(required_signers(event)):
        is_signed = False
        for key_id in _key_ids(event, server_name):
            key = find_key(server_name, key_id, at_ts)
            if key is not None:
                signing.verify_event(event.pdu, event.version, server_name, key_id, key)
                is_signed = True
        if not is_signed:
            raise SignatureError(f"No signature of {server_name} by a known key")


def _key_ids(event: Event, server_name: str) -> list[str]:
    """Return the keys by which a server has signed; that of a policy server is never published."""
    found = signing.key_ids(event.pdu, server_name)
    return [it for it in found if it != policy_servers.KEY_ID]


def _valid_at(event: Event) -> int:
    return event.origin_server_ts if event.version.enforces_key_validity else 0


def _is_third_party_invite(event: Event) -> bool:
    """Return whether another server than the sender's may have sent this invite.

    The authorization rules verify the signature of the identity server in it.
    """
    is_invite: bool = event.content.get("membership") == "invite"
    return is_invite and "third_party_invite" in event.content
