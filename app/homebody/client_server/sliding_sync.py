"""POST /sync of simplified sliding sync, in the unstable form that Element X asks for.

A `pos` names what its connection has been told; see core/sliding_sync/connections.py.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import msgspec
from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import http, sync
from homebody.client_server.authentication import authenticated, requester
from homebody.core.encryption import to_device
from homebody.core.ephemeral import presence
from homebody.core.sliding_sync import extensions as sliding_extensions
from homebody.core.sliding_sync import requests, response
from homebody.core.sliding_sync.requests import Extensions, RoomList, Subscription, Windows
from homebody.core.sliding_sync.sent import Told
from homebody.core.sync import tokens
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import Requester

bp = Blueprint("sliding_sync", __name__)


ListName = Annotated[str, msgspec.Meta(max_length=255)]


class Ask(msgspec.Struct):
    """The body of a request."""

    conn_id: str = ""
    lists: Annotated[dict[ListName, RoomList], msgspec.Meta(max_length=100)] = {}
    room_subscriptions: dict[str, Subscription] = {}
    extensions: Extensions = msgspec.field(default_factory=Extensions)

    def windows(self) -> Windows:
        """Which rooms it is about. Raises M_INVALID_PARAM for too many."""
        wanted = self.extensions
        scopes = (wanted.account_data, wanted.receipts, wanted.typing)
        windows = Windows(self.lists, self.room_subscriptions, scopes)
        requests.check(windows)
        return windows


@dataclass(slots=True)
class _Search:
    """Looks for news, of which there may be several; what was no news is not looked at again."""

    me: Requester
    windows: Windows
    extensions: Extensions
    inbox_token: int
    told: Told

    def look(self) -> tuple[Json, bool]:
        """(the answer without its `pos`, whether it has news); `told` is then what it tells."""
        ephemeral = context.ephemeral()
        upto = ephemeral.position
        with context.db().read() as tx:
            found = response.rooms(tx, self.me, self.windows, self.told)
            section = sliding_extensions.load(
                tx, self.me, self.extensions, self.told, found, ephemeral, self.inbox_token
            )
        is_recounted = found.told.lists != self.told.lists
        self.told = dataclasses.replace(found.told, ephemeral=upto, extended=section.extended)
        body = {"lists": self.told.lists, "rooms": found.rooms, "extensions": section.body}
        return body, section.is_news or is_recounted or bool(found.rooms)


@bp.post("/org.matrix.simplified_msc3575/sync")
@authenticated(suspended=True, only_reads=True)
def sliding_sync() -> Json:
    """What is new in the client's windows; waits up to `timeout` ms until something is."""
    ask = http.body_as(Ask, max_bytes=http.MAX_LARGE_BODY_BYTES)
    if not identifiers.has_at_most_255_bytes(ask.conn_id):
        raise errors.invalid_param("conn_id has at most 255 bytes")
    windows = ask.windows()
    timeout_ms = http.query_integer("timeout", 0, cap=sync.MAX_TIMEOUT_MS)
    mood = http.query_choice("set_presence", presence.STATES, "online")
    me = requester()
    key = (me.user_id, me.device_id, ask.conn_id)
    pos = request.args.get("pos")
    connections = context.homeserver().sliding_connections
    told = connections.get(key, pos) if pos else connections.begin(key)
    search = _Search(me, windows, ask.extensions, _acknowledge(me, ask.extensions), told)
    with presence.syncing(context.ephemeral(), me.user_id, me.device_id, mood):
        body, _ = sync.wait_for(
            me.user_id, timeout_ms if pos else 0, search.look, lambda found: found[1]
        )
    body["pos"] = connections.add(key, search.told, after=pos)
    # No `txn_id`, though some ask with one: Element X up to 2025 takes it for a promise that the
    # server remembers its room_subscriptions, and sends them no more
    return body


def _acknowledge(me: Requester, wanted: Extensions) -> int:
    """The position up to which the device has its messages; those that it has got go."""
    since = wanted.to_device.since
    if not wanted.to_device.enabled or not since:
        return 0
    with context.db().read() as tx:
        position = tokens.parse(since, tx.position).position
        is_due = to_device.is_to_acknowledge(tx, me.user_id, me.device_id, position)
    if is_due:
        to_device.acknowledge_if_possible(context.db(), me.user_id, me.device_id, position)
    return position
