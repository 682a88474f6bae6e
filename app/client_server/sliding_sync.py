"""POST /sync of simplified sliding sync, in the unstable form that Element X asks for.

A `pos` names what its connection has been told. That is kept in memory, bounded; a client with a
`pos` that is not known any more starts anew, as M_UNKNOWN_POS tells it to.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import Annotated, cast

import msgspec
from flask import Blueprint, current_app, request

from app import context, errors
from app.caches import Requester
from app.client_server import http, long_poll
from app.core.sync import presence, sliding, sliding_extensions, to_device, tokens
from app.core.sync.sliding import RoomList, Subscription, Told
from app.core.sync.sliding_extensions import Extensions
from app.spec.events import Json

bp = Blueprint("sliding_sync", __name__)

MAX_CONNECTIONS = 500
KEPT = 3
"""Positions of a connection: before and after the last answer, and one that may be on its way."""

Key = tuple[str, str, str]
Name = Annotated[str, msgspec.Meta(max_length=255)]


class Ask(msgspec.Struct):
    """The body of a request."""

    conn_id: Name = ""
    lists: Annotated[dict[Name, RoomList], msgspec.Meta(max_length=100)] = {}
    room_subscriptions: Annotated[dict[Name, Subscription], msgspec.Meta(max_length=1000)] = {}
    extensions: Extensions = msgspec.field(default_factory=Extensions)


class Connections:
    """What each connection was told, by its latest positions."""

    def __init__(self) -> None:
        self._told: OrderedDict[Key, OrderedDict[str, Told]] = OrderedDict()

    def get(self, key: Key, pos: str) -> Told:
        """What was told up to `pos`. Raises M_UNKNOWN_POS."""
        told = self._told.get(key, OrderedDict())
        if pos not in told:
            raise errors.unknown_pos()
        told.move_to_end(pos)
        return told[pos]

    def add(self, key: Key, told: Told, *, is_first: bool) -> str:
        """A new `pos`; the first of a connection ends all others."""
        if is_first or key not in self._told:
            self._told[key] = OrderedDict()
        self._told.move_to_end(key)
        pos = secrets.token_urlsafe(9)
        self._told[key][pos] = told
        while len(self._told[key]) > KEPT:
            self._told[key].popitem(last=False)
        while len(self._told) > MAX_CONNECTIONS:
            self._told.popitem(last=False)
        return pos


@bp.post("/org.matrix.simplified_msc3575/sync")
@http.authenticated
def sliding_sync() -> Json:
    """What is new in the client's windows; waits up to `timeout` ms until something is."""
    ask = http.body_as(Ask)
    timeout_ms = http.query_integer("timeout", 0, cap=long_poll.MAX_TIMEOUT_MS)
    mood = http.query_choice("set_presence", presence.STATES, "online")
    me = http.requester()
    key = (me.user_id, me.device_id, ask.conn_id)
    pos = request.args.get("pos")
    told = _connections().get(key, pos) if pos else sliding.NOTHING
    inbox_token = _acknowledge(me, ask.extensions)
    with presence.syncing(context.ephemeral(), me.user_id, me.device_id, mood):
        body, after, _ = long_poll.first(
            me.user_id,
            timeout_ms if pos else 0,
            lambda: _look(me, ask, told, inbox_token),
            lambda found: found[2],
        )
    return {"pos": _connections().add(key, after, is_first=not pos), **body}


def _look(me: Requester, ask: Ask, told: Told, inbox_token: int) -> tuple[Json, Told, bool]:
    """(the answer without its `pos`, what the connection then knows, whether anything is new)."""
    ephemeral = context.ephemeral()
    upto = ephemeral.position
    with context.db().read() as tx:
        found = sliding.rooms(tx, me, ask.lists, ask.room_subscriptions, told)
        extensions, is_news = sliding_extensions.load(
            tx, me, ask.extensions, told, found, ephemeral, inbox_token
        )
        after = Told(tx.position, upto, found.told)
    body = {"lists": found.lists, "rooms": found.rooms, "extensions": extensions}
    return body, after, is_news or bool(found.rooms)


def _acknowledge(me: Requester, wanted: Extensions) -> int:
    """The position up to which the device has its messages; those that it has got go."""
    since = wanted.to_device.since
    if not wanted.to_device.enabled or not since:
        return 0
    with context.db().read() as tx:
        position = tokens.parse(since, tx.position).position
        is_due = to_device.is_to_acknowledge(tx, me.user_id, me.device_id, position)
    if is_due:
        with context.db().write() as tx:
            to_device.acknowledge(tx, me.user_id, me.device_id, position)
    return position


def _connections() -> Connections:
    kept = current_app.extensions.setdefault("sliding_connections", Connections())
    return cast(Connections, kept)
