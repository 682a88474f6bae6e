"""Events and state of rooms, for servers that are in them.

Spec: server-server-api#retrieving-events,
server-server-api#retrieving-event-authorisation-information
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Final

from flask import Blueprint, Response

from homebody.client_server import http
from homebody.context import homeserver
from homebody.core import partial_rooms
from homebody.core.events import state
from homebody.core.federation import rooms
from homebody.errors import MatrixError
from homebody.server_server.authentication import from_server, origin, wait_for_turn
from homebody.spec.events import Json

bp = Blueprint("server_events", __name__)

MEMBERS_PER_REQUEST: Final = 50
"""The state of a room counts as one more request for each so many members, by the rate limit."""


@bp.get("/v1/event/<event_id>")
@from_server
def get_event(event_id: str) -> Json:
    """Return an event, as a transaction."""
    with homeserver.database.read() as tx:
        row = rooms.event(tx, origin(), event_id)
        pdu = rooms.shown(tx, origin(), row)
        return {"origin": tx.server.name, "origin_server_ts": tx.now_ms, "pdus": [pdu]}


@bp.get("/v1/event_auth/<room_id>/<event_id>")
@from_server
def get_event_auth(room_id: str, event_id: str) -> Response:
    """Return the auth chain of an event."""
    with homeserver.database.read() as tx:
        chain = rooms.auth_chain_of(tx, rooms.event(tx, origin(), event_id, room_id))
    return _pdus(auth_chain=chain)


@bp.get("/v1/state/<room_id>")
@from_server
def get_room_state(room_id: str) -> Response:
    """Return the state of a room before an event, with its auth chain."""
    found, chain = _state_and_chain(room_id)
    return _pdus(auth_chain=chain, pdus=found)


@bp.get("/v1/state_ids/<room_id>")
@from_server
def get_room_state_ids(room_id: str) -> Json:
    """Return the ids of what `get_room_state` returns."""
    found, chain = _state_and_chain(room_id)
    with homeserver.database.read() as tx:
        return {"pdu_ids": rooms.ids(tx, found), "auth_chain_ids": rooms.ids(tx, chain)}


@bp.get("/v1/timestamp_to_event/<room_id>")
@from_server
def get_event_by_timestamp(room_id: str) -> Json:
    """Return the event nearest to a time, in one direction."""
    http.query_required("ts")
    http.query_required("dir")
    ts, direction = http.query_integer("ts", 0), http.query_choice("dir", {"f", "b"}, "f")
    with homeserver.database.read() as tx:
        event_id, found_ts = rooms.near(tx, origin(), room_id, ts, is_backwards=direction == "b")
    return {"event_id": event_id, "origin_server_ts": found_ts}


def _pdus(**lists: Collection[int]) -> Response:
    pieces = rooms.encoded(homeserver.database, {}, lists)
    return Response(pieces, mimetype="application/json")


def _state_and_chain(room_id: str) -> tuple[Collection[int], Collection[int]]:
    """Return the state before the event in the query, and its auth chain, as numbers of events."""
    event_id = http.query_required("event_id")
    with homeserver.database.read() as tx:
        rooms.event(tx, origin(), event_id, room_id)
        members = state.joined(tx, room_id).total
    wait_for_turn(members // MEMBERS_PER_REQUEST)
    with suppress(MatrixError):  # M_NOT_FOUND is what other servers understand
        partial_rooms.wait_until_full(homeserver.database, room_id)
    with homeserver.database.read() as tx:
        found = rooms.state_before(tx, rooms.event(tx, origin(), event_id, room_id))
        return sorted(found), sorted(rooms.auth_chain(tx, room_id, found))
