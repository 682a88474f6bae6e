"""Files of this server's users, for other servers.

Spec: server-server-api#content-repository
"""

from __future__ import annotations

from flask import Blueprint, Response

from homebody.client_server import file_responses, media
from homebody.context import homeserver
from homebody.core.media import thumbnails
from homebody.server_server.authentication import from_server, origin

bp = Blueprint("server_media", __name__)


@bp.get("/v1/media/download/<media_id>")
@from_server
def get_content(media_id: str) -> Response:
    """Return a file. Raises M_NOT_FOUND, M_NOT_YET_UPLOADED."""
    found = media.find(homeserver.server.name, media_id)
    return file_responses.send_multipart(
        file_responses.File(
            found.path,
            found.size_bytes,
            found.content_type,
            found.file_name,
            tag=found.tag,
            is_public=False,
        )
    )


@bp.get("/v1/media/thumbnail/<media_id>")
@from_server
def get_content_thumbnail(media_id: str) -> Response:
    """Return a thumbnail. Raises as `get_content` does, and what `thumbnails.get` raises."""
    wanted = media.thumbnail_request()
    found = media.find(homeserver.server.name, media_id)
    scaled = thumbnails.get(homeserver.server.config.data_dir, found, wanted, origin())
    return file_responses.send_multipart(
        file_responses.File(
            scaled.path,
            scaled.path.stat().st_size,
            scaled.media_type,
            f"thumbnail.{scaled.media_type.removeprefix('image/')}",
            tag=f"{found.tag}-{scaled.name}",
            is_public=False,
        )
    )
