"""Files, thumbnails, and previews of links.

Spec: client-server-api#content-repository, client-server-api#content-repo-client-behaviour
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final, Literal, cast

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication, file_responses, http
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    maybe_requester,
    requester,
)
from homebody.client_server.file_responses import File
from homebody.context import homeserver
from homebody.core.media import files, limits, store, thumbnails, url_previews
from homebody.spec.events import Json

bp = Blueprint("media", __name__, url_prefix="/_matrix/client/v1/media")
bp_old = Blueprint("media_old", __name__, url_prefix="/_matrix/media/v3")
bp_upload = Blueprint("media_upload", __name__, url_prefix="/_matrix/media")

TIMEOUT_MS: Final = 20_000
MAX_TIMEOUT_MS: Final = 60_000
"""How long a download may wait for content that has not been uploaded yet."""


@bp.get("/config")
@authenticated()
def get_config_authed() -> Json:
    """Return how large a file may be.

    Spec: client-server-api#get_matrixclientv1mediaconfig
    """
    return _config()


@bp.get("/download/<server_name>/<media_id>")
@authenticated(guests=True)
def get_content_authed(server_name: str, media_id: str) -> Response:
    """Return a file.

    Spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaid
    """
    return download(server_name, media_id, is_public=False)


@bp.get("/download/<server_name>/<media_id>/<file_name>")
@authenticated(guests=True)
def get_content_override_name_authed(server_name: str, media_id: str, file_name: str) -> Response:
    """Return a file under another name.

    Spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaidfilename
    """
    return download(server_name, media_id, file_name, is_public=False)


@bp.get("/thumbnail/<server_name>/<media_id>")
@authenticated(guests=True)
def get_content_thumbnail_authed(server_name: str, media_id: str) -> Response:
    """Return a thumbnail of an image.

    Spec: client-server-api#get_matrixclientv1mediathumbnailservernamemediaid
    """
    return thumbnail(server_name, media_id, is_public=False)


def download(
    server_name: str, media_id: str, file_name: str | None = None, *, is_public: bool
) -> Response:
    """Return the file for a download, on the current or an old path."""
    found = stored_file(server_name, media_id, is_public=is_public)
    return file_responses.send(replace(found, file_name=file_name or found.file_name))


def thumbnail(server_name: str, media_id: str, *, is_public: bool) -> Response:
    """Return a thumbnail, on the current or an old path."""
    user = maybe_requester()
    key = address_key() if user is None else user.user_id
    return file_responses.send(scaled_file(server_name, media_id, key, is_public=is_public))


def stored_file(server_name: str, media_id: str, *, is_public: bool) -> File:
    """Return a file to send. Raises as `find` does."""
    found = find(server_name, media_id)
    return File(
        found.path,
        found.size_bytes,
        found.content_type,
        found.file_name,
        tag=found.tag,
        is_public=is_public,
    )


def scaled_file(server_name: str, media_id: str, requester: str, *, is_public: bool) -> File:
    """Return the thumbnail in the query to send. Raises as `find` and `thumbnails.get` do."""
    wanted = thumbnail_request()
    found = find(server_name, media_id)
    scaled = thumbnails.get(homeserver.server.config.data_dir, found, wanted, requester)
    return File(
        scaled.path,
        scaled.path.stat().st_size,
        scaled.media_type,
        f"thumbnail.{scaled.media_type.removeprefix('image/')}",
        tag=f"{found.tag}-{scaled.name}",
        is_public=is_public,
    )


def thumbnail_request() -> thumbnails.ThumbnailRequest:
    """Return the size in the query. Raises M_MISSING_PARAM, M_INVALID_PARAM."""
    is_animated = http.query_boolean("animated")
    return thumbnails.ThumbnailRequest(
        _side("width"), _side("height"), _method(), animated=is_animated
    )


def find(server_name: str, media_id: str) -> files.StoredFile:
    """Return a file, also of another server; wait for its content as long as the query says.

    Raises M_NOT_FOUND, M_NOT_YET_UPLOADED, and as `RemoteMedia.find` does.
    """
    timeout_ms = http.query_integer("timeout_ms", TIMEOUT_MS, cap=MAX_TIMEOUT_MS)
    if server_name != homeserver.server.name:
        if not http.query_boolean("allow_remote", default=True):
            raise errors.not_found("This file is on another server")
        return homeserver.remote_media.find(server_name, media_id, timeout_ms, _limit_fetches)
    connection = request.environ.get("gunicorn.socket")
    here = homeserver
    found = store.find(here.database, here.wakeups, server_name, media_id, timeout_ms, connection)
    here.media_used.note(media_id)
    return found


def _limit_fetches() -> None:
    user = maybe_requester()
    key = address_key() if user is None else user.user_id
    authentication.rate_limits().check("rc_remote_media", key)


def _side(name: str) -> int:
    """Return the width or the height. Raises M_MISSING_PARAM, M_INVALID_PARAM."""
    http.query_required(name)
    return http.query_integer(name, 0, least=1, cap=thumbnails.MAX_SIDE)


def _method() -> Literal["crop", "scale"]:
    method = request.args.get("method", "scale")
    if method not in {"crop", "scale"}:
        raise errors.invalid_param("method must be crop or scale")
    return cast('Literal["crop", "scale"]', method)


# Deviates: these paths accept a token although they never needed one: clients from before
# authenticated media download from here.


@bp_old.get("/config")
@authenticated()
def get_config() -> Json:
    """Return how large a file may be.

    Spec: client-server-api#get_matrixmediav3config
    """
    return _config()


@bp_old.get("/download/<server_name>/<media_id>")
@authenticated(optional=True, guests=True)
def get_content(server_name: str, media_id: str) -> Response:
    """Return a file.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaid
    """
    return download(server_name, media_id, is_public=_is_public())


@bp_old.get("/download/<server_name>/<media_id>/<file_name>")
@authenticated(optional=True, guests=True)
def get_content_override_name(server_name: str, media_id: str, file_name: str) -> Response:
    """Return a file under another name.

    Spec: client-server-api#get_matrixmediav3downloadservernamemediaidfilename
    """
    return download(server_name, media_id, file_name, is_public=_is_public())


@bp_old.get("/thumbnail/<server_name>/<media_id>")
@authenticated(optional=True, guests=True)
def get_content_thumbnail(server_name: str, media_id: str) -> Response:
    """Return a thumbnail of an image.

    Spec: client-server-api#get_matrixmediav3thumbnailservernamemediaid
    """
    return thumbnail(server_name, media_id, is_public=_is_public())


def _is_public() -> bool:
    """Return whether caches may share the file, as it needs no token.

    Raises M_NOT_FOUND for requests without a token, unless the settings allow them.

    Spec: client-server-api#content-repo-client-behaviour ("freeze")
    """
    if maybe_requester() is not None:
        return False
    if not homeserver.server.config.media_without_token:
        raise errors.not_found("Files can be downloaded only with an access token")
    return True


def _config() -> Json:
    """Return the limit of a file's size, which a small quota of the user lowers."""
    with homeserver.database.read() as tx:
        limit = limits.of(tx, requester().user_id)
    return {"m.upload.size": min(homeserver.server.config.max_upload_bytes, limit)}


MAX_FILE_NAME: Final = 255
_CONTENT_TYPE: Final = re.compile(r"[!-~][ -~]{0,254}")


@bp_upload.post("/v3/upload")
@authenticated()
def upload_content() -> Json:
    """Upload a file.

    Spec: client-server-api#post_matrixmediav3upload
    """
    return {"content_uri": store.upload(homeserver.database, requester().user_id, _upload())}


@bp_upload.put("/v3/upload/<server_name>/<media_id>")
@authenticated()
def upload_content_to_mxc(server_name: str, media_id: str) -> Json:
    """Upload the file for an mxc URI that was created before.

    Spec: client-server-api#put_matrixmediav3uploadservernamemediaid
    """
    store.fill(homeserver.database, requester().user_id, server_name, media_id, _upload())
    return {}


@bp_upload.post("/v1/create")
@authenticated()
def create_content() -> Json:
    """Create an mxc URI whose content is uploaded later.

    Spec: client-server-api#post_matrixmediav1create
    """
    user_id = requester().user_id
    authentication.rate_limits().check("rc_media_create", user_id)
    with homeserver.database.write() as tx:
        uri, expires_ts = store.create(tx, user_id)
    return {"content_uri": uri, "unused_expires_at": expires_ts}


def _upload() -> store.Upload:
    """Return the upload, its body still unread. Raises M_TOO_LARGE by the Content-Length."""
    max_bytes = homeserver.server.config.max_upload_bytes
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
    """The body of this request, which ends only when all of its Content-Length was received."""

    def __init__(self) -> None:
        self._stream = request.stream
        self._missing = request.content_length
        connection = request.environ.get("gunicorn.socket")
        self._from_socket = getattr(connection, "read_body_into", None)
        self._input = request.environ["wsgi.input"]

    def read_into(self, buffer: memoryview) -> int:
        """Read into the buffer, and return how many bytes; 0 at the end.

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
            authentication.check_still_valid()  # now, as a refused upload leaves no file
        return count

    def _read_into(self, buffer: memoryview) -> int:
        if self._missing is not None and self._from_socket is not None:
            return int(self._from_socket(self._input, buffer))
        piece = self._stream.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


@bp.get("/preview_url")
@authenticated()
def get_url_preview_authed() -> Json:
    """Return the preview of a link.

    Spec: client-server-api#get_matrixclientv1mediapreview_url
    """
    return _preview()


@bp_old.get("/preview_url")
@authenticated()
def get_url_preview() -> Json:
    """Return the preview of a link, on the old path.

    Spec: client-server-api#get_matrixmediav3preview_url
    """
    return _preview()


def _preview() -> Json:
    if not homeserver.server.config.url_previews:
        raise errors.unrecognized("URL previews are switched off on this server")
    url = http.query_required("url")
    # Otherwise ignored: "The server may return a newer version if it does not have the
    # requested version available"
    http.query_integer("ts", 0)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_lookups", user_id)
    here = homeserver
    return url_previews.get(here.database, here.outside, here.repeats, url, user_id)
