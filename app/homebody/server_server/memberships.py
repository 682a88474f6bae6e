"""Joins, leaves and knocks of other servers' users in rooms that this server is in.

Spec: server-server-api#joining-rooms, server-server-api#knocking-rooms,
server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from flask import Blueprint, Response, request

from homebody.client_server import http
from homebody.context import homeserver
from homebody.core.federation import join_responses, membership_events, rooms, templates
from homebody.server_server.authentication import content, from_server, origin
from homebody.spec.events import Event, Json

bp = Blueprint("server_memberships", __name__)


@bp.get("/v1/make_join/<room_id>/<user_id>")
@from_server
def make_join(room_id: str, user_id: str) -> Json:
    """Return a template of a join."""
    return _template(room_id, user_id, "join")


@bp.get("/v1/make_leave/<room_id>/<user_id>")
@from_server
def make_leave(room_id: str, user_id: str) -> Json:
    """Return a template of a leave."""
    return _template(room_id, user_id, "leave")


@bp.get("/v1/make_knock/<room_id>/<user_id>")
@from_server
def make_knock(room_id: str, user_id: str) -> Json:
    """Return a template of a knock."""
    return _template(room_id, user_id, "knock")


@bp.put("/v2/send_join/<room_id>/<event_id>")
@from_server
def send_join_v2(room_id: str, event_id: str) -> Response:
    """Take in a join, and return the state of the room before it."""
    pieces = _joined(room_id, event_id, may_omit_members=http.query_boolean("omit_members"))
    return Response(pieces, mimetype="application/json")


@bp.put("/v1/send_join/<room_id>/<event_id>")
@from_server
def send_join_v1(room_id: str, event_id: str) -> Response:
    """Take in a join, as older servers send it."""
    pieces = _joined(room_id, event_id, may_omit_members=False)
    return Response(itertools.chain([b"[200,"], pieces, [b"]"]), mimetype="application/json")


@bp.put("/v2/send_leave/<room_id>/<event_id>")
@from_server
def send_leave_v2(room_id: str, event_id: str) -> Json:
    """Take in a leave, or the rejection of an invite."""
    _accept(room_id, event_id, "leave")
    return {}


@bp.put("/v1/send_leave/<room_id>/<event_id>")
@from_server
def send_leave_v1(room_id: str, event_id: str) -> list[int | Json]:
    """Take in a leave, as older servers send it."""
    _accept(room_id, event_id, "leave")
    return [200, {}]


@bp.put("/v1/send_knock/<room_id>/<event_id>")
@from_server
def send_knock(room_id: str, event_id: str) -> Json:
    """Take in a knock, and return what may be known of the room."""
    _accept(room_id, event_id, "knock")
    with homeserver.database.read() as tx:
        return {"knock_room_state": membership_events.preview(tx, room_id)}


def _joined(room_id: str, event_id: str, *, may_omit_members: bool) -> Iterator[bytes]:
    with homeserver.database.read() as tx:
        servers = rooms.servers(tx, room_id) if may_omit_members else None
    event = _accept(room_id, event_id, "join")
    with homeserver.database.read() as tx:
        found = join_responses.before(tx, event, servers)
    return join_responses.encoded(homeserver.database, found)


def _template(room_id: str, user_id: str, kind: str) -> Json:
    versions = request.args.getlist("ver") or ["1"]
    with homeserver.database.read() as tx:
        return templates.make(tx, origin(), room_id, user_id, kind, versions)


def _accept(room_id: str, event_id: str, kind: str) -> Event:
    if kind != "leave":  # which always has to be possible
        homeserver.rate_limits.check("rc_joins.per_server", origin())
    return membership_events.accept(
        homeserver.database,
        homeserver.federation,
        homeserver.server_keys,
        homeserver.locks,
        origin(),
        room_id,
        event_id,
        content(),
        kind,
    )
