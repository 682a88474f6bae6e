"""Leaves from rooms that this server is not in: rejected invites, and knocks taken back.

The user has left at once, whatever other servers do. The leave is sent later, by a server that is
in the room, and again until one takes it: else the user would be shown as invited for ever.

Spec: server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from homebody.core import outbox
from homebody.core.events import state, stripped_state
from homebody.core.federation import asking, remote_templates
from homebody.core.timeline import current_state, joined_rooms
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

KIND: Final = "departure"
"""The `kind` of rows in the outbox; their destination is the room."""
MAX_BYTES: Final = 64 * 1024


def is_outside(tx: Reader, room_id: str, user_id: str) -> bool:
    """Return whether a user has an invite or knock of a room that this server is not in."""
    if state.membership_of(tx, room_id, user_id) not in {"invite", "knock"}:
        return False
    return not joined_rooms.is_resident(tx, room_id)


def leave(tx: Tx, room_id: str, user_id: str, content: Json, servers: Sequence[str]) -> None:
    """Reject an invite, or retract a knock, and tell the room later, by one of the servers."""
    position = tx.next_position()
    current_state.apply(tx, room_id, {(state.MEMBER, user_id): None}, position)
    stripped_state.remove(tx, room_id, user_id)
    leave_later(tx, room_id, user_id, servers, content)


def leave_later(
    tx: Tx, room_id: str, user_id: str, servers: Sequence[str], content: Json | None = None
) -> None:
    """Send a leave after the transaction, unless the user is in the room again by then."""
    payload = {"user_id": user_id, "servers": list(servers), "content": content or {}}
    outbox.add(tx, KIND, room_id, payload)


def send(db: Database, client: FederationClient, room_id: str, payload: Json) -> None:
    """Send a leave by the first server that takes it. Raises RemoteError to be called again."""
    user_id, problem = str(payload["user_id"]), None
    with db.read() as tx:
        if state.membership_of(tx, room_id, user_id) in {"join", "invite", "knock"}:
            return
    for server in payload["servers"]:
        try:
            _send_by(db, client, server, room_id, payload)
        except RemoteError as error:
            LOG.info("%s can't leave %s by %s: %s", user_id, room_id, server, error)
            if not _is_final(error):
                problem = error
        else:
            return
    if problem is not None:
        raise problem


def _is_final(error: RemoteError) -> bool:
    """Return whether a server says that there is nothing to leave."""
    return error.kind == "refused" or error.status in {400, 403, 404}


def _send_by(
    db: Database, client: FederationClient, server: str, room_id: str, payload: Json
) -> None:
    user_id = payload["user_id"]
    template = remote_templates.ask(client, server, "leave", room_id, user_id)
    now_ms = time.time_ns() // 1_000_000
    event, encoded = remote_templates.complete(db.server, template, payload["content"], now_ms)
    for version in ("v2", "v1"):
        path = path_of("send_leave", room_id, event.event_id, version=version)
        try:
            asking.put(client, server, path, encoded, max_bytes=MAX_BYTES)
        except RemoteError as error:
            if version == "v1" or error.errcode != "M_UNRECOGNIZED":
                raise
        else:
            return
