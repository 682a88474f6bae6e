"""The event nearest to a time, also where only other servers have the room's history of that time.

This server has all events since it joined a room, and some from before. A time before the first of
them is a question for the servers that have been there longer.

Spec: client-server-api#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from homebody import errors
from homebody.core.events import history, state
from homebody.core.federation import asking, rooms
from homebody.core.timeline import gaps
from homebody.errors import MatrixError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec import identifiers, room_state
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader

MAX_SERVERS: Final = 3
SERVER_SECONDS: Final = 8.0
MAX_BYTES: Final = 65_536


class Near(NamedTuple):
    """An event and its origin_server_ts."""

    event_id: str
    ts: int


def near(
    db: Database,
    client: FederationClient,
    user_id: str,
    room_id: str,
    ts: int,
    *,
    is_backwards: bool,
) -> Near:
    """Return the event nearest to a time (ms), in one direction, from any server of the room.

    Raises as `history.near` does.
    """
    with db.read() as tx:
        own = _own(tx, user_id, room_id, ts, is_backwards=is_backwards)
        servers: list[str] = []
        if db.server.config.federation and _is_before_history(tx, user_id, room_id, ts):
            servers = [it for it in rooms.servers(tx, room_id) if it != tx.server.name]
    found = [] if own is None else [own]
    for server in servers[:MAX_SERVERS]:
        theirs = _ask(client, server, room_id, ts, is_backwards=is_backwards)
        if theirs is not None:
            found.append(theirs)
            break
    if not found:
        raise errors.not_found("There is no event in this direction")
    return min(found, key=lambda it: abs(it.ts - ts))


def _own(tx: Reader, user_id: str, room_id: str, ts: int, *, is_backwards: bool) -> Near | None:
    """Return the nearest of the events that this server has. Raises M_FORBIDDEN."""
    try:
        return Near(*history.near(tx, user_id, room_id, ts, is_backwards=is_backwards))
    except MatrixError as error:
        if error.errcode != "M_NOT_FOUND":
            raise
        return None


def _is_before_history(tx: Reader, user_id: str, room_id: str, ts: int) -> bool:
    """Return whether a time is before the events that this server has, and others have more."""
    create = state.current(tx, room_id, *room_state.CREATE)
    known = None if create is None else state.find_any(tx, create.event_id)
    if known is None or known.position is not None:
        return False  # the room's history begins here
    if gaps.newest(tx, room_id, 0, tx.position) is None:
        return False  # what was before is deleted, and does not come back
    return _own(tx, user_id, room_id, ts, is_backwards=True) is None


def _ask(
    client: FederationClient, server: str, room_id: str, ts: int, *, is_backwards: bool
) -> Near | None:
    """Return the event that another server says, None if it has none."""
    try:
        answer = asking.ask(
            client,
            server,
            "GET",
            path_of("timestamp_to_event", room_id),
            query={"ts": str(ts), "dir": "b" if is_backwards else "f"},
            max_bytes=MAX_BYTES,
            seconds=SERVER_SECONDS,
        )
    except MatrixError:
        return None
    return _checked(answer, ts, is_backwards=is_backwards)


def _checked(answer: Json, ts: int, *, is_backwards: bool) -> Near | None:
    """Return a response, None if it does not have an event in this direction."""
    event_id: Any = answer.get("event_id")
    found_ts: Any = answer.get("origin_server_ts")
    if not isinstance(event_id, str) or not identifiers.has_at_most_255_bytes(event_id):
        return None
    if event_id[:1] != "$" or type(found_ts) is not int:
        return None
    is_in_direction = found_ts <= ts if is_backwards else found_ts >= ts
    return Near(event_id, found_ts) if is_in_direction else None
