"""Third-party networks: who and what can be reached through bridges.

Spec: client-server-api#third-party-networks
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.appservices import networks
from homebody.spec.events import Json

bp = Blueprint("third_party", __name__)


@bp.get("/thirdparty/protocols")
@authenticated(guests=True)
def get_protocols() -> Json:
    """All protocols of all bridges."""
    _check_limit()
    return networks.protocols(context.server())


@bp.get("/thirdparty/protocol/<protocol>")
@authenticated()
def get_protocol_metadata(protocol: str) -> Json:
    """One protocol."""
    _check_limit()
    return networks.protocol(context.server(), protocol)


@bp.get("/thirdparty/location/<protocol>")
@authenticated()
def query_location_by_protocol(protocol: str) -> list[Json]:
    """The rooms that lead to a place beyond a bridge."""
    _check_limit()
    return networks.search(context.server(), "location", protocol, _fields())


@bp.get("/thirdparty/user/<protocol>")
@authenticated()
def query_user_by_protocol(protocol: str) -> list[Json]:
    """The users who stand for somebody beyond a bridge."""
    _check_limit()
    return networks.search(context.server(), "user", protocol, _fields())


@bp.get("/thirdparty/location")
@authenticated()
def query_location_by_alias() -> list[Json]:
    """The places to which an alias leads."""
    _check_limit()
    alias = http.query_required("alias")
    return networks.reverse(context.server(), "location", {"alias": alias})


@bp.get("/thirdparty/user")
@authenticated()
def query_user_by_id() -> list[Json]:
    """For whom a user stands."""
    _check_limit()
    user_id = http.query_required("userid")
    return networks.reverse(context.server(), "user", {"userid": user_id})


def _check_limit() -> None:
    """Raises M_LIMIT_EXCEEDED: each question goes on to bridges, and through them to others."""
    context.rate_limits().check("rc_lookups", requester().user_id)


def _fields() -> dict[str, str]:
    """What is to be looked for; not what says who asks."""
    own = {"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"}
    return {key: value for key, value in request.args.items() if key not in own}
