"""Pages of a room's events, single events, and their context.

Spec: client-server-api#getting-events-for-a-room, client-server-api#event-context
"""

from __future__ import annotations

import orjson
from flask import Blueprint, request

from homebody.client_server import authentication, event_stream, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.events import aggregations, client_events, history, paging
from homebody.core.events.paging import PageRequest
from homebody.core.federation import timestamps
from homebody.core.legacy import initial_sync
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import filters
from homebody.spec.events import Json
from homebody.storage.database import Reader

bp = Blueprint("messages", __name__)
bp_v1 = Blueprint("messages_v1", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/rooms/<room_id>/messages")
@authenticated(guests=True)
def get_room_events(room_id: str) -> Json:
    """Return a page of the room's events, forwards or backwards."""
    me = requester()
    is_backwards = _is_backwards()
    limit = http.query_integer("limit", 10, cap=paging.MAX_LIMIT)
    wanted = filters.resolve_room_event_filter(request.args.get("filter"))

    def requested(tx: Reader) -> PageRequest:
        return history.requested(
            tx,
            me.user_id,
            room_id,
            start=http.query_position(tx, "from"),
            stop=http.query_position(tx, "to"),
            is_backwards=is_backwards,
            limit=limit,
            wanted=wanted,
        )

    with homeserver.backfill.page(requested, history.page) as (tx, page):
        chunk = aggregations.encode_all(tx, me, page.events)
        members: list[orjson.Fragment] = []
        if wanted.lazy_load_members:
            members = client_events.encode_state(
                tx, me, history.senders_of(tx, me.user_id, room_id, page.events)
            )
    response: Json = {
        "chunk": chunk,
        "start": request.args.get("from") or str(SyncToken(page.start)),
    }
    if page.end is not None:
        response["end"] = str(SyncToken(page.end))
    if members:
        response["state"] = members
    return response


@bp.get("/rooms/<room_id>/event/<event_id>")
@authenticated(guests=True)
def get_one_room_event(room_id: str, event_id: str) -> Json:
    """Return one event of a room."""
    return _one_event(event_id, room_id)


@bp.get("/events/<event_id>")
@authenticated()
def get_one_event(event_id: str) -> Json:
    """Return one event by its id alone; deprecated."""
    return _one_event(event_id, None)


@bp.get("/rooms/<room_id>/context/<event_id>")
@authenticated(guests=True)
def get_event_context(room_id: str, event_id: str) -> Json:
    """Return an event, some before and after it, and the room's state at the last of them."""
    me = requester()
    limit = http.query_integer("limit", 10, cap=paging.MAX_LIMIT)
    wanted = filters.resolve_room_event_filter(request.args.get("filter"))
    homeserver.backfill.before(me.user_id, room_id, event_id, limit)
    with homeserver.database.read() as tx:
        around = history.context(tx, me.user_id, room_id, event_id, limit, wanted)
        shown = [*around.before.events, around.event, *around.after.events]
        encoded = aggregations.encode_all(tx, me, shown)
        state = client_events.encode_state(tx, me, around.state)
    centre = len(around.before.events)
    return {
        "start": str(SyncToken(around.before.end or 0)),
        "end": str(SyncToken(around.after.end or 0)),
        "events_before": encoded[:centre],
        "event": encoded[centre],
        "events_after": encoded[centre + 1 :],
        "state": state,
    }


@bp_v1.get("/rooms/<room_id>/timestamp_to_event")
@authenticated()
def get_event_by_timestamp(room_id: str) -> Json:
    """Return the event nearest to a time, which only another server may have."""
    http.query_required("ts")
    ts = http.query_integer("ts", 0)
    is_backwards = _is_backwards()
    authentication.rate_limits().check("rc_lookups", requester().user_id)
    found = timestamps.near(
        homeserver.database,
        homeserver.federation,
        requester().user_id,
        room_id,
        ts,
        is_backwards=is_backwards,
    )
    if homeserver.server.config.federation:  # clients go on with /context
        homeserver.backfill.reach(room_id, found.event_id)
    return {"event_id": found.event_id, "origin_server_ts": found.ts}


@bp.get("/rooms/<room_id>/initialSync")
@authenticated(guests=True)
def room_initial_sync(room_id: str) -> Json:
    """Return a preview of a room, also for users who are not in it."""
    limit = http.query_integer("limit", 10, cap=paging.MAX_LIMIT)
    with homeserver.database.read() as tx:
        preview = initial_sync.preview(tx, requester().user_id, room_id, limit)
        response = {"room_id": room_id, **event_stream.described(tx, preview)}
    # this response is older than knocking, and has no value for it
    if preview.membership not in {None, "knock"}:
        response["membership"] = preview.membership
    return response


def _one_event(event_id: str, room_id: str | None) -> Json:
    me = requester()
    with homeserver.database.read() as tx:
        event = history.event(tx, me.user_id, event_id, room_id)
        return aggregations.as_json(tx, me, event)


def _is_backwards() -> bool:
    """Return the requested direction. Raises M_INVALID_PARAM for any other than b and f.

    Deviates: `dir` is required, but clients leave it out, and Synapse then goes forwards.
    """
    return http.query_choice("dir", {"b", "f"}, "f") == "b"
