"""Invites of users of this server to rooms that it is not in, and what ends them from outside.

The auth events of such an invite are not known, so it is stored out of band, with the stripped
state that came with it. A later join makes it part of the room.

Spec: server-server-api#inviting-to-a-room, client-server-api#stripped-state,
client-server-api#invite-permission
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from homebody import errors
from homebody.core.appservices import transactions
from homebody.core.events import client_events, state, stripped_state
from homebody.core.federation import pdus, server_acls
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Refused
from homebody.core.push import counts
from homebody.core.rooms import blocked, membership
from homebody.core.timeline import current_state, joined_rooms, store
from homebody.errors import MatrixError
from homebody.models.events import OUT_OF_BAND
from homebody.spec import events, identifiers, room_state, signing
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

MAX_STRIPPED: Final = 100
"""Events of the stripped state that are kept."""
MAX_STRIPPED_BYTES: Final = 256 * 1024
"""The same for their JSON; the last ones are left out."""
STRIPPED_KEYS: Final = {"type": str, "state_key": str, "sender": str, "content": dict}
ENDS: Final = frozenset({"leave", "ban"})


class Invites:
    """Takes in invites, and what ends them. Its methods wait for keys."""

    def __init__(self, db: Database, keys: ServerKeys) -> None:
        self._db = db
        self._keys = keys

    def receive(
        self,
        origin: str,
        room_id: str,
        event_id: str,
        version_name: str,
        pdu: Json,
        stripped: Sequence[Any],
    ) -> Json:
        """Store an invite of a local user, and return its PDU with the signature of this server.

        In a room that this server is in, the event comes again as any other: it is only signed.
        Raises M_INCOMPATIBLE_ROOM_VERSION, M_INVALID_PARAM for another event than an invite of a
        local user by one of the other server, M_INVITE_BLOCKED.
        """
        if version_name not in VERSIONS:
            raise errors.incompatible_room_version(version_name)
        version = VERSIONS[version_name]
        _check_form(self._db.server.name, origin, room_id, pdu)
        (received,) = pdus.receive(self._keys, [(pdu, version)])
        if isinstance(received, Refused):
            raise errors.invalid_param(received.problem)
        event = received.event
        if event.event_id != event_id or event.content != pdu["content"]:
            raise errors.invalid_param(f"The event is {event.event_id}, or its hash does not match")
        shown = self._checked(event, stripped)
        server = self._db.server
        signed = signing.sign_event(event.pdu, version, server.name, server.signing_key)
        user_id = event.state_key or ""
        with self._db.write() as tx:
            blocked.check(tx, room_id)
            membership.check_not_blocked(tx, event.sender, user_id)
            if not server_acls.allows(tx, room_id, origin):
                raise errors.forbidden("The room's m.room.server_acl denies your server")
            if not joined_rooms.is_resident(tx, room_id):
                make_room(tx, room_id, version)
                put_membership(tx, Event(event_id, signed, version))
                stripped_state.put(tx, room_id, user_id, shown, [origin])
                membership.remember(tx, room_id, user_id)
        return signed

    def receive_end(self, origin: str, pdu: Json) -> None:
        """Take in the end of an invite or knock, from a server that this one shares no room with.

        Other events are ignored.
        """
        with self._db.read() as tx:
            version = _version_if_end(tx, origin, pdu)
        if version is None:
            return
        (received,) = pdus.receive(self._keys, [(pdu, version)])
        if isinstance(received, Refused):
            LOG.info("the end of an invite by %s is dropped: %s", origin, received.problem)
            return
        event = received.event
        with self._db.write() as tx:
            if _version_if_end(tx, origin, event.pdu) is not None and _follows(tx, event):
                put_membership(tx, event)
                stripped_state.remove(tx, event.room_id, event.state_key or "")

    def _checked(self, event: Event, stripped: Sequence[Any]) -> list[Json]:
        """Return the stripped state, of which only some room versions say how to check it.

        Raises M_INVALID_PARAM.
        """
        if len(stripped) > MAX_STRIPPED:
            raise errors.invalid_param(f"invite_room_state has more than {MAX_STRIPPED} events")
        if not event.version.has_privileged_creators:
            return shown_to_users(stripped)
        checked = pdus.receive(self._keys, [(it, event.version) for it in stripped])
        found = []
        for it in checked:
            if isinstance(it, Refused):
                raise errors.invalid_param(f"invite_room_state: {it.problem}")
            if it.event.room_id != event.room_id or it.event.state_key is None:
                raise errors.invalid_param("invite_room_state has an event of another room")
            found.append(it)
        if not any(it.event.type == room_state.CREATE[0] for it in found):
            raise errors.invalid_param("invite_room_state has no m.room.create event")
        return _first([client_events.stripped(it.event.pdu) for it in found])


def shown_to_users(stripped: Sequence[Any]) -> list[Json]:
    """Return those of the events that are valid, with nothing but what users see of them."""
    return _first(
        client_events.stripped(it)
        for it in stripped[:MAX_STRIPPED]
        if isinstance(it, dict)
        and all(isinstance(it.get(key), kind) for key, kind in STRIPPED_KEYS.items())
    )


def _first(shown: Iterable[Json]) -> list[Json]:
    """Return the first events that have MAX_STRIPPED_BYTES in all."""
    found, left = [], MAX_STRIPPED_BYTES
    for event in shown:
        left -= len(orjson.dumps(event))
        if left < 0:
            break
        found.append(event)
    return found


def put_membership(tx: Tx, event: Event) -> None:
    """Make an event the membership of a local user in a room that this server is not in."""
    encoded = events.encode(event.pdu, event.version)
    number = store.set_aside(tx, event, encoded, OUT_OF_BAND, None)
    key = (state.MEMBER, event.state_key or "")
    position = tx.next_position()
    current_state.apply(tx, event.room_id, {key: (number, event)}, position)
    counts.count(tx, event, position, None)
    if tx.server.appservices.all:
        transactions.note(tx, event, number)


def _check_form(own_name: str, origin: str, room_id: str, pdu: Json) -> None:
    """Raise M_INVALID_PARAM unless this is an invite of a local user by one of the other server."""
    sender, target, content = pdu.get("sender"), pdu.get("state_key"), pdu.get("content")
    if not identifiers.is_user_id(sender) or identifiers.server_name(sender) != origin:
        raise errors.invalid_param("The sender of the event is not a user of your server")
    if not identifiers.is_user_id(target) or identifiers.server_name(target) != own_name:
        raise errors.invalid_param(f"The event does not invite a user of {own_name}")
    if pdu.get("type") != state.MEMBER or not isinstance(content, dict):
        raise errors.invalid_param("This is not a member event")
    if content.get("membership") != "invite":
        raise errors.invalid_param("The membership of the event is not invite")
    if pdu.get("room_id") != room_id:
        raise errors.invalid_param("The event is of another room")


def make_room(tx: Tx, room_id: str, version: RoomVersion) -> None:
    """Add a room that is not known, or correct the version of one that was never joined."""
    try:
        known = state.version(tx, room_id)
    except MatrixError:
        store.add_room(tx, room_id, state.RoomHead(version.name, [], 0))
        return
    if known != version:
        if state.current(tx, room_id, *room_state.CREATE) is not None:
            raise errors.invalid_param(f"The room has version {known.name}")
        store.begin_anew(tx, room_id, version.name)


def _version_if_end(tx: Reader, origin: str, pdu: Json) -> RoomVersion | None:
    """Return the room's version if a PDU may be the end of an invite or knock of a local user.

    An invite is taken back by its sender's server, a knock refused by any in the room. Which of the
    server's users may do so only the room's members know, but it vouches for all of them: it could
    as well sign as the sender of the invite.
    """
    room_id, user_id, sender = (str(pdu.get(key)) for key in ("room_id", "state_key", "sender"))
    content = pdu.get("content")
    is_end = isinstance(content, dict) and content.get("membership") in ENDS
    if not is_end or pdu.get("type") != state.MEMBER or not tx.server.is_local(user_id):
        return None
    known = state.current(tx, room_id, state.MEMBER, user_id)
    if known is None or joined_rooms.is_resident(tx, room_id):
        return None
    by = {"invite": room_state.domain_of(known.sender), "knock": origin}
    is_by_origin = by.get(known.content["membership"]) == origin == room_state.domain_of(sender)
    return state.version(tx, room_id) if is_by_origin else None


def _follows(tx: Reader, end: Event) -> bool:
    """Return whether the event ends the user's invite or knock, not an earlier one."""
    known = state.current(tx, end.room_id, state.MEMBER, end.state_key or "")
    if known is None or known.event_id in end.auth_event_ids:
        return True
    LOG.info("%s does not end %s, as it does not cite it", end.event_id, known.event_id)
    return False
