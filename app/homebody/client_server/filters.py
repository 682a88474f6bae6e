"""Filters that clients store.

Spec: client-server-api#filtering
"""

from __future__ import annotations

from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, must_be_me
from homebody.core.user_data import filters
from homebody.spec.events import Json

bp = Blueprint("filters", __name__)


@bp.post("/user/<user_id>/filter")
@authenticated(suspended=True)
def define_filter(user_id: str) -> Json:
    """Store a filter; answers its id."""
    must_be_me(user_id)
    definition = http.json_object()
    with context.db().write() as tx:
        return {"filter_id": filters.define(tx, user_id, definition)}


@bp.get("/user/<user_id>/filter/<filter_id>")
@authenticated()
def get_filter(user_id: str, filter_id: str) -> Json:
    """A stored filter, as the client sent it."""
    must_be_me(user_id)
    with context.db().read() as tx:
        return filters.definition(tx, user_id, filter_id)
