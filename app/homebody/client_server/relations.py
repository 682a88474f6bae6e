"""Relations of events, and threads.

Spec: client-server-api#relationships-api, client-server-api#querying-threads-in-a-room
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.events import aggregations, paging, relations, threads
from homebody.core.sync.spans import SyncToken
from homebody.spec.events import Json

bp = Blueprint("relations", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/rooms/<room_id>/relations/<event_id>")
@authenticated()
def get_relating_events(room_id: str, event_id: str) -> Json:
    """Return the children of an event."""
    return _page(room_id, event_id, None, None)


@bp.get("/rooms/<room_id>/relations/<event_id>/<rel_type>")
@authenticated()
def get_relating_events_with_rel_type(room_id: str, event_id: str, rel_type: str) -> Json:
    """Return the children of an event with a relation type."""
    return _page(room_id, event_id, rel_type, None)


@bp.get("/rooms/<room_id>/relations/<event_id>/<rel_type>/<event_type>")
@authenticated()
def get_relating_events_with_rel_type_and_event_type(
    room_id: str, event_id: str, rel_type: str, event_type: str
) -> Json:
    """Return the children of an event with a relation type and an event type."""
    return _page(room_id, event_id, rel_type, event_type)


@bp.get("/rooms/<room_id>/threads")
@authenticated()
def get_thread_roots(room_id: str) -> Json:
    """Return the threads of a room, those with the latest replies first."""
    me = requester()
    include = http.query_choice("include", {"all", "participated"}, "all")
    limit = http.query_integer("limit", 20, least=1, cap=threads.MAX_LIMIT)
    with homeserver.database.read() as tx:
        page, end = threads.threads(
            tx,
            me,
            room_id,
            start=http.query_position(tx, "from"),
            limit=limit,
            is_participated=include == "participated",
        )
        roots = [thread.root for thread in page]
        bundles = {thread.root.event_id: thread.bundle for thread in page}
        response: Json = {"chunk": aggregations.encode_all(tx, me, roots, bundles)}
    if end is not None:
        response["next_batch"] = str(SyncToken(end))
    return response


def _page(room_id: str, event_id: str, rel_type: str | None, event_type: str | None) -> Json:
    me = requester()
    direction = http.query_choice("dir", {"b", "f"}, "b")
    is_recursive = http.query_boolean("recurse")
    with homeserver.database.read() as tx:
        page = relations.related(
            tx,
            me.user_id,
            room_id,
            event_id,
            rel_type=rel_type,
            event_type=event_type,
            is_recursive=is_recursive,
            start=http.query_position(tx, "from"),
            stop=http.query_position(tx, "to"),
            is_backwards=direction == "b",
            limit=http.query_integer("limit", 50, cap=paging.MAX_LIMIT),
        )
        response: Json = {"chunk": aggregations.encode_all(tx, me, page.events)}
    if page.end is not None:
        response["next_batch"] = str(SyncToken(page.end))
    if request.args.get("from"):
        response["prev_batch"] = request.args["from"]
    if is_recursive:
        response["recursion_depth"] = relations.LEVELS
    return response
