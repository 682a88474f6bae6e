"""POST /sync of simplified sliding sync, in the unstable form that Element X requests.

A `pos` identifies the state of a connection; see core/sliding_sync/connections.py.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from flask import Blueprint, request

from homebody.client_server import http, sync
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.encryption import to_device
from homebody.core.ephemeral import presence
from homebody.core.sliding_sync import extensions as sliding_extensions
from homebody.core.sliding_sync import response
from homebody.core.sliding_sync.connections import ConnectionState
from homebody.core.sliding_sync.requests import Extensions, SlidingSyncRequest
from homebody.core.sync.spans import SyncToken
from homebody.spec.events import Json
from homebody.storage.caches import Requester

bp = Blueprint("sliding_sync", __name__)


@dataclass(slots=True)
class _Search:
    """Looks for changes until there are some; each look starts where the last one ended."""

    me: Requester
    request: SlidingSyncRequest
    inbox_token: int
    state: ConnectionState

    def look(self) -> tuple[Json, bool]:
        """Return (response without `pos`, whether it has changes), and update `state`."""
        ephemeral = homeserver.ephemeral
        upto = ephemeral.position
        with homeserver.database.read() as tx:
            found = response.rooms(tx, self.me, self.request, self.state)
            extensions = sliding_extensions.load(
                tx, self.me, self.request, self.state, found, ephemeral, self.inbox_token
            )
        is_recounted = found.state.lists != self.state.lists
        self.state = dataclasses.replace(
            found.state, ephemeral=upto, extension_rooms=extensions.rooms
        )
        body = {"lists": self.state.lists, "rooms": found.rooms, "extensions": extensions.body}
        return body, extensions.has_changes or is_recounted or bool(found.rooms)


@bp.post("/org.matrix.simplified_msc3575/sync")
@authenticated(suspended=True, only_reads=True)
def sliding_sync() -> Json:
    """Return the changes in the client's windows, waiting up to `timeout` ms for some."""
    wanted = http.body_as(SlidingSyncRequest, max_bytes=http.MAX_LARGE_BODY_BYTES)
    wanted.check()
    timeout_ms = http.query_integer("timeout", 0, cap=sync.MAX_TIMEOUT_MS)
    set_presence = http.query_choice("set_presence", presence.STATES, "online")
    me = requester()
    key = (me.user_id, me.device_id, wanted.conn_id)
    pos = request.args.get("pos")
    connections = homeserver.sliding_connections
    state = connections.get(key, pos) if pos else connections.begin(key)
    search = _Search(me, wanted, _acknowledge(me, wanted.extensions), state)
    with presence.syncing(homeserver.ephemeral, me.user_id, me.device_id, set_presence):
        body, _ = sync.wait_for(
            me.user_id, timeout_ms if pos else 0, search.look, lambda found: found[1]
        )
    body["pos"] = connections.add(key, search.state, after=pos)
    # No `txn_id`, though some clients send one: Element X up to 2025 takes it in a response as a
    # promise that the server remembers its room_subscriptions, and stops sending them
    return body


def _acknowledge(me: Requester, wanted: Extensions) -> int:
    """Delete the to-device messages that the device has received; return their position."""
    since = wanted.to_device.since
    if not wanted.to_device.enabled or not since:
        return 0
    with homeserver.database.read() as tx:
        position = SyncToken.parse(since, tx.position).position
        is_due = to_device.has_acknowledged_messages(tx, me.user_id, me.device_id, position)
    if is_due:
        to_device.acknowledge_if_possible(homeserver.database, me.user_id, me.device_id, position)
    return position
