"""Uploading files, at once or to an address that was made before.

Spec: client-server-api#content-repository
"""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import authentication
from homebody.client_server.authentication import authenticated, requester
from homebody.core.media import store
from homebody.spec.events import Json

bp = Blueprint("media_upload", __name__, url_prefix="/_matrix/media")

MAX_FILE_NAME: Final = 255
_CONTENT_TYPE: Final = re.compile(r"[!-~][ -~]{0,254}")


@bp.post("/v3/upload")
@authenticated()
def upload_content() -> Json:
    """Take a file.

    Spec: client-server-api#post_matrixmediav3upload
    """
    return {"content_uri": store.upload(context.db(), requester().user_id, _upload())}


@bp.put("/v3/upload/<server_name>/<media_id>")
@authenticated()
def upload_content_to_mxc(server_name: str, media_id: str) -> Json:
    """Take the file for an address that was made before.

    Spec: client-server-api#put_matrixmediav3uploadservernamemediaid
    """
    store.fill(context.db(), requester().user_id, server_name, media_id, _upload())
    return {}


@bp.post("/v1/create")
@authenticated()
def create_content() -> Json:
    """Make an address whose content comes later.

    Spec: client-server-api#post_matrixmediav1create
    """
    user_id = requester().user_id
    context.rate_limits().check("rc_media_create", user_id)
    with context.db().write() as tx:
        uri, expires_ts = store.create(tx, user_id)
    return {"content_uri": uri, "unused_expires_at": expires_ts}


def _upload() -> store.Upload:
    """What the request brings, with its body unread. Raises M_TOO_LARGE where it says so itself."""
    max_bytes = context.server().config.max_upload_bytes
    if (request.content_length or 0) > max_bytes:
        raise errors.too_large(f"The file is larger than {max_bytes} bytes")
    content_type = request.headers.get("Content-Type", "")
    if not _CONTENT_TYPE.fullmatch(content_type):
        content_type = "application/octet-stream"
    name = request.args.get("filename") or None
    return store.Upload(
        _Body().read_into,
        content_type,
        name and name[:MAX_FILE_NAME],
        request.content_length,
        is_counted=requester().service is None,
    )


class _Body:
    """The body of this request, which is at its end only when all that was announced has come."""

    def __init__(self) -> None:
        self._stream = request.stream
        self._missing = request.content_length
        connection = request.environ.get("gunicorn.socket")
        self._from_socket = getattr(connection, "read_body_into", None)
        self._input = request.environ["wsgi.input"]

    def read_into(self, buffer: memoryview) -> int:
        """Return how many bytes came; 0 at the end.

        Raises M_UNKNOWN when the client hung up, M_UNKNOWN_TOKEN when its session ended meanwhile.
        """
        if self._missing is not None:
            buffer = buffer[: self._missing]
        try:
            count = self._read_into(buffer)
        except Exception as error:  # each HTTP server has its own for a bad chunk
            raise errors.unknown("The body could not be read to its end") from error
        if self._missing is not None:
            self._missing -= count
            if not count and self._missing > 0:
                raise errors.unknown("The body ended early")
        if not count:
            authentication.check_still_valid()  # now, as the file of a refused upload is not kept
        return count

    def _read_into(self, buffer: memoryview) -> int:
        if self._missing is not None and self._from_socket is not None:
            return int(self._from_socket(self._input, buffer))
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
