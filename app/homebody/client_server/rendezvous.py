"""Rendezvous of two devices, of which one logs the other in by a QR code and the device grant.

Two dialects of one session: that of MSC4388, and that of MSC4108 of 2024, in which the text is the
body and its token an ETag. matrix-rust-sdk 0.19 and matrix-js-sdk 43 use the second.

Neither is in the specification. Where the OAuth 2.0 API is switched off there is nothing to log in
by, so all of them are M_UNRECOGNIZED.
"""

from __future__ import annotations

import time
from typing import Final

import msgspec
from flask import Blueprint, Response, request
from werkzeug.datastructures import Headers
from werkzeug.http import http_date

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.context import homeserver
from homebody.core.oauth import metadata
from homebody.core.sessions.rendezvous import MAX_BYTES, Rendezvous, Session
from homebody.spec.events import Json

bp = Blueprint("rendezvous", __name__)

OLD: Final = "/org.matrix.msc4108/rendezvous"  # for clients /unstable: see middleware.py
NEW: Final = "/io.element.msc4388/rendezvous"
MAX_BODY_BYTES: Final = 8 * MAX_BYTES
"""Of JSON, which may escape each byte of the data."""


class Data(msgspec.Struct):
    """The body of POST."""

    data: str


class Update(msgspec.Struct):
    """The body of PUT."""

    data: str
    sequence_token: str


class Text(Response):
    """A response with the text of a session, or without it (304)."""

    def get_wsgi_headers(self, environ: dict[str, object]) -> Headers:
        """Return the headers; matrix-rust-sdk also needs what Werkzeug removes from a 304."""
        headers = super().get_wsgi_headers(environ)
        headers["Last-Modified"] = self.headers["Last-Modified"]
        return headers


@bp.get(NEW)
@unauthenticated
def discover_rendezvous() -> Json:
    """Return whether the requester may begin a session."""
    _sessions()
    return {"create_available": True}


@bp.post(NEW)
@unauthenticated
def create_rendezvous() -> Json:
    """Begin a session."""
    sessions = _sessions()
    authentication.rate_limits().check("rc_registration", address_key())
    body = http.body_as(Data, max_bytes=MAX_BODY_BYTES)
    begun = sessions.create(body.data.encode())
    return {"id": begun.id, **_described(begun)}


@bp.get(f"{NEW}/<rendezvous_id>")
@unauthenticated
def get_rendezvous(rendezvous_id: str) -> Json:
    """Return the text of a session."""
    found = _find(rendezvous_id)
    return {"data": found.data.decode(errors="replace"), **_described(found)}


@bp.put(f"{NEW}/<rendezvous_id>")
@unauthenticated
def put_rendezvous(rendezvous_id: str) -> Json:
    """Replace the text of a session."""
    sessions, body = _sessions(), http.body_as(Update, max_bytes=MAX_BODY_BYTES)
    token, data = body.sequence_token, body.data.encode()
    return {"sequence_token": sessions.put(rendezvous_id, token, data, is_repeatable=True).token}


@bp.delete(f"{NEW}/<rendezvous_id>")
@unauthenticated
def delete_rendezvous(rendezvous_id: str) -> Json:
    """End a session."""
    _sessions().delete(rendezvous_id)
    return {}


@bp.post(OLD)
@unauthenticated
def create_rendezvous_2024() -> Response:
    """Begin a session, and return its URL."""
    sessions = _sessions()
    authentication.rate_limits().check("rc_registration", address_key())
    begun = sessions.create(http.raw_body(MAX_BYTES))
    base = homeserver.server.config.public_url.rstrip("/")
    url = f"{base}/_matrix/client/unstable{OLD}/{begun.id}"
    response = Response(msgspec.json.encode({"url": url}), 201, mimetype="application/json")
    return _with_headers(response, begun)


@bp.get(f"{OLD}/<rendezvous_id>")
@unauthenticated
def get_rendezvous_2024(rendezvous_id: str) -> Response:
    """Return the text of a session, or 304 if the client has it."""
    found = _find(rendezvous_id)
    if _token_of(request.headers.get("If-None-Match", "")) == found.token:
        return _with_headers(Text(status=304), found)
    return _with_headers(Text(found.data, content_type="text/plain"), found)


@bp.put(f"{OLD}/<rendezvous_id>")
@unauthenticated
def put_rendezvous_2024(rendezvous_id: str) -> Response:
    """Replace the text of a session."""
    sessions, known = _sessions(), request.headers.get("If-Match")
    if known is None:
        raise errors.missing_param("If-Match is missing")
    data = http.raw_body(MAX_BYTES)
    try:
        found = sessions.put(rendezvous_id, _token_of(known), data, is_repeatable=False)
    except errors.MatrixError as error:
        if error.status == 409:
            code = {"org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE"}
            raise errors.MatrixError(412, "M_UNKNOWN", error.message, **code) from error
        raise
    return _with_headers(Response(status=202), found)


@bp.delete(f"{OLD}/<rendezvous_id>")
@unauthenticated
def delete_rendezvous_2024(rendezvous_id: str) -> Response:
    """End a session."""
    _sessions().delete(rendezvous_id)
    return Response(status=204)


def _sessions() -> Rendezvous:
    metadata.check_on(homeserver.server.config)
    return homeserver.rendezvous


def _find(rendezvous_id: str) -> Session:
    """Return a session to read from.

    Raises M_FORBIDDEN for a browser that would show the text as a page: it may come from anybody.
    """
    if "navigate" in request.headers.get("Sec-Fetch-Mode", ""):
        raise errors.forbidden("This is for clients, and not to be looked at")
    return _sessions().get(rendezvous_id)


def _described(session: Session) -> Json:
    return {"sequence_token": session.token, "expires_in_ms": session.expires_in_ms}


def _token_of(etag: str) -> str:
    """Return the token in an ETag; a proxy that compresses the text makes it a weak one."""
    return etag.removeprefix("W/").strip('"')


def _with_headers(response: Response, session: Session) -> Response:
    response.headers["ETag"] = f'"{session.token}"'
    ends = time.time() + session.expires_in_ms / 1000
    response.headers["Expires"] = http_date(ends)
    response.headers["Last-Modified"] = http_date(session.written)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
