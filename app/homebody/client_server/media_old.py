"""The paths of downloads before they asked for a token.

Spec: client-server-api#content-repo-client-behaviour
"""

from __future__ import annotations

from flask import Blueprint, Response

from homebody import context, errors
from homebody.client_server import media
from homebody.client_server.authentication import authenticated, maybe_requester
from homebody.spec.events import Json

bp = Blueprint("media_old", __name__, url_prefix="/_matrix/media/v3")

# Deviates: a token counts here too, although these paths never asked for one: clients from before
# authenticated media, and the documents this server was made after, download from here.


@bp.get("/config")
@authenticated()
def get_config() -> Json:
    """How large a file may be.

    Spec: client-server-api#get_matrixmediav3config
    """
    return media.get_config_authed()


@bp.get("/download/<server_name>/<media_id>")
@authenticated(optional=True, guests=True)
def get_content(server_name: str, media_id: str) -> Response:
    """A file.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaid
    """
    return media.download(server_name, media_id, is_public=_is_public())


@bp.get("/download/<server_name>/<media_id>/<file_name>")
@authenticated(optional=True, guests=True)
def get_content_override_name(server_name: str, media_id: str, file_name: str) -> Response:
    """A file under another name.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaidfilename
    """
    return media.download(server_name, media_id, file_name, is_public=_is_public())


@bp.get("/thumbnail/<server_name>/<media_id>")
@authenticated(optional=True, guests=True)
def get_content_thumbnail(server_name: str, media_id: str) -> Response:
    """A picture, smaller.

    Spec: client-server-api#get_matrixmediav3thumbnailservernamemediaid
    """
    return media.thumbnail(server_name, media_id, is_public=_is_public())


def _is_public() -> bool:
    """Whether anybody may have the file. Raises M_NOT_FOUND for who shows no token, unless so set.

    Spec: client-server-api#content-repo-client-behaviour ("freeze")
    """
    if maybe_requester() is not None:
        return False
    if not context.server().config.media_without_token:
        raise errors.not_found("Files are only given to who shows an access token")
    return True
