"""Rooms as other servers may know them: which servers are in a room, and what they may read of it.

A server may read a room while one of its users is joined, unless the room's ACL denies it. Of what
its users could not read by the history visibility, it gets the redacted form, as it needs the event
graph whole.

Spec: server-server-api#retrieving-events
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import orjson
from sqlalchemy import Select, bindparam, func, select

from homebody import errors
from homebody.core import partial_rooms
from homebody.core.events import auth_chains, state, visibility
from homebody.core.events.history_visibility import DEFAULT, SETTINGS, VISIBILITY
from homebody.core.events.state import AnyRow
from homebody.core.federation import server_acls
from homebody.core.timeline import forks
from homebody.core.timeline.forks import Point
from homebody.models.events import HISTORY, REJECTED, StoredEvent
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec import events
from homebody.spec.events import Json
from homebody.spec.room_state import domain_of
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import batches, in_effect, listed

MAX_SERVERS: Final = 1000
NEAR_EVENTS: Final = 50
"""Looked at to find the one nearest to a time that a server may read."""
PDUS_AT_ONCE: Final = 200
IDS_AT_ONCE: Final = 2000

COLUMNS: Final = (
    *state.EVENT_COLUMNS,
    StoredEvent.position,
    StoredEvent.standing,
    StoredEvent.type,
    StoredEvent.state_key,
    StoredEvent.sender,
)
"""What `shown` needs of a row."""
_BY_ID = select(*COLUMNS)
_EVENT = _BY_ID.where(
    StoredEvent.event_id == bindparam("event_id"), StoredEvent.standing != REJECTED
)
_numbers = listed("numbers")
_IS_WANTED = StoredEvent.number.in_(select(_numbers.c.value))
_PDUS = select(StoredEvent.pdu).where(_IS_WANTED)
_IDS = select(StoredEvent.event_id).where(_IS_WANTED)
_MEMBERS = select(StateInterval.state_key, StateInterval.membership).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    in_effect(StateInterval, bindparam("position")),
    StateInterval.from_position >= bindparam("least"),
    StateInterval.membership.in_(("join", "invite")),
    func.substr(StateInterval.state_key, bindparam("offset")) == bindparam("ending"),
)


def _near(*, is_backwards: bool) -> Select[*tuple[Any, ...]]:
    ts, position = StoredEvent.origin_server_ts, StoredEvent.position
    return (
        _BY_ID.add_columns(ts)
        .where(
            StoredEvent.room_id == bindparam("room_id"),
            position.is_not(None),
            ts <= bindparam("ts") if is_backwards else ts >= bindparam("ts"),
        )
        .order_by(*((ts.desc(), position.desc()) if is_backwards else (ts, position)))
        .limit(NEAR_EVENTS)
    )


_NEAR = {is_backwards: _near(is_backwards=is_backwards) for is_backwards in (False, True)}


def servers(tx: Reader, room_id: str) -> list[str]:
    """Return the servers with joined users, at most MAX_SERVERS: this one, then the largest."""
    found = state.joined(tx, room_id).servers
    return sorted(found, key=lambda it: (it != tx.server.name, -found[it], it))[:MAX_SERVERS]


def is_in_room(tx: Reader, room_id: str, server_name: str) -> bool:
    """Return whether a server has a joined user in the room."""
    return server_name in state.joined(tx, room_id).servers


def check_may_read(tx: Reader, room_id: str, server_name: str) -> None:
    """Raise M_FORBIDDEN unless the server is in the room and its ACL allows it.

    Also for a room that is not known, so that no server learns which rooms there are.
    """
    if not is_in_room(tx, room_id, server_name):
        raise errors.forbidden("Your server is not in this room")
    server_acls.check(tx, room_id, server_name)


def event(tx: Reader, server_name: str, event_id: str, room_id: str | None = None) -> AnyRow:
    """Return the row of an event that was not rejected, for a server that may read its room.

    Raises M_NOT_FOUND, M_FORBIDDEN.
    """
    if room_id is not None:
        check_may_read(tx, room_id, server_name)
    row: AnyRow | None = tx.sql.execute(_EVENT, {"event_id": event_id}).first()
    if row is None or room_id not in {None, row.room_id}:
        raise errors.not_found(f"This server does not have the event {event_id}")
    if room_id is None:
        check_may_read(tx, row.room_id, server_name)
    return row


def shown(tx: Reader, server_name: str, row: AnyRow) -> orjson.Fragment:
    """Return a PDU as the server may know it: redacted if its users may not read it."""
    if is_visible(tx, server_name, row):
        return orjson.Fragment(row.pdu)
    pdu = events.redact(orjson.loads(row.pdu), state.version(tx, row.room_id))
    return orjson.Fragment(orjson.dumps(pdu))


def is_visible(tx: Reader, server_name: str, row: AnyRow) -> bool:
    """Return whether any user of a server, which is in the room, may read an event.

    State events are, as they are part of the room's state, which its servers know. Messages and
    profiles of erased users are not.
    """
    is_own = (row.type, row.state_key) == (state.MEMBER, row.sender)
    if (row.state_key is None or is_own) and row.sender in visibility.erased(tx):
        return False
    if row.state_key is not None:
        return True
    is_old = row.standing == HISTORY
    before = Point(row.position - 1, {}) if is_old else forks.before_event(tx, row.event_id)
    if before is None:
        return False
    found = forks.events(tx, row.room_id, before, [VISIBILITY]).get(VISIBILITY)
    setting = None if found is None else found.content.get("history_visibility")
    if setting not in SETTINGS:
        setting = DEFAULT
    if setting in {"shared", "world_readable"}:
        return True
    wanted = {"join"} if setting == "joined" else {"join", "invite"}
    if not is_old and server_name in partial_rooms.servers_in_room(tx, row.room_id):
        return True  # its users are not known yet
    # of members who were there when this server joined, it is not known since when they were
    least = 1 if is_old else 0
    return not wanted.isdisjoint(_memberships(tx, row.room_id, server_name, before, least))


def _memberships(
    tx: Reader, room_id: str, server_name: str, point: Point, least: int
) -> Iterator[str]:
    """Yield the memberships of the server's users, as far as they are joined or invited.

    `least`: the position at which those on the clock have begun at the earliest.
    """
    ending = f":{server_name}"
    asked = {"room_id": room_id, "position": point.at, "least": least}
    for row in tx.sql.execute(_MEMBERS, {**asked, "offset": -len(ending), "ending": ending}):
        is_current = (state.MEMBER, row.state_key) not in point.overlay
        if is_current and domain_of(row.state_key) == server_name:
            yield row.membership
    differing = [
        key for key in point.overlay if key[0] == state.MEMBER and domain_of(key[1]) == server_name
    ]
    for member in forks.events(tx, room_id, point, differing).values():
        yield str(member.content["membership"])


def near(
    tx: Reader, server_name: str, room_id: str, ts: int, *, is_backwards: bool
) -> tuple[str, int]:
    """Return (event ID, origin_server_ts) of the nearest event that the server may read.

    Raises M_NOT_FOUND, M_FORBIDDEN.
    """
    check_may_read(tx, room_id, server_name)
    rows = tx.sql.execute(_NEAR[is_backwards], {"room_id": room_id, "ts": ts})
    for row in rows:
        if is_visible(tx, server_name, row):
            return row.event_id, row.origin_server_ts
    raise errors.not_found("There is no event in this direction")


def state_before(tx: Reader, row: AnyRow) -> set[int]:
    """Return the numbers of the state events before an event.

    Raises M_NOT_FOUND where they are not known.
    """
    before = forks.before_event(tx, row.event_id)
    if before is None or partial_rooms.is_partial(tx, row.room_id):
        raise errors.not_found("This server does not know the state before this event")
    return set(forks.whole(tx, row.room_id, before).values())


def auth_chain(tx: Reader, room_id: str, numbers: Collection[int]) -> set[int]:
    """Return the numbers of the auth events of state events, recursively.

    Those of the events themselves that others cite are among them.
    """
    chain = auth_chains.chain(tx, room_id, numbers)
    if state.version(tx, room_id).has_privileged_creators:  # whose events don't cite their create
        create = set(auth_chains.numbers_of(tx, ["$" + room_id[1:]]).values())
        if set(numbers) - create:
            chain |= create
    return chain


def auth_chain_of(tx: Reader, row: AnyRow) -> set[int]:
    """Return the numbers of the auth chain of an event of any kind."""
    cited = state.event_of(tx, row).auth_event_ids
    numbers = set(auth_chains.numbers_of(tx, cited).values())
    return numbers | auth_chain(tx, row.room_id, {*numbers, row.number})


def ids(tx: Reader, numbers: Collection[int]) -> list[str]:
    """Return the event IDs of these numbers."""
    found: list[str] = []
    for some in tx.pausing(batches(numbers, IDS_AT_ONCE), every=1):
        found += tx.sql.execute(_IDS, {"numbers": some}).scalars()
    return found


def encoded(db: Database, fields: Json, lists: Mapping[str, Collection[int]]) -> Iterator[bytes]:
    """Yield a JSON object with some fields and with lists of PDUs, given by their numbers.

    In a room of 10,000 members these are 30 MB, so they are read piece by piece as they are sent.
    """
    before = orjson.dumps(fields)[:-1] + (b"," if fields else b"")
    for name, numbers in lists.items():
        yield before + orjson.dumps(name) + b":["
        before = b""
        for some in batches(numbers, PDUS_AT_ONCE):
            with db.read() as tx:
                pdus = tx.sql.execute(_PDUS, {"numbers": some}).scalars().all()
            if pdus:  # they may be purged meanwhile
                yield before + ",".join(pdus).encode()
                before = b","
            event_loop.pause()
        before = b"],"
    yield b"]}"
