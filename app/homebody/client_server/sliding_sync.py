"""POST /sync of sliding sync, as MSC4186 was merged and in the form that Element X requests.

A `pos` identifies the state of a connection; see core/sliding_sync/connections.py. The two dialects
are described in core/sliding_sync/merged.py.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from dataclasses import dataclass

from flask import Blueprint, request

from homebody.client_server import http, sync
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts.sync_connections import Key
from homebody.core.encryption import to_device
from homebody.core.ephemeral import presence
from homebody.core.sliding_sync import deployed, kept_states, merged, response
from homebody.core.sliding_sync import extensions as sliding_extensions
from homebody.core.sliding_sync.requests import Extensions, SlidingSyncRequest
from homebody.core.sliding_sync.states import ConnectionState
from homebody.core.sync.spans import SyncToken
from homebody.spec.events import Json
from homebody.storage.caches import Requester

bp = Blueprint("sliding_sync", __name__)
bp_v4 = Blueprint("sliding_sync_v4", __name__, url_prefix="/_matrix/client/v4")


@dataclass(slots=True)
class _Search:
    """Looks for changes until there are some; each look starts where the last one ended."""

    me: Requester
    request: SlidingSyncRequest
    inbox_token: int
    state: ConnectionState

    def look(self) -> tuple[Json, bool]:
        """Return (response without `pos`, whether it has changes), and update `state`."""
        is_new = self.request.digest != self.state.request_digest
        with sync.LARGE_AT_ONCE if is_new and self.request.is_wide else nullcontext():
            return self._look()

    def _look(self) -> tuple[Json, bool]:
        ephemeral = homeserver.ephemeral
        upto = ephemeral.position
        with homeserver.database.read() as tx:
            found = response.rooms(tx, self.me, self.request, self.state)
            extensions = sliding_extensions.load(
                tx, self.me, self.request, self.state, found, ephemeral, self.inbox_token
            )
        is_recounted = found.state.lists != self.state.lists
        self.state = dataclasses.replace(
            found.state,
            ephemeral=upto,
            extension_rooms=extensions.rooms,
            shows_typing=extensions.shows_typing,
        )
        translated = merged.room if self.request.is_merged else deployed.room
        rooms = {
            room_id: translated(entry, room_id, found.windows)
            for room_id, entry in found.rooms.items()
        }
        body = {"lists": self.state.lists, "rooms": rooms, "extensions": extensions.body}
        return body, extensions.has_changes or is_recounted or bool(found.rooms)


@bp.post("/org.matrix.simplified_msc3575/sync")
@authenticated(suspended=True, only_reads=True)
def sliding_sync() -> Json:
    """Return the changes in the client's windows, waiting up to `timeout` ms for some."""
    body = http.body_as(deployed.Body, max_bytes=http.MAX_LARGE_BODY_BYTES)
    timeout_ms = http.query_integer("timeout", 0, cap=sync.MAX_TIMEOUT_MS)
    set_presence = http.query_choice("set_presence", presence.STATES, "online")
    wanted = body.request(requester().user_id)
    # No `txn_id`, though some clients send one: Element X up to 2025 takes it in a response as a
    # promise that the server remembers its room_subscriptions, and stops sending them
    return _respond(wanted, request.args.get("pos"), timeout_ms, set_presence)


@bp_v4.post("/sync")
@authenticated(suspended=True, only_reads=True)
def sync_v4() -> Json:
    """Return the changes in the client's windows, waiting up to `timeout` ms for some."""
    body = http.body_as(merged.Body, max_bytes=http.MAX_LARGE_BODY_BYTES)
    wanted = body.request()
    timeout_ms = min(body.timeout, sync.MAX_TIMEOUT_MS)
    return _respond(wanted, body.pos, timeout_ms, body.set_presence)


def _respond(
    wanted: SlidingSyncRequest, pos: str | None, timeout_ms: int, set_presence: str
) -> Json:
    me = requester()
    key = (me.user_id, me.device_id, wanted.conn_id)
    state = _state(key, pos)
    search = _Search(me, wanted, _acknowledge(me, wanted.extensions), state)
    with presence.syncing(homeserver.ephemeral, me.user_id, me.device_id, set_presence):
        body, _ = sync.wait_for(
            me.user_id, timeout_ms if pos else 0, search.look, lambda found: found[1]
        )
    body["pos"] = homeserver.sliding_connections.add(key, search.state, after=pos)
    return body


def _state(key: Key, pos: str | None) -> ConnectionState:
    """Return the state of a connection at a `pos`. Raises M_UNKNOWN_POS."""
    connections = homeserver.sliding_connections
    if not pos:
        return connections.begin(key)
    if not connections.has(key):  # it may be from before a restart
        with homeserver.database.read() as tx:
            kept = kept_states.resume(tx, key, pos)
        if kept is not None:
            return connections.resume(key, pos, kept)
    return connections.get(key, pos)


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
