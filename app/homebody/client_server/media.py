"""Files and thumbnails, for users of this server.

Spec: client-server-api#content-repository
"""

from __future__ import annotations

from typing import Final, Literal, cast

from flask import Blueprint, Response, request

from homebody import context, errors
from homebody.client_server import file_answers, http
from homebody.client_server.authentication import address_key, authenticated, maybe_requester
from homebody.core.media import files, store, thumbnails
from homebody.spec.events import Json

bp = Blueprint("media", __name__, url_prefix="/_matrix/client/v1/media")

TIMEOUT_MS: Final = 20_000
MAX_TIMEOUT_MS: Final = 60_000
"""How long a download may wait for a content that has not been uploaded yet."""


@bp.get("/config")
@authenticated()
def get_config_authed() -> Json:
    """How large a file may be.

    Spec: client-server-api#get_matrixclientv1mediaconfig
    """
    return {"m.upload.size": context.server().config.max_upload_bytes}


@bp.get("/download/<server_name>/<media_id>")
@authenticated(guests=True)
def get_content_authed(server_name: str, media_id: str) -> Response:
    """A file.

    Spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaid
    """
    return download(server_name, media_id, is_public=False)


@bp.get("/download/<server_name>/<media_id>/<file_name>")
@authenticated(guests=True)
def get_content_override_name_authed(server_name: str, media_id: str, file_name: str) -> Response:
    """A file under another name.

    Spec: client-server-api#get_matrixclientv1mediadownloadservernamemediaidfilename
    """
    return download(server_name, media_id, file_name, is_public=False)


@bp.get("/thumbnail/<server_name>/<media_id>")
@authenticated(guests=True)
def get_content_thumbnail_authed(server_name: str, media_id: str) -> Response:
    """A picture, smaller.

    Spec: client-server-api#get_matrixclientv1mediathumbnailservernamemediaid
    """
    return thumbnail(server_name, media_id, is_public=False)


def download(
    server_name: str, media_id: str, file_name: str | None = None, *, is_public: bool
) -> Response:
    """The answer to a download on the new path or an old one."""
    found = _find(server_name, media_id)
    path = files.content_path(context.server().config.data_dir, found.sha256)
    return file_answers.send(
        file_answers.File(
            path,
            found.size_bytes,
            found.content_type,
            file_name or found.file_name,
            tag=found.sha256,
            is_public=is_public,
        )
    )


def thumbnail(server_name: str, media_id: str, *, is_public: bool) -> Response:
    """The answer to a request for a thumbnail on the new path or an old one."""
    wish = thumbnails.Wish(
        _side("width"),
        _side("height"),
        _method(),
        may_move=http.query_boolean("animated"),
    )
    found = _find(server_name, media_id)
    who = maybe_requester()
    asker = address_key() if who is None else who.user_id
    made = thumbnails.get(context.server().config.data_dir, found.sha256, wish, asker)
    return file_answers.send(
        file_answers.File(
            made.path,
            made.path.stat().st_size,
            made.media_type,
            f"thumbnail.{made.media_type.removeprefix('image/')}",
            tag=f"{found.sha256}-{made.name}",
            is_public=is_public,
        )
    )


def _find(server_name: str, media_id: str) -> store.Found:
    timeout_ms = http.query_integer("timeout_ms", TIMEOUT_MS, cap=MAX_TIMEOUT_MS)
    connection = request.environ.get("gunicorn.socket")
    return store.find(
        context.db(), context.homeserver().wakeups, server_name, media_id, timeout_ms, connection
    )


def _side(name: str) -> int:
    """A width or a height. Raises M_MISSING_PARAM, M_INVALID_PARAM."""
    http.query_required(name)
    return http.query_integer(name, 0, least=1, cap=thumbnails.MAX_SIDE)


def _method() -> Literal["crop", "scale"]:
    method = request.args.get("method", "scale")
    if method not in {"crop", "scale"}:
        raise errors.invalid_param("method must be crop or scale")
    return cast('Literal["crop", "scale"]', method)
