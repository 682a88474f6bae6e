"""Files of this server's users, for other servers.

Spec: server-server-api#content-repository
"""

from __future__ import annotations

from flask import Blueprint, Response

from homebody.client_server import file_responses, media
from homebody.context import homeserver
from homebody.server_server.authentication import from_server, origin

bp = Blueprint("server_media", __name__)


@bp.get("/v1/media/download/<media_id>")
@from_server
def get_content(media_id: str) -> Response:
    """Return a file. Raises M_NOT_FOUND, M_NOT_YET_UPLOADED."""
    found = media.stored_file(homeserver.server.name, media_id, is_public=False)
    return file_responses.send_multipart(found)


@bp.get("/v1/media/thumbnail/<media_id>")
@from_server
def get_content_thumbnail(media_id: str) -> Response:
    """Return a thumbnail. Raises as `get_content` does, and what `thumbnails.get` raises."""
    scaled = media.scaled_file(homeserver.server.name, media_id, origin(), is_public=False)
    return file_responses.send_multipart(scaled)
