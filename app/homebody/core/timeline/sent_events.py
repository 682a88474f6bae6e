"""Which events this server sends to others: those of its users, in rooms with users elsewhere.

The servers in a room send the events of their own users. A server that is not in the room yet, or
not any more, has another one send its user's join, leave or knock: then this one calls `send`.

Spec: server-server-api#pdus, server-server-api#joining-rooms
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from homebody.core import outgoing
from homebody.core.events import state
from homebody.spec.events import Event
from homebody.storage.database import Reader, Tx

WAITING: Final = frozenset({"invite", "knock"})
"""Memberships of users whose server need not be in the room."""


class Before(NamedTuple):
    """What an event may change about its recipients."""

    servers: AbstractSet[str]
    """The servers in the room before it, this one included."""
    membership: str | None
    """The membership that an m.room.member replaces."""


def before(tx: Tx, event: Event) -> Before | None:
    """Return what `send` needs to know from before an event of a local user is stored.

    None if the event is not sent, as where another server has sent the join by which this one comes
    into the room. Called by timeline.store alone.
    """
    if not tx.server.is_local(event.sender):
        return None
    found = before_any(tx, event)
    if found.servers and tx.server.name not in found.servers:
        return None
    return None if len(found.servers) < 2 and found.membership not in WAITING else found


def before_any(tx: Tx, event: Event) -> Before:
    """Return what `send` needs to know from before an event is stored, also of another server."""
    membership = None
    if event.type == state.MEMBER:
        membership = state.membership_of(tx, event.room_id, event.state_key or "")
    return Before(servers(tx, event.room_id), membership)


def send(tx: Tx, event: Event, encoded: bytes, place: tuple[int, int], before: Before) -> None:
    """Send a stored event to the servers in the room; `place` is its (number, position).

    Its sender's server has it. Servers that lose their last member by it get it as well, or the one
    whose user's invite it takes back.
    """
    others, also = _recipients(tx, event, before)
    if others:
        number, position = place
        outgoing.log(tx, position, number, also)
        tx.federate(position, event.room_id, encoded, others)


def _recipients(tx: Tx, event: Event, before: Before) -> tuple[AbstractSet[str], AbstractSet[str]]:
    """Return the servers that are to get an event, and those of them that are not in the room.

    This server may be among the first.
    """
    if event.type != state.MEMBER and tx.server.is_local(event.sender):
        return before.servers, frozenset()  # not copied: there may be thousands of them
    there, also = before.servers, set[str]()
    if event.type == state.MEMBER:
        there = servers(tx, event.room_id)
        also |= before.servers - there
        if before.membership in WAITING:
            also |= {_server(event.state_key or "")} - there
    has_it = {tx.server.name, _server(event.sender)}
    also -= has_it
    return (there | also) - has_it, also


def servers(tx: Reader, room_id: str) -> AbstractSet[str]:
    """Return the servers that have joined users in a room."""
    return state.joined(tx, room_id).servers.keys()


def _server(user_id: str) -> str:
    return user_id.partition(":")[2]
