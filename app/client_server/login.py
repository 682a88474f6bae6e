"""Logging in and out, and refreshing access tokens.

Spec: client-server-api#login, client-server-api#refreshing-access-tokens
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from app import context, errors
from app.client_server import http
from app.core import well_known
from app.core.appservices import identity
from app.core.people import access_tokens, accounts, devices, login
from app.spec.events import Json

bp = Blueprint("login", __name__)

PASSWORD = "m.login.password"  # noqa: S105 - the name of a way to log in


class Login(msgspec.Struct):
    """The body of a request to log in; whom it names is read by core/people/login.py."""

    type: str
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class Refresh(msgspec.Struct):
    """The body of a request for new tokens."""

    refresh_token: str


@bp.get("/login")
def get_login_flows() -> Json:
    """The ways to log in.

    Spec: client-server-api#get_matrixclientv3login
    """
    flows = [{"type": PASSWORD}]
    if context.server().appservices:
        flows.append({"type": identity.TYPE})
    return {"flows": flows}


@bp.post("/login", endpoint="login")
def log_in() -> Json:
    """Begin a session: an access token for a new device, or for one that the client names.

    Raises M_LIMIT_EXCEEDED after too many attempts, from one address or for one account.

    Spec: client-server-api#post_matrixclientv3login
    """
    body = http.json_object()
    wish = http.convert(body, Login)
    if wish.type == identity.TYPE:
        return _log_in_for_service(body, wish)
    if wish.type != PASSWORD:
        raise errors.unknown(f"This server does not know the login type {wish.type}")
    name = login.name_of(body)
    if name is None or wish.password is None:
        raise errors.missing_param("identifier and password are needed")
    proved = _prove(name, wish.password)
    session = login.Wish(wish.device_id, wish.initial_device_display_name, wish.refresh_token)
    with context.db().write() as tx:
        answer = login.begin(tx, proved, session)
    return {**answer, "well_known": well_known.client(context.server().config)}


def _log_in_for_service(body: Json, wish: Login) -> Json:
    """The answer to an application service that wants a session of a user of its namespace.

    Spec: application-service-api#server-admin-style-permissions
    """
    service, name = http.appservice(), login.name_of(body)
    if name is None:
        raise errors.missing_param("identifier is missing")
    session = login.Wish(wish.device_id, wish.initial_device_display_name, wish.refresh_token)
    with context.db().write() as tx:
        answer = identity.log_in(tx, service, name, session)
    return {**answer, "well_known": well_known.client(context.server().config)}


def _prove(name: str, password: str) -> accounts.Known:
    """The account of who gave the right password. Raises M_LIMIT_EXCEEDED, and as by_password()."""
    limits, account = context.rate_limits(), login.account_key(context.server().name, name)
    limits.check("rc_login.address", http.address_key())
    limits.check("rc_login.account", account)
    with limits.check_failures("rc_login.failed_attempts", account):
        return login.by_password(context.db(), name, password)


@bp.post("/refresh")
def refresh() -> Json:
    """New tokens for the bearer of a refresh token.

    Spec: client-server-api#post_matrixclientv3refresh
    """
    body = http.body_as(Refresh)
    with context.db().write() as tx:
        return access_tokens.exchange(tx, body.refresh_token)


@bp.post("/logout")
@http.authenticated_if_locked
def logout() -> Json:
    """End the session that asks for it.

    Spec: client-server-api#post_matrixclientv3logout
    """
    me = http.requester()
    with context.db().write() as tx:
        devices.remove(tx, me.user_id, [me.device_id])
    return {}


@bp.post("/logout/all")
@http.authenticated_if_locked
def logout_all() -> Json:
    """End all sessions of the user.

    Spec: client-server-api#post_matrixclientv3logoutall
    """
    user_id = http.requester().user_id
    with context.db().write() as tx:
        devices.remove_all(tx, user_id)
    return {}
