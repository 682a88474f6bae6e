"""Finding people, and the rooms that one shares with them.

Spec: client-server-api#user-directory, client-server-api#mutual-rooms
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.profiles import user_directory
from homebody.core.rooms import mutual_rooms
from homebody.spec.events import Json

bp = Blueprint("user_directory", __name__)
bp_v1 = Blueprint("mutual_rooms", __name__, url_prefix="/_matrix/client/v1")


class Search(msgspec.Struct):
    """The body of a search for people."""

    search_term: Annotated[str, msgspec.Meta(max_length=1000)]
    limit: int = 10


@bp.post("/user_directory/search")
@authenticated(suspended=True, only_reads=True)
def search_user_directory() -> Json:
    """People whom one may see, by their name."""
    wish = http.body_as(Search)
    if wish.limit < 0:
        raise errors.invalid_param("limit must be a whole number from 0 on")
    context.rate_limits().check("rc_lookups", requester().user_id)
    limit = min(wish.limit, user_directory.MAX_LIMIT)
    with context.db().read() as tx:
        return user_directory.search(tx, requester().user_id, wish.search_term, limit)


@bp_v1.get("/mutual_rooms")
@authenticated()
def get_mutual_rooms() -> Json:
    """The rooms where oneself and another are both joined."""
    other = http.query_required("user_id")
    context.rate_limits().check("rc_lookups", requester().user_id)
    with context.db().read() as tx:
        return mutual_rooms.shared(tx, requester().user_id, other, request.args.get("from"))


@bp.get("/uk.half-shot.msc2666/user/mutual_rooms")  # below /unstable, as wsgi.py reads that
@authenticated()
def get_mutual_rooms_before_they_were_specified() -> Json:
    """The same, as matrix-js-sdk still asks for it."""
    other = http.query_required("user_id")
    context.rate_limits().check("rc_lookups", requester().user_id)
    with context.db().read() as tx:
        start = request.args.get("batch_token")
        answer = mutual_rooms.shared(tx, requester().user_id, other, start)
    token = answer.pop("next_batch", None)
    return answer if token is None else {**answer, "next_batch_token": token}
