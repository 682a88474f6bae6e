"""GET /events and GET /initialSync, which older clients use in place of /sync.

GET /events is deprecated except with a room: that form is how clients preview a room.
Spec: client-server-api#room-previews, client-server-api#get_matrixclientv3events,
client-server-api#get_matrixclientv3initialsync
"""

from __future__ import annotations

import orjson
from flask import Blueprint, request

from homebody.client_server import http, sync
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.ephemeral import presence
from homebody.core.events import client_events
from homebody.core.legacy import event_stream, initial_sync
from homebody.core.legacy.event_stream import Chunk
from homebody.core.legacy.initial_sync import Preview, RoomInfo
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import account_data
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.storage.database import Reader

bp = Blueprint("event_stream", __name__)

MAX_NEWS = 100
"""Events in one response to GET /events."""
MAX_EVENTS = 100
"""Events of each room in a response to GET /initialSync."""


@bp.get("/events")
@authenticated(guests=True)
def get_events() -> Json:
    """Return new events since a token, of all joined rooms or of one that the user previews.

    Waits up to `timeout` ms for the first.
    Spec: client-server-api#get_matrixclientv3events, client-server-api#room-previews
    """
    me, room_id = requester(), request.args.get("room_id")
    timeout_ms = http.query_integer("timeout", 0, cap=sync.MAX_TIMEOUT_MS)
    begin = request.args.get("from")
    with homeserver.database.read() as tx:
        start = SyncToken.parse(begin, tx.position).position if begin else tx.position

    def look() -> tuple[Chunk, list[orjson.Fragment]]:
        with homeserver.database.read() as tx:
            news = _news(tx, me.user_id, room_id, start)
            return news, client_events.encode_all(tx, me, news.events)

    with presence.syncing(homeserver.ephemeral, me.user_id, me.device_id):
        news, encoded = sync.wait_for(
            me.user_id, timeout_ms, look, lambda found: bool(found[0].events), room_id=room_id
        )
    return {
        "start": begin or str(SyncToken(start)),
        "chunk": encoded,
        "end": str(SyncToken(news.end)),
    }


@bp.get("/initialSync", endpoint="initial_sync")
@authenticated()
def initial_sync_() -> Json:
    """Return all rooms of the user with state and last events, presence, and account data.

    Spec: client-server-api#get_matrixclientv3initialsync
    """
    user_id = requester().user_id
    limit = http.query_integer("limit", 20, cap=MAX_EVENTS)
    is_archived = http.query_boolean("archived")
    with homeserver.database.read() as tx:
        rooms = initial_sync.rooms(tx, user_id, limit, with_left=is_archived)
        return {
            "end": str(SyncToken(tx.position)),
            "presence": presence.since(tx, homeserver.ephemeral, user_id, 0),
            "rooms": [_room(tx, room) for room in rooms],
            "account_data": account_data.since(tx, user_id, 0, tx.position).get("", []),
        }


def _news(tx: Reader, user_id: str, room_id: str | None, start: int) -> Chunk:
    if room_id is None:
        return event_stream.since(tx, user_id, start, MAX_NEWS, filters.EVERY_ROOM_EVENT)
    return event_stream.peek(tx, user_id, room_id, start, MAX_NEWS)


def _room(tx: Reader, room: RoomInfo) -> Json:
    shown: Json = {"room_id": room.room_id, "membership": room.membership}
    if room.invite is not None:
        shown["invite"] = client_events.encode(tx, requester(), room.invite)
    return shown | (described(tx, room.preview) if room.preview is not None else {})


def described(tx: Reader, preview: Preview) -> Json:
    """Return a room's preview in the form of both kinds of initialSync."""
    me = requester()
    return {
        "messages": {
            "chunk": client_events.encode_all(tx, me, preview.events),
            "start": str(SyncToken(preview.start)),
            "end": str(SyncToken(preview.end)),
        },
        "state": client_events.encode_state(tx, me, preview.state),
        "visibility": preview.directory,
        "account_data": preview.account_data,
    }
