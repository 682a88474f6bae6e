"""Joins, leaves and knocks that servers outside of a room send to this one, which is in it.

This server checks the event as it would any other, stores it, and sends it to the servers in the
room on behalf of the sender's.

Spec: server-server-api#joining-rooms, server-server-api#restricted-rooms,
server-server-api#knocking-rooms, server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

from typing import Final

from homebody import errors
from homebody.core.events import state
from homebody.core.events.client_events import STRIPPED_STATE
from homebody.core.federation import pdus, policy_servers, templates
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received, Refused
from homebody.core.profiles import profiles
from homebody.core.rooms import membership
from homebody.core.timeline import receiving, sent_events
from homebody.core.timeline.limits import TooLongError
from homebody.core.timeline.receiving import MissingEventsError
from homebody.models.events import ACCEPTED
from homebody.outside.federation import FederationClient
from homebody.runtime.locks import Locks
from homebody.spec import canonical_json, identifiers, room_state, signing
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import RoomVersion
from homebody.storage.database import Database, Reader, Tx

SECONDS_TO_RESOLVE: Final = 0.1
"""For the state of an event, while nobody else may write."""
RETRY_AFTER_MS: Final = 5_000


def accept(
    db: Database,
    client: FederationClient,
    keys: ServerKeys,
    locks: Locks,
    origin: str,
    room_id: str,
    event_id: str,
    pdu: Json,
    kind: str,
) -> Event:
    """Store a membership event of another server's user, and send it on; return it as stored.

    `kind` is join, leave or knock. The event may come again: it is stored once.
    Raises M_INVALID_PARAM for another event than such a one, M_FORBIDDEN if the room's rules refuse
    it, M_NOT_FOUND, M_LIMIT_EXCEEDED if the state before it takes long to resolve, and what
    `membership.check_condition` raises. Waits for keys, the room, and its policy server.
    """
    with db.read() as tx:
        templates.check_may_take_part(tx, origin, room_id)
        templates.check_knows_member(tx, room_id, str(pdu.get("sender")), kind)
        version = state.version(tx, room_id)
        pdu = _authorised(tx, room_id, _checked(origin, room_id, pdu, kind), version)
    (received,) = pdus.receive(keys, [(pdu, version)])
    if isinstance(received, Refused):
        raise errors.invalid_param(received.problem)
    if received.event.event_id != event_id:
        raise errors.invalid_param(f"The event's id is {received.event.event_id}")
    if received.event.content != pdu["content"]:
        raise errors.invalid_param("The content hash of the event does not match")
    (received,) = policy_servers.screen(db, client, room_id, [received])
    with locks.own("room", room_id), db.write() as tx:
        tx.seconds_to_resolve = SECONDS_TO_RESOLVE
        templates.check_may_take_part(tx, origin, room_id)
        try:
            _store(tx, received)
        except TooLongError:  # it does not follow what the room ends with, as a template does
            raise errors.limit_exceeded(RETRY_AFTER_MS) from None
    return received.event


def preview(tx: Reader, room_id: str) -> list[Json]:
    """Return what a user who knocks, or is invited, learns of a room: PDUs, m.room.create first."""
    found = state.current_many(tx, room_id, STRIPPED_STATE)
    return [found[key].pdu for key in STRIPPED_STATE if key in found]


def _checked(origin: str, room_id: str, pdu: Json, kind: str) -> Json:
    """Return the PDU if it is what the path says. Raises M_INVALID_PARAM."""
    sender, content = pdu.get("sender"), pdu.get("content")
    if not identifiers.is_user_id(sender) or identifiers.server_name(sender) != origin:
        raise errors.invalid_param("The sender of the event is not a user of your server")
    if pdu.get("type") != state.MEMBER or pdu.get("state_key") != sender:
        raise errors.invalid_param("This is not the member event of its sender")
    if pdu.get("room_id") != room_id:
        raise errors.invalid_param("The event is of another room")
    if not isinstance(content, dict) or content.get("membership") != kind:
        raise errors.invalid_param(f"The membership of the event is not {kind}")
    return pdu


def _authorised(tx: Reader, room_id: str, pdu: Json, version: RoomVersion) -> Json:
    """Return the PDU, signed by this server if its user authorises a restricted join."""
    authoriser = pdu["content"].get(profiles.AUTHORISER)
    is_join = pdu["content"]["membership"] == "join"
    if not is_join or not version.may_restrict_joins or not isinstance(authoriser, str):
        return pdu
    if room_state.domain_of(authoriser) != tx.server.name:
        return pdu
    if state.membership_of(tx, room_id, pdu["sender"]) not in {"join", "invite"}:
        membership.check_condition(tx, room_id, pdu["sender"])
    try:
        canonical_json.check(pdu, is_strict=version.is_canonical_json_strict)
        return signing.sign_event(pdu, version, tx.server.name, tx.server.signing_key)
    except ValueError as problem:
        raise errors.invalid_param(str(problem)) from None


def _store(tx: Tx, received: Received) -> None:
    """Store an event of another server's user and send it on, unless that has been done."""
    event = received.event
    known = state.find_any(tx, event.event_id)
    before = sent_events.before_any(tx, event)
    try:
        standing = receiving.receive(tx, *received)
    except MissingEventsError:
        raise errors.unknown("This server does not have the events that this one follows") from None
    if standing != ACCEPTED:  # raising undoes the write
        raise errors.forbidden("The rules of the room do not allow this")
    if known is None or known.standing != ACCEPTED:
        stored = state.find_any(tx, event.event_id)
        if stored is not None and stored.position is not None:
            place = (stored.number, stored.position)
            sent_events.send(tx, event, received.encoded, place, before)
    elif state.membership_of(tx, event.room_id, event.sender) != event.content["membership"]:
        raise errors.forbidden("The membership has changed since")
