"""The paths of downloads before they asked for a token.

Spec: client-server-api#content-repo-client-behaviour
"""

from __future__ import annotations

from flask import Blueprint, Response

from app.client_server import http, media
from app.spec.events import Json

bp = Blueprint("media_old", __name__, url_prefix="/_matrix/media/v3")

# Deviates: from the freeze ("newly-uploaded media SHOULD only be accessible through the new,
# authenticated, endpoints"). The clients that this server is made to serve, and the documents it
# was made after, download from these paths, so they give all files of this server. An address
# can't be guessed; whoever was given it needs no account.


@bp.get("/config")
@http.authenticated
def get_config() -> Json:
    """How large a file may be.

    Spec: client-server-api#get_matrixmediav3config
    """
    return media.get_config_authed()


@bp.get("/download/<server_name>/<media_id>")
def get_content(server_name: str, media_id: str) -> Response:
    """A file.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaid
    """
    return media.download(server_name, media_id, is_public=True)


@bp.get("/download/<server_name>/<media_id>/<file_name>")
def get_content_override_name(server_name: str, media_id: str, file_name: str) -> Response:
    """A file under another name.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaidfilename
    """
    return media.download(server_name, media_id, file_name, is_public=True)


@bp.get("/thumbnail/<server_name>/<media_id>")
def get_content_thumbnail(server_name: str, media_id: str) -> Response:
    """A picture, smaller.

    Spec: client-server-api#get_matrixmediav3thumbnailservernamemediaid
    """
    return media.thumbnail(server_name, media_id, is_public=True)
