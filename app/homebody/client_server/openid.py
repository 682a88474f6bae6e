"""Proving to others who one is.

The question that those ask is part of the Server-Server API, but needs nothing else of it: widgets
and video conferences of a server that keeps to itself ask it as well.
Spec: client-server-api#openid, server-server-api#openid
"""

from __future__ import annotations

from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, must_be_me, unauthenticated
from homebody.core.accounts import openid
from homebody.spec.events import Json

bp = Blueprint("openid", __name__)
bp_federation = Blueprint("openid_userinfo", __name__, url_prefix="/_matrix/federation/v1")


@bp.post("/user/<user_id>/openid/request_token")
@authenticated()
def request_open_id_token(user_id: str) -> Json:
    """A token to hand to somebody else; it opens nothing here."""
    must_be_me(user_id)
    http.json_object(may_be_empty=True)
    context.rate_limits().check("rc_lookups", user_id)
    with context.db().write() as tx:
        return openid.issue(tx, user_id)


@bp_federation.get("/openid/userinfo")
@unauthenticated
def exchange_open_id_token() -> Json:
    """Who was given a token.

    Spec: server-server-api#get_matrixfederationv1openiduserinfo
    """
    token = request.args.get("access_token")
    if token is None:
        raise errors.missing_token()
    with context.db().read() as tx:
        return {"sub": openid.bearer(tx, token)}
