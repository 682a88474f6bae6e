"""Sending a file: what a browser may do with it, how long it may keep it, which part it wants.

Files come from strangers, and are served from the address of the homeserver. So a browser is told
to run nothing in them, and shows only those types itself that can't contain a script.

Spec: client-server-api#serving-inline-content, client-server-api#content-repository
"""

from __future__ import annotations

import re
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
"""One media type with whole parameters. Browsers read a list of types in this header, and take the
last one that they understand: `image/png;, text/html` is a page to them."""
SAFETY_HEADERS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none';"
    " plugin-types application/pdf; style-src 'unsafe-inline'; object-src 'self';",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
IMMUTABLE: Final = "max-age=31536000, immutable"
"""A year: an mxc:// address never gets another content."""


@dataclass(frozen=True, slots=True)
class File:
    """What to send. `tag` differs wherever the bytes differ."""

    path: Path
    size_bytes: int
    content_type: str
    file_name: str | None
    tag: str
    is_public: bool  # whether a cache between us and the client may keep it for others


def send(file: File) -> Response:
    """All of a file, the range of it that is asked for, or 304 when the client has it already."""
    answer = Response(headers=_headers(file), direct_passthrough=True)
    answer.set_etag(file.tag)
    if request.if_none_match.contains_weak(file.tag):
        answer.status_code = 304
        return answer
    start, stop = 0, file.size_bytes
    if (wanted := _range(file)) is not None:
        if wanted.stop <= wanted.start:
            return _unsatisfiable(file)
        start, stop = wanted.start, wanted.stop
        answer.status_code = 206
        answer.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size_bytes}"
    answer.headers["Accept-Ranges"] = "bytes"
    answer.headers["Content-Length"] = str(stop - start)
    answer.response = files.pieces(file.path, start, stop - start)
    return answer


def _headers(file: File) -> dict[str, str]:
    return {
        **SAFETY_HEADERS,
        "Content-Type": file.content_type,
        "Content-Disposition": disposition(file.file_name, is_inline=_is_safe(file.content_type)),
        "Cache-Control": f"{'public' if file.is_public else 'private'}, {IMMUTABLE}",
    }


def _is_safe(content_type: str) -> bool:
    """Return whether a browser that shows this type itself runs nothing in it, however it reads it.

    The header is what the sender of the file wrote: whatever is not exactly one known type is not.
    """
    parts = _MEDIA_TYPE.fullmatch(content_type)
    return parts is not None and parts[2].lower() in SAFE_INLINE.get(parts[1].lower(), ())


def disposition(file_name: str | None, *, is_inline: bool) -> str:
    """The header's value: the name for who knows RFC 5987, and its ASCII for who does not."""
    kind = "inline" if is_inline else "attachment"
    if not file_name:
        return kind
    plain = "".join(c if " " <= c <= "~" and c not in '"\\%' else "_" for c in file_name)
    value = f'{kind}; filename="{plain}"'
    if plain != file_name:
        value += f"; filename*=utf-8''{quote(file_name, safe='', errors='replace')}"
    return value


def _range(file: File) -> range | None:
    """The bytes that are asked for; empty when there are none such, None when all are.

    Several ranges at once, other units and what can't be parsed count as all, as RFC 9110 allows.
    """
    asked = request.range
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1 or request.method != "GET":
        return None
    if "If-Range" in request.headers and request.if_range.etag != file.tag:
        return None
    start, stop = asked.ranges[0]
    if start < 0:  # the last so many
        start = max(0, file.size_bytes + start)
    return range(start, file.size_bytes if stop is None else min(stop, file.size_bytes))


def _unsatisfiable(file: File) -> Response:
    """416, which has to say how large the file is."""
    error = errors.unknown("The file has no such range", 416)
    return Response(
        orjson.dumps(error.body),
        error.status,
        {"Content-Range": f"bytes */{file.size_bytes}", "Accept-Ranges": "bytes"},
        mimetype="application/json",
    )
