"""The response to a join: the state of the room before it, and the auth chain of that.

Spec: server-server-api#put_matrixfederationv2send_joinroomideventid
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import bindparam, select

from homebody.core.events import auth_chains, state
from homebody.core.federation import rooms
from homebody.core.timeline import forks
from homebody.models.base import NOW_AND_LATER
from homebody.models.state import StateInterval
from homebody.spec.events import Event, Json
from homebody.storage.database import Database, Reader

MAX_HEROES: Final = 5
NAMES: Final = (("m.room.name", ""), ("m.room.canonical_alias", ""))

_FIRST_MEMBERS = (
    select(StateInterval.event_number)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.in_(["join", "invite"]),
        StateInterval.state_key != bindparam("user_id"),
    )
    .order_by(StateInterval.from_position)
    .limit(MAX_HEROES)
)


class JoinState(NamedTuple):
    """What a server that joins is sent, as numbers of events."""

    join: Event
    state: list[int]
    auth_chain: list[int]
    servers: list[str] | None
    """The servers in the room; None: no members are left out, so these say it."""


def before(tx: Reader, join: Event, servers: list[str] | None) -> JoinState:
    """Return the state before a stored join.

    `servers` are those in the room before it, if the other server takes a state without members.
    """
    room_id = join.room_id
    point = forks.before_event(tx, join.event_id)
    entries = forks.whole(tx, room_id, point) if point is not None else {}
    if servers is not None:
        heroes = _heroes(tx, join)
        entries = {key: it for key, it in entries.items() if key[0] != state.MEMBER or it in heroes}
    held = set(entries.values())
    own = auth_chains.numbers_of(tx, join.auth_event_ids).values()
    chain = rooms.auth_chain(tx, room_id, held | set(own)) | set(own)
    if servers is not None:
        chain -= held
    return JoinState(join, sorted(held), sorted(chain), servers)


def encoded(db: Database, found: JoinState) -> Iterator[bytes]:
    """Return the response as JSON, in pieces that are read when they are sent."""
    fields: Json = {
        "origin": db.server.name,
        "event": found.join.pdu,
        "members_omitted": found.servers is not None,
    }
    if found.servers is not None:
        fields["servers_in_room"] = found.servers
    lists = {"auth_chain": found.auth_chain, "state": found.state}
    return rooms.encoded(db, fields, lists)


def _heroes(tx: Reader, join: Event) -> set[int]:
    """Return the members by whom a room without a name is called."""
    named = state.current_many(tx, join.room_id, NAMES)
    if named:
        return set()
    asked = {"room_id": join.room_id, "user_id": join.sender}
    return set(tx.sql.execute(_FIRST_MEMBERS, asked).scalars())
