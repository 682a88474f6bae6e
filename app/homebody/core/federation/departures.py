"""Leaves from rooms that this server is not in: rejected invites, and knocks taken back.

The user has left at once, whatever other servers do (timeline/outside_rooms.py). The leave is sent
later, by a server that is in the room, and again until one takes it: else the user would be shown
as invited for ever.

Spec: server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

import logging
import time
from typing import Final

from homebody.core.events import state
from homebody.core.federation import asking, remote_templates
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec.events import Json
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

MAX_BYTES: Final = 64 * 1024


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
            if version == "v1" or not asking.is_unknown_endpoint(error):
                raise
        else:
            return
