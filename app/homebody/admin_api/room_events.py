"""Events of rooms, as administrators read them: pages, single ones, the events around one, spaces.

Administrators see all events, whether or not they are in the room.
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody.client_server import http
from homebody.client_server.authentication import authenticated
from homebody.context import homeserver
from homebody.core.events import client_events, paging, state, unrestricted
from homebody.core.rooms import spaces
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import filters
from homebody.spec.events import Json

bp = Blueprint("admin_room_events", __name__)


@bp.get("/v1/rooms/<room_id>/messages")
@authenticated(admins_only=True)
def get_messages(room_id: str) -> Json:
    """Return a page of a room's events, forwards or backwards."""
    is_backwards = _is_backwards()
    limit = http.query_integer("limit", 10, cap=paging.MAX_LIMIT)
    wanted = filters.resolve_room_event_filter(request.args.get("filter"))
    with homeserver.database.read() as tx:
        page = unrestricted.messages(
            tx,
            room_id,
            start=http.query_position(tx, "from"),
            stop=http.query_position(tx, "to"),
            is_backwards=is_backwards,
            limit=limit,
            wanted=wanted,
        )
        chunk = client_events.encode_all(tx, None, page.events)
    start = request.args.get("from") or str(SyncToken(page.start))
    end = {} if page.end is None else {"end": str(SyncToken(page.end))}
    return {"chunk": chunk, "start": start, **end}


@bp.get("/v1/rooms/<room_id>/context/<event_id>")
@authenticated(admins_only=True)
def get_context(room_id: str, event_id: str) -> Json:
    """Return an event, some before and after it, and the room's state at the last of them."""
    limit = http.query_integer("limit", 10, cap=paging.MAX_LIMIT)
    wanted = filters.resolve_room_event_filter(request.args.get("filter"))
    with homeserver.database.read() as tx:
        around = unrestricted.context(tx, room_id, event_id, limit, wanted)
        return {
            "start": str(SyncToken(around.before.end or 0)),
            "end": str(SyncToken(around.after.end or 0)),
            "events_before": client_events.encode_all(tx, None, around.before.events),
            "event": client_events.encode(tx, None, around.event),
            "events_after": client_events.encode_all(tx, None, around.after.events),
            "state": client_events.encode_all(tx, None, around.state),
        }


@bp.get("/v1/rooms/<room_id>/timestamp_to_event")
@authenticated(admins_only=True)
def get_event_by_timestamp(room_id: str) -> Json:
    """Return the event nearest to a time."""
    http.query_required("ts")
    ts = http.query_integer("ts", 0)
    is_backwards = _is_backwards()
    with homeserver.database.read() as tx:
        event_id, found_ts = unrestricted.near(tx, room_id, ts, is_backwards=is_backwards)
    return {"event_id": event_id, "origin_server_ts": found_ts}


@bp.get("/v1/rooms/<room_id>/hierarchy")
@authenticated(admins_only=True)
def get_hierarchy(room_id: str) -> Json:
    """Return the rooms of a space that this server knows, of the spaces in it, and so on."""
    query = spaces.Query(
        limit=http.query_integer("limit", spaces.DEFAULT_LIMIT, least=1, cap=spaces.MAX_LIMIT),
        max_depth=http.query_integer("max_depth", spaces.MAX_DEPTH, cap=spaces.MAX_DEPTH),
        since=request.args.get("from") or None,
    )
    with homeserver.database.read() as tx:
        state.head(tx, room_id)
        return spaces.page(tx, None, room_id, query).response


@bp.get("/v1/fetch_event/<event_id>")
@authenticated(admins_only=True)
def fetch_event(event_id: str) -> Json:
    """Return any event that this server has."""
    with homeserver.database.read() as tx:
        event = unrestricted.event(tx, event_id)
        return {"event": client_events.encode(tx, None, event)}


def _is_backwards() -> bool:
    """Return the requested direction. Raises M_INVALID_PARAM for any other than b and f."""
    return http.query_choice("dir", {"b", "f"}, "f") == "b"
