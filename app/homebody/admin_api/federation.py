"""Other servers: whether they accept what is sent, which rooms they are in, trying them again."""

from __future__ import annotations

from flask import Blueprint, request

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.administration import destinations
from homebody.spec.events import Json

bp = Blueprint("admin_federation", __name__)


@bp.get("/v1/federation/destinations")
@authenticated(admins_only=True)
def list_destinations() -> Json:
    """Return a page of the servers that something was sent to."""
    query = destinations.Query(
        start=http.query_integer("from", 0),
        limit=http.query_integer("limit", 100),
        part=request.args.get("destination", ""),
        order_by=http.query_choice("order_by", destinations.ORDERS, destinations.ORDERS[0]),
        is_descending=http.query_choice("dir", ("f", "b"), "f") == "b",
    )
    with homeserver.database.read() as tx:
        found, total = destinations.page(tx, query)
    return {"destinations": found, "total": total, **_next_token(query.start, query.limit, total)}


@bp.get("/v1/federation/destinations/<destination>")
@authenticated(admins_only=True)
def get_destination(destination: str) -> Json:
    """Return whether a server accepts what is sent."""
    with homeserver.database.read() as tx:
        return destinations.find(tx, destination)


@bp.get("/v1/federation/destinations/<destination>/rooms")
@authenticated(admins_only=True)
def list_rooms_of_destination(destination: str) -> Json:
    """Return a page of the rooms in which a server has users."""
    start, limit = http.query_integer("from", 0), http.query_integer("limit", 100)
    is_descending = http.query_choice("dir", ("f", "b"), "f") == "b"
    with homeserver.database.read() as tx:
        found = destinations.shared_rooms(tx, destination)
    if is_descending:
        found.reverse()
    more = _next_token(start, limit, len(found))
    return {"rooms": found[start : start + limit], "total": len(found), **more}


@bp.post("/v1/federation/destinations/<destination>/reset_connection")
@authenticated(admins_only=True)
def reset_connection(destination: str) -> Json:
    """Have a server that failed tried again at once."""
    with homeserver.database.write() as tx:
        destinations.retry(tx, requester().user_id, destination)
    homeserver.sender.heard_from(destination)
    return {}


def _next_token(start: int, limit: int, total: int) -> Json:
    """Return the number from which the next page begins, as a string, if there is one."""
    return {"next_token": str(start + limit)} if start + limit < total else {}
