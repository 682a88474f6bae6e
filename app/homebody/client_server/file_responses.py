"""Responses with a file: headers for browsers and caches, ranges, and 304.

Files come from strangers, and are served from the homeserver's own address. So the headers keep
browsers from running anything in them, and only types without scripts are shown inline.

Spec: client-server-api#serving-inline-content, client-server-api#content-repository
"""

from __future__ import annotations

import itertools
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

import orjson
from flask import Response, request

from homebody import errors
from homebody.core.media import files

SAFE_INLINE: Final = {
    "text": {"css", "plain", "csv"},
    "application": {"json", "ld+json"},
    "image": {"jpeg", "gif", "png", "apng", "webp", "avif"},
    "video": {"mp4", "webm", "ogg", "quicktime"},
    "audio": {
        *("mp4", "webm", "aac", "mpeg", "ogg", "flac", "x-flac"),
        *("wave", "wav", "x-wav", "x-pn-wav"),
    },
}
"""The specification's list."""
_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE: Final = re.compile(
    rf"({_NAME})/({_NAME})(?:[ \t]*;[ \t]*{_NAME}=(?:{_NAME}|\"[^\",;\\]*\"))*", re.ASCII
)
"""One media type with complete parameters. Browsers accept a list of types in this header, and use
the last one that they know: they render `image/png;, text/html` as a page."""
SAFETY_HEADERS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none';"
    " plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_PART_HEADERS: Final = ("Content-Type", "Content-Disposition")
IMMUTABLE: Final = "max-age=31536000, immutable"
"""A year: the content of an mxc URI never changes."""


@dataclass(frozen=True, slots=True)
class File:
    """The file to send. `tag` differs wherever the bytes differ."""

    path: Path
    size_bytes: int
    content_type: str
    file_name: str | None
    tag: str
    is_public: bool  # whether shared caches may keep it


def send(file: File) -> Response:
    """Return a response with the file or the requested range, or 304 when the client has it."""
    response = Response(headers=_headers(file), direct_passthrough=True)
    response.set_etag(file.tag)
    if request.if_none_match.contains_weak(file.tag):
        response.status_code = 304
        return response
    start, stop = 0, file.size_bytes
    if (wanted := _range(file)) is not None:
        if wanted.stop <= wanted.start:
            return _unsatisfiable(file)
        start, stop = wanted.start, wanted.stop
        response.status_code = 206
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size_bytes}"
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Content-Length"] = str(stop - start)
    response.response = files.pieces(file.path, start, stop - start)
    return response


def send_multipart(file: File) -> Response:
    """Return a response to another server: an empty JSON object, then the file.

    Spec: server-server-api#get_matrixfederationv1mediadownloadmediaid
    """
    boundary = secrets.token_hex(16)
    shown = _headers(file)
    headers = "".join(f"{name}: {shown[name]}\r\n" for name in _PART_HEADERS)
    head = (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n"
        f"--{boundary}\r\n{headers}\r\n"
    ).encode("latin-1")
    tail = f"\r\n--{boundary}--\r\n".encode()
    response = Response(
        itertools.chain([head], files.pieces(file.path, 0, file.size_bytes), [tail]),
        content_type=f"multipart/mixed; boundary={boundary}",
        direct_passthrough=True,
    )
    response.headers["Content-Length"] = str(len(head) + file.size_bytes + len(tail))
    return response


def _headers(file: File) -> dict[str, str]:
    return {
        **SAFETY_HEADERS,
        "Content-Type": file.content_type,
        "Content-Disposition": disposition(file.file_name, is_inline=_is_safe(file.content_type)),
        "Cache-Control": f"{'public' if file.is_public else 'private'}, {IMMUTABLE}",
    }


def _is_safe(content_type: str) -> bool:
    """Return whether no browser runs scripts in a file of this type, however it parses the type.

    The uploader chose the type: anything but exactly one type of the list is unsafe.
    """
    parts = _MEDIA_TYPE.fullmatch(content_type)
    return parts is not None and parts[2].lower() in SAFE_INLINE.get(parts[1].lower(), ())


def disposition(file_name: str | None, *, is_inline: bool) -> str:
    """Return the value of Content-Disposition, with the name in ASCII as well as by RFC 5987."""
    kind = "inline" if is_inline else "attachment"
    if not file_name:
        return kind
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in file_name)
    value = f'{kind}; filename="{plain}"'
    if plain != file_name:
        value += f"; filename*=utf-8''{quote(file_name, safe='', errors='replace')}"
    return value


def _range(file: File) -> range | None:
    """Return the requested bytes: an empty range if it is not satisfiable, None for the whole file.

    Several ranges, other units and malformed headers get the whole file, as RFC 9110 allows.
    """
    header = request.range
    if header is None or header.units != "bytes" or len(header.ranges) != 1:
        return None
    if request.method != "GET":
        return None
    if "If-Range" in request.headers and request.if_range.etag != file.tag:
        return None
    start, stop = header.ranges[0]
    if start < 0:  # the last bytes
        start = max(0, file.size_bytes + start)
    return range(start, file.size_bytes if stop is None else min(stop, file.size_bytes))


def _unsatisfiable(file: File) -> Response:
    """Return a 416, which states the size of the file."""
    error = errors.unknown("The range is not within the file", 416)
    return Response(
        orjson.dumps(error.body),
        error.status,
        {"Content-Range": f"bytes */{file.size_bytes}", "Accept-Ranges": "bytes"},
        mimetype="application/json",
    )
