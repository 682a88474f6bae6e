"""How a request arrives here, for `homebody doctor`: it shows what the proxy has done to it.

The command proves that it can read the server's signing key; for everybody else, the path does not
exist.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import access_token, unauthenticated
from homebody.context import homeserver
from homebody.doctor import proof
from homebody.runtime import event_loop
from homebody.spec.events import Json

bp = Blueprint("probe", __name__)

MAX_WAIT_S: Final = 120
STREAM_PAUSE_S: Final = 1.5
PEER: Final = "homebody.peer"
"""The key in `environ` of the address of a proxy, where that of the client replaced it."""
_PIECE_BYTES: Final = 65_536


@bp.route("/_matrix/client/v3/homebody.doctor/<path:_rest>", methods=["GET", "POST"])
@unauthenticated
def arrival(_rest: str) -> Json | Response:
    """Return how the request arrived, after `wait` seconds, or with `stream` in two parts.

    Raises M_UNRECOGNIZED without a valid proof.
    """
    text = request.headers.get(proof.HEADER, "")
    if not proof.is_valid(homeserver.server.signing_key, text, time.time()):
        raise errors.unrecognized()
    body_bytes = _read_body()
    if wait_s := http.query_integer("wait", 0, cap=MAX_WAIT_S):
        time.sleep(wait_s)
    if http.query_boolean("stream"):
        return Response(_in_two_parts(request.environ.get("gunicorn.socket")))
    environ = request.environ
    peer = environ.get(PEER, request.remote_addr)
    return {
        "path": environ.get("RAW_URI", "").partition("?")[0],
        "protocol": environ.get("SERVER_PROTOCOL"),
        "address": request.remote_addr,
        "peer": peer,
        "is_trusted": homeserver.server.config.is_trusted_proxy(peer or ""),
        "scheme": request.scheme,
        "forwarded_for": request.headers.get("X-Forwarded-For"),
        "forwarded_proto": request.headers.get("X-Forwarded-Proto"),
        "has_token": access_token() is not None,
        "body_bytes": body_bytes,
    }


def _read_body() -> int:
    """Read the body and drop it; return its length."""
    count = 0
    while piece := request.stream.read(_PIECE_BYTES):
        count += len(piece)
        event_loop.pause()
    return count


def _in_two_parts(connection: Any) -> Iterator[bytes]:
    """Yield the first part, and the second after a pause."""
    yield b"first\n"
    if flush := getattr(connection, "flush", None):
        flush()  # or it would wait for more
    time.sleep(STREAM_PAUSE_S)
    yield b"second\n"
