"""Previews of links.

Spec: client-server-api#content-repository
"""

from __future__ import annotations

from typing import cast

from flask import Blueprint, current_app

from homebody import context, errors
from homebody.client_server import http
from homebody.core.media import url_previews
from homebody.runtime.single_flight import Repeats
from homebody.spec.events import Json

bp = Blueprint("url_previews", __name__, url_prefix="/_matrix/client/v1/media")
bp_old = Blueprint("url_previews_old", __name__, url_prefix="/_matrix/media/v3")


@bp.get("/preview_url")
@http.authenticated
def get_url_preview_authed() -> Json:
    """What a page says of itself.

    Spec: client-server-api#get_matrixclientv1mediapreview_url
    """
    return _preview()


@bp_old.get("/preview_url")
@http.authenticated
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
    user_id = http.requester().user_id
    context.rate_limits().check("rc_lookups", user_id)
    repeats = cast(Repeats, current_app.extensions["repeats"])
    return url_previews.get(context.db(), context.outside(), repeats, url, user_id)
