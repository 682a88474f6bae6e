"""Previews of links.

Spec: client-server-api#content-repository
"""

from __future__ import annotations

from flask import Blueprint

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.media import url_previews
from homebody.spec.events import Json

bp = Blueprint("url_previews", __name__, url_prefix="/_matrix/client/v1/media")
bp_old = Blueprint("url_previews_old", __name__, url_prefix="/_matrix/media/v3")


@bp.get("/preview_url")
@authenticated()
def get_url_preview_authed() -> Json:
    """What a page says of itself.

    Spec: client-server-api#get_matrixclientv1mediapreview_url
    """
    return _preview()


@bp_old.get("/preview_url")
@authenticated()
def get_url_preview() -> Json:
    """The same on its old path.

    Spec: client-server-api#get_matrixmediav3preview_url
    """
    return _preview()


def _preview() -> Json:
    if not context.server().config.url_previews:
        raise errors.unrecognized("This server makes no previews of links")
    url = http.query_required("url")
    # Not looked at otherwise: "The server may return a newer version if it does not have the
    # requested version available"
    http.query_integer("ts", 0)
    user_id = requester().user_id
    context.rate_limits().check("rc_lookups", user_id)
    here = context.homeserver()
    return url_previews.get(here.database, here.outside, here.repeats, url, user_id)
