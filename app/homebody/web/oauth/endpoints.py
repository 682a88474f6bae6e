"""The endpoints that clients call: registration, tokens, revocation, device authorization.

Their errors are those of the RFCs: `{"error": code, "error_description": …}`.

Spec: client-server-api#client-registration, client-server-api#grant-types,
client-server-api#token-revocation, client-server-api#device-authorisation-flow
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

import orjson
from flask import Blueprint, Response, request

from homebody.client_server import authentication, http
from homebody.client_server.authentication import Access, address_key
from homebody.context import homeserver
from homebody.core.oauth import (
    client_metadata,
    clients,
    codes,
    device_codes,
    metadata,
    refusals,
    sessions,
)
from homebody.core.oauth.clients import Client
from homebody.core.oauth.refusals import OAuthError, ReplayError
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Tx

bp = Blueprint("oauth_endpoints", __name__)

FORM: Final = "application/x-www-form-urlencoded"
MAX_FORM_BYTES: Final = 50_000
Form = dict[str, str]


def endpoint(view: Callable[[], Json | tuple[Json, int]]) -> Callable[[], Response]:
    """Run a view that clients call without an access token, and respond as the RFCs say.

    It returns the body of the response, with the status unless that is 200.
    """

    @functools.wraps(view)
    def checked() -> Response:
        try:
            authentication.count_change(None)
            found = view()
            return _respond(*(found if isinstance(found, tuple) else (found, 200)))
        except OAuthError as error:
            body = {"error": error.code, "error_description": error.description}
            return _respond(body, error.status)
        except MatrixError as error:
            return _respond_to_fault(error)

    authentication.declared[checked] = Access("none", guests=True, suspended=True, locked=True)
    return checked


@bp.post("/clients")
@endpoint
def register_client() -> tuple[Json, int]:
    """Register a client: the same metadata give the same client."""
    metadata.check_on(homeserver.server.config)
    authentication.rate_limits().check("rc_registration", address_key())
    body = http.json_object(max_bytes=MAX_FORM_BYTES)
    with homeserver.database.write() as tx:
        return clients.register(tx, body), 201


@bp.post("/token")
@endpoint
def token() -> Json:
    """Issue tokens for a code, for a refresh token, or to a device that its user has let in.

    A code or refresh token that was used before ends the session that it stands for.
    """
    form = _form()
    grant = _required(form, "grant_type")
    if grant not in _GRANTS:
        raise OAuthError("unsupported_grant_type", "This server does not know the grant_type")
    client_id = _required(form, "client_id")
    try:
        with homeserver.database.write() as tx:
            response = _GRANTS[grant](tx, clients.find(tx, client_id), form)
    except ReplayError as stolen:
        sessions.end(homeserver.database, stolen.user_id, stolen.device_id)
        raise
    if isinstance(response, OAuthError):
        raise response
    return response


@bp.post("/revoke")
@endpoint
def revoke() -> Json:
    """End the session of a token. Any client may: programs that look for leaked tokens, too.

    "If the token is already revoked or invalid, the server returns a 200 OK response"
    """
    given = _required(_form(), "token")
    with homeserver.database.read() as tx:
        holder = sessions.of_token(tx, given)
    if holder is not None:
        sessions.end(homeserver.database, *holder)
    return {}


@bp.post("/device_authorization")
@endpoint
def authorize_device() -> Json:
    """Begin to let a device in that has no browser."""
    metadata.check_on(homeserver.server.config)
    authentication.rate_limits().check("rc_registration", address_key())
    form = _form()
    client_id = _required(form, "client_id")
    with homeserver.database.write() as tx:
        begun = device_codes.begin(tx, clients.find(tx, client_id), form.get("scope", ""))
    page = f"{homeserver.server.config.public_url.rstrip('/')}{metadata.DEVICE}"
    complete = f"{page}?user_code={quote(begun['user_code'])}"
    return {**begun, "verification_uri": page, "verification_uri_complete": complete}


def _by_code(tx: Tx, client: Client, form: Form) -> Json:
    code, redirect_uri = _required(form, "code"), _required(form, "redirect_uri")
    return codes.redeem(tx, client, code, redirect_uri, _required(form, "code_verifier"))


def _by_refresh_token(tx: Tx, client: Client, form: Form) -> Json:
    return sessions.refresh(tx, client, _required(form, "refresh_token"), form.get("scope"))


def _by_device_code(tx: Tx, client: Client, form: Form) -> Json | OAuthError:
    return device_codes.poll(tx, client, _required(form, "device_code"))


_GRANTS: Final[dict[str, Callable[[Tx, Client, Form], Json | OAuthError]]] = {
    "authorization_code": _by_code,
    "refresh_token": _by_refresh_token,
    client_metadata.DEVICE_CODE: _by_device_code,
}


def _form() -> Form:
    """Return the parameters in the body. Raises invalid_request where one is there twice."""
    if request.mimetype != FORM:
        raise refusals.invalid_request(f"The Content-Type must be {FORM}")
    request.max_content_length = MAX_FORM_BYTES  # before Flask reads the form
    parameters = request.form.to_dict(flat=False)
    if any(len(values) > 1 for values in parameters.values()):
        raise refusals.invalid_request("A parameter is there more than once")
    return {name: values[0] for name, values in parameters.items() if values[0]}


def _required(form: Form, name: str) -> str:
    if name not in form:
        raise refusals.invalid_request(f"{name} is missing")
    return form[name]


def _respond(body: Json, status: int) -> Response:
    response = Response(orjson.dumps(body), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    response.headers["Pragma"] = "no-cache"  # RFC 6749 wants both
    return response


def _respond_to_fault(error: MatrixError) -> Response:
    """Return the response for a rate limit, or for a body that is not JSON.

    "If the refresh fails due to a 4xx HTTP status code from the server, the client should consider
    the session logged out", so no limit is a 4xx where tokens are refreshed.
    """
    if "retry_after_ms" not in error.fields:
        code = "invalid_client_metadata" if request.is_json else "invalid_request"
        return _respond({"error": code, "error_description": error.message}, error.status)
    body = {"error": "temporarily_unavailable", "error_description": "Too many requests"}
    response = _respond(body, 503 if request.path.endswith("/token") else 429)
    response.headers["Retry-After"] = str(-(-error.fields["retry_after_ms"] // 1000))
    return response
