"""Rooms that this server is not in, but to which a user is invited, or on which one has knocked.

No event of such a room can be made here, as its state is not known. So a user who rejects an invite
has left at once, without an event; another server makes it later, as federation/departures.py asks.

Spec: server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from homebody.core import outbox
from homebody.core.events import state, stripped_state
from homebody.core.timeline import current_state, joined_rooms
from homebody.spec import identifiers, room_state
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

DEPARTURE: Final = "departure"
"""The `kind` of rows in the outbox; their destination is the room."""
MAX_SERVERS: Final = 20
WAITING: Final = frozenset({"invite", "knock"})


def is_outside(tx: Reader, room_id: str, user_id: str) -> bool:
    """Return whether a user has an invite or knock of a room that this server is not in.

    A room that its last users have left is still one of this server's.
    """
    if state.membership_of(tx, room_id, user_id) not in WAITING:
        return False
    if joined_rooms.is_resident(tx, room_id):
        return False
    comes_from_outside = stripped_state.find(tx, room_id, user_id) is not None
    return comes_from_outside or bool(state.joined(tx, room_id).servers)


def servers_for(tx: Reader, room_id: str, user_id: str, named: Sequence[str] = ()) -> list[str]:
    """Return the servers by which a user may join or leave a room, the most promising first."""
    if not tx.server.config.federation:
        return []
    found = list(named)
    own = state.current(tx, room_id, state.MEMBER, user_id)
    if own is not None and own.sender != user_id:
        found.append(room_state.domain_of(own.sender))
    known = stripped_state.find(tx, room_id, user_id)
    found += known.servers if known is not None else []
    there = state.joined(tx, room_id).servers
    found += sorted(there, key=lambda it: (-there[it], it))
    found.append(room_state.domain_of(room_id))
    valid = (it for it in found if it != tx.server.name and identifiers.is_server_name(it))
    return list(dict.fromkeys(valid))[:MAX_SERVERS]


def leave(tx: Tx, room_id: str, user_id: str, content: Json) -> None:
    """Reject an invite, or take a knock back, and have the room learn it later."""
    servers = servers_for(tx, room_id, user_id)
    position = tx.next_position()
    current_state.apply(tx, room_id, {(state.MEMBER, user_id): None}, position)
    stripped_state.remove(tx, room_id, user_id)
    leave_later(tx, room_id, user_id, servers, content)


def leave_later(
    tx: Tx, room_id: str, user_id: str, servers: Sequence[str], content: Json | None = None
) -> None:
    """Send a leave after the transaction, unless the user is in the room again by then."""
    payload = {"user_id": user_id, "servers": list(servers), "content": content or {}}
    outbox.add(tx, DEPARTURE, room_id, payload)
