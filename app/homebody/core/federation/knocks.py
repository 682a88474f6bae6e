"""Knocks of users of this server on rooms that it is not in.

Spec: server-server-api#knocking-rooms
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from homebody import errors
from homebody.core.events import stripped_state
from homebody.core.federation import asking, invites, joins, remote_templates
from homebody.core.federation.joins import JoinRequest
from homebody.core.rooms import blocked, membership
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec.events import Event
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

MAX_BYTES: Final = 512 * 1024
WITHIN_S: Final = 40.0
"""No further server is asked after that."""


def knock(db: Database, client: FederationClient, request: JoinRequest) -> None:
    """Knock by way of the first server that takes it. Waits for other servers.

    Raises M_FORBIDDEN for a blocked room, what other servers say (M_FORBIDDEN, M_NOT_FOUND and
    others), or as `asking.error_of`.
    """
    with db.read() as tx:
        blocked.check(tx, request.room_id)
    problems: list[MatrixError] = []
    until = time.monotonic() + WITHIN_S
    for server in request.servers:
        if problems and time.monotonic() > until:
            break
        try:
            event, shown = _knock_by(db, client, server, request)
        except RemoteError as error:
            LOG.info("%s can't knock on %s: %s", request.user_id, request.room_id, error)
            problems.append(joins.error_of(server, error))
        else:
            _store(db, event, shown, request.servers)
            return
    if not problems:
        raise errors.not_found("No server is known that is in the room")
    raise min(problems, key=joins.rank)


def _knock_by(
    db: Database, client: FederationClient, server: str, request: JoinRequest
) -> tuple[Event, list[object]]:
    """Return the knock that a server has taken, and what it says of the room."""
    template = remote_templates.ask(client, server, "knock", request.room_id, request.user_id)
    now_ms = time.time_ns() // 1_000_000
    event, encoded = remote_templates.complete(db.server, template, request.content, now_ms)
    path = path_of("send_knock", request.room_id, event.event_id)
    answer = asking.put(client, server, path, encoded, max_bytes=MAX_BYTES)
    shown = answer.get("knock_room_state") if isinstance(answer, dict) else None
    return event, shown if isinstance(shown, list) else []


def _store(db: Database, event: Event, shown: list[object], servers: Sequence[str]) -> None:
    user_id = event.sender
    with db.write() as tx:
        invites.make_room(tx, event.room_id, event.version)
        invites.put_membership(tx, event)
        stripped_state.put(tx, event.room_id, user_id, invites.shown_to_users(shown), servers)
        membership.remember(tx, event.room_id, user_id)
