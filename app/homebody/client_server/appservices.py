"""What application services alone may ask for: a ping, and the directories of their networks.

Spec: application-service-api#pinging-1, application-service-api#published-room-directories
"""

from __future__ import annotations

from typing import Literal

import msgspec
from flask import Blueprint

from homebody import context, errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated
from homebody.core.appservices import directory, pings, transactions
from homebody.spec.events import Json

bp = Blueprint("appservices", __name__)
bp_v1 = Blueprint("appservices_v1", __name__, url_prefix="/_matrix/client/v1")


class Ping(msgspec.Struct, omit_defaults=True):
    """The body of a ping, passed on as it is."""

    transaction_id: str | None = None


class Visibility(msgspec.Struct):
    """Whether a room is in the directory of a network."""

    visibility: Literal["public", "private"]


@bp_v1.post("/appservice/<appservice_id>/ping")
@authenticated(services_only=True)
def ping_appservice(appservice_id: str) -> Json:
    """How long a service takes to answer, which proves that this server reaches it.

    Bridges ask when they start. What they have missed comes now, not after the next wait.
    """
    service = authentication.service()
    if service.id != appservice_id:
        raise errors.forbidden("This is the id of another application service")
    body = http.body_as(Ping)
    duration_ms = pings.ping(context.server(), service, msgspec.to_builtins(body))
    if transactions.hurry(context.db(), service.id):
        context.homeserver().delivery.look()
    return {"duration_ms": duration_ms}


@bp.put("/directory/list/appservice/<network_id>/<room_id>")
@authenticated(services_only=True)
def update_appservice_room_directory_visibility(network_id: str, room_id: str) -> Json:
    """Put a room into the directory of a network, or take it out."""
    service = authentication.service()
    is_published = http.body_as(Visibility).visibility == "public"
    with context.db().write() as tx:
        directory.set_visibility(tx, service, network_id, room_id, is_published=is_published)
    return {}
