"""What only application services may do, and the third-party networks that they bridge.

Spec: application-service-api#pinging-1, application-service-api#published-room-directories,
client-server-api#third-party-networks
"""

from __future__ import annotations

from typing import Literal

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.appservices import networks, transactions
from homebody.spec.events import Json

bp = Blueprint("appservices", __name__)
bp_v1 = Blueprint("appservices_v1", __name__, url_prefix="/_matrix/client/v1")


class Ping(msgspec.Struct, omit_defaults=True):
    """The body of a ping, passed on as it is."""

    transaction_id: str | None = None


class Visibility(msgspec.Struct):
    """The body of a request to publish a room in the directory of a network."""

    visibility: Literal["public", "private"]


@bp_v1.post("/appservice/<appservice_id>/ping")
@authenticated(services_only=True)
def ping_appservice(appservice_id: str) -> Json:
    """Ping a service, and return how long it took to respond.

    Bridges request this when they start. They then get what they have missed at once, instead of
    after the next retry delay.
    """
    service = authentication.service()
    if service.id != appservice_id:
        raise errors.forbidden("This is the id of another application service")
    body = http.body_as(Ping)
    duration_ms = transactions.ping(homeserver.server, service, msgspec.to_builtins(body))
    if transactions.hurry(homeserver.database, service.id):
        homeserver.delivery.rescan()
    return {"duration_ms": duration_ms}


@bp.put("/directory/list/appservice/<network_id>/<room_id>")
@authenticated(services_only=True)
def update_appservice_room_directory_visibility(network_id: str, room_id: str) -> Json:
    """Publish a room in the directory of a network, or remove it from there."""
    service = authentication.service()
    is_published = http.body_as(Visibility).visibility == "public"
    with homeserver.database.write() as tx:
        networks.set_visibility(tx, service, network_id, room_id, is_published=is_published)
    return {}


@bp.get("/thirdparty/protocols")
@authenticated(guests=True)
def get_protocols() -> Json:
    """Return the protocols of all bridges."""
    _check_limit()
    return networks.protocols(homeserver.server)


@bp.get("/thirdparty/protocol/<protocol>")
@authenticated()
def get_protocol_metadata(protocol: str) -> Json:
    """Return one protocol."""
    _check_limit()
    return networks.protocol(homeserver.server, protocol)


@bp.get("/thirdparty/location/<protocol>")
@authenticated()
def query_location_by_protocol(protocol: str) -> list[Json]:
    """Return the rooms that are portals to a location of a third-party network."""
    _check_limit()
    return networks.search(homeserver.server, "location", protocol, _fields())


@bp.get("/thirdparty/user/<protocol>")
@authenticated()
def query_user_by_protocol(protocol: str) -> list[Json]:
    """Return the Matrix users that represent a user of a third-party network."""
    _check_limit()
    return networks.search(homeserver.server, "user", protocol, _fields())


@bp.get("/thirdparty/location")
@authenticated()
def query_location_by_alias() -> list[Json]:
    """Return the locations of third-party networks for which an alias is a portal."""
    _check_limit()
    alias = http.query_required("alias")
    return networks.reverse(homeserver.server, "location", {"alias": alias})


@bp.get("/thirdparty/user")
@authenticated()
def query_user_by_id() -> list[Json]:
    """Return the users of third-party networks that a Matrix user represents."""
    _check_limit()
    user_id = http.query_required("userid")
    return networks.reverse(homeserver.server, "user", {"userid": user_id})


def _check_limit() -> None:
    """Raise M_LIMIT_EXCEEDED: each request is passed on to bridges, and through them to others."""
    authentication.rate_limits().check("rc_lookups", requester().user_id)


def _fields() -> dict[str, str]:
    """Return the fields to search for: the query without what identifies the requester."""
    own = {"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"}
    return {key: value for key, value in request.args.items() if key not in own}
