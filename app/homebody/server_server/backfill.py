"""Events that other servers of a room lack.

Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
import orjson
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import http
from homebody.context import homeserver
from homebody.core.federation import earlier_events
from homebody.server_server.authentication import content_as, from_server, origin
from homebody.spec.events import Json

bp = Blueprint("server_backfill", __name__)

DEFAULT_MISSING: Final = 10


class MissingEvents(msgspec.Struct):
    """The body of a request for missing events."""

    earliest_events: list[str]
    latest_events: list[str]
    limit: Annotated[int, msgspec.Meta(ge=0)] = DEFAULT_MISSING
    min_depth: int = 0


@bp.get("/v1/backfill/<room_id>")
@from_server
def backfill_room(room_id: str) -> Json:
    """Return events and those before them, as a transaction."""
    http.query_required("limit")
    limit = http.query_integer("limit", earlier_events.MAX_EVENTS, cap=earlier_events.MAX_EVENTS)
    event_ids = request.args.getlist("v")
    if not event_ids:
        raise errors.missing_param("The query parameter v is missing")
    with homeserver.database.read() as tx:
        pdus = earlier_events.backfill(tx, origin(), room_id, event_ids, limit)
        return _transaction(tx.server.name, tx.now_ms, pdus)


@bp.post("/v1/get_missing_events/<room_id>")
@from_server
def get_missing_previous_events(room_id: str) -> Json:
    """Return the events between those that a server has and newer ones."""
    body = content_as(MissingEvents)
    with homeserver.database.read() as tx:
        pdus = earlier_events.missing(
            tx,
            origin(),
            room_id,
            latest=body.latest_events,
            earliest=body.earliest_events,
            limit=body.limit,
            min_depth=body.min_depth,
        )
    return {"events": pdus}


def _transaction(name: str, now_ms: int, pdus: list[orjson.Fragment]) -> Json:
    return {"origin": name, "origin_server_ts": now_ms, "pdus": pdus}
