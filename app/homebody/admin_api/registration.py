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
from homebody.core.sessions import login, registration, shared_secret
from homebody.spec.events import Json

bp = Blueprint("shared_secret", __name__, url_prefix="/_synapse/admin/v1")


class Register(msgspec.Struct):
    """The body of POST /_synapse/admin/v1/register."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None


@bp.get("/register")
@unauthenticated
def get_nonce() -> Json:
    """Return a nonce for the HMAC."""
    return {"nonce": shared_secret.new_nonce(_secret(), time.time_ns() // 1_000_000)}


@bp.post("/register")
@unauthenticated
def register() -> Json:
    """Create an account, and log in to it. Raises M_FORBIDDEN for a wrong HMAC."""
    secret = _secret()
    body = http.body_as(Register)
    application = shared_secret.RegistrationRequest(
        body.nonce, body.username, body.password, body.mac, body.admin, body.user_type
    )
    with interactive.logging_refusals(body.username):
        shared_secret.check(secret, application, time.time_ns() // 1_000_000)
    password_hash = accounts.hash_password(homeserver.server, body.password)
    with homeserver.database.write() as tx:
        user_id = registration.register(tx, body.username, password_hash, is_admin=body.admin)
        session = login.start_session(tx, user_id, login.SessionRequest())
    return logged_in(session)


def _secret() -> str:
    secret = homeserver.server.config.registration_shared_secret
    if secret is None:
        raise errors.unrecognized("registration_shared_secret is not set on this server")
    return secret
