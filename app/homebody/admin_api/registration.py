"""POST /_synapse/admin/v1/register: registration by tools that know a shared secret.

See core/sessions/shared_secret.py.
"""

from __future__ import annotations

import time

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import http, interactive
from homebody.client_server.authentication import logged_in, unauthenticated
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.sessions import login, shared_secret
from homebody.core.sessions.shared_secret import RegistrationRequest
from homebody.spec.events import Json

bp = Blueprint("shared_secret", __name__)


class Register(msgspec.Struct):
    """The body of POST /register; the nonce is read before."""

    username: str
    password: str
    mac: str
    admin: bool | None = None
    user_type: str | None = None
    displayname: str | None = None
    inhibit_login: bool = False
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


@bp.get("/v1/register")
@unauthenticated
def get_nonce() -> Json:
    """Return a nonce for the HMAC."""
    _secret()
    return {"nonce": homeserver.nonces.new(_now_ms())}


@bp.post("/v1/register")
@unauthenticated
def register() -> Json:
    """Create an account, and log in to it. Raises M_FORBIDDEN for a wrong HMAC.

    The nonce is used up even if the rest of the body is wrong.
    """
    secret, given = _secret(), http.json_object()
    nonce = given.get("nonce")
    if not isinstance(nonce, str):
        raise errors.bad_json("nonce must be a string")
    homeserver.nonces.spend(nonce, _now_ms())
    body = http.convert_part(given, Register)
    wanted = RegistrationRequest(
        nonce,
        body.username,
        body.password,
        body.mac,
        body.admin or False,
        body.user_type,
        body.displayname,
    )
    with interactive.logging_refusals(body.username):
        shared_secret.check(secret, wanted)
    password_hash = accounts.hash_password(homeserver.server, body.password)
    session = login.SessionRequest(
        body.device_id, body.initial_device_display_name, body.refresh_token
    )
    with homeserver.database.write() as tx:
        made = shared_secret.register(
            tx, wanted, password_hash, None if body.inhibit_login else session
        )
    return made if body.inhibit_login else logged_in(made)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _secret() -> str:
    secret = homeserver.server.config.registration_shared_secret
    if secret is None:
        raise errors.unrecognized("registration_shared_secret is not set on this server")
    return secret
