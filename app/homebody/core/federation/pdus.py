"""PDUs from other servers: from JSON to events whose form, hash and signatures are right.

Nothing here looks at rooms or their rules, so it runs before any lock is taken. Keys that are not
known yet are fetched for all PDUs at once.
Spec: server-server-api#checks-performed-on-receipt-of-a-pdu (steps 1 to 3)
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from homebody.core.federation.keys import KeyName, KnownKey, ServerKeys
from homebody.runtime import event_loop
from homebody.spec import events, received_pdus, signing
from homebody.spec.events import Event
from homebody.spec.room_versions import RoomVersion
from homebody.spec.signing import SignatureError, VerifyKey

LOG = logging.getLogger(__name__)

KEYS_WITHIN_SECONDS: Final = 10.0
PDUS_BETWEEN_PAUSES: Final = 10


class Received(NamedTuple):
    """An event whose signatures and hash were checked, and its PDU in canonical JSON."""

    event: Event
    encoded: bytes


class Refused(NamedTuple):
    """A PDU that this server drops."""

    event_id: str | None
    """None where it is too malformed to have one."""
    problem: str
    event: Event | None = None
    """The event, if only its signatures are missing or wrong."""


def receive(
    keys: ServerKeys, pdus: Iterable[tuple[Any, RoomVersion]], *, is_limited: bool = True
) -> list[Received | Refused]:
    """Return the outcome for each PDU, in their order. Fetches keys: never within a transaction.

    `is_limited`: see spec/received_pdus.py.
    """
    parsed = [_parse(pdu, version, is_limited=is_limited) for pdu, version in pdus]
    wanted: dict[KeyName, int] = {}
    for event in parsed:
        if isinstance(event, Event):
            for name, at_ts in received_pdus.wanted_keys(event).items():
                wanted[name] = max(wanted.get(name, 0), at_ts)
    known = keys.many(wanted, KEYS_WITHIN_SECONDS)
    found: list[Received | Refused] = []
    for count, event in enumerate(parsed):
        if count and count % PDUS_BETWEEN_PAUSES == 0:
            event_loop.pause()
        found.append(_verify(event, known) if isinstance(event, Event) else event)
    return found


def of_room(found: Iterable[Received | Refused], room_id: str) -> list[Received]:
    """Return the events of a room among what another server sent, each once."""
    received: dict[str, Received] = {}
    for it in found:
        if isinstance(it, Refused):
            LOG.info("dropped the event %s: %s", it.event_id, it.problem)
        elif it.event.room_id != room_id:
            LOG.info("dropped the event %s: it belongs to another room", it.event.event_id)
        else:
            received.setdefault(it.event.event_id, it)
    return list(received.values())


def _parse(pdu: Any, version: RoomVersion, *, is_limited: bool) -> Event | Refused:
    try:
        return received_pdus.receive(pdu, version, is_limited=is_limited)
    except ValueError as problem:
        return Refused(event_id_of(pdu, version), str(problem))


def event_id_of(pdu: Any, version: RoomVersion) -> str | None:
    """Return the id of a malformed PDU, if it has one: the sender wants to know which it was."""
    try:
        event_id = signing.event_id_of(pdu, version)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return event_id if isinstance(event_id, str) else None


def _verify(event: Event, known: Mapping[KeyName, KnownKey]) -> Received | Refused:
    def find(server_name: str, key_id: str, at_ts: int) -> VerifyKey | None:
        found = known.get((server_name, key_id))
        return found.key if found is not None and found.is_valid_at(at_ts) else None

    try:
        received_pdus.verify(event, find)
    except SignatureError as problem:
        return Refused(event.event_id, str(problem), event)
    return Received(event, events.encode(event.pdu, event.version))
