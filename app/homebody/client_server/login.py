"""Logging in and out, and refreshing access tokens.

Spec: client-server-api#login, client-server-api#refreshing-access-tokens
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    logged_in,
    requester,
    unauthenticated,
)
from homebody.core import well_known
from homebody.core.accounts import access_tokens, accounts, login_tokens
from homebody.core.sessions import appservice_users, devices, login
from homebody.spec.events import Json

bp = Blueprint("login", __name__)

bp_v1 = Blueprint("login_v1", __name__, url_prefix="/_matrix/client/v1")

PASSWORD = "m.login.password"  # noqa: S105 - the name of a way to log in
TOKEN = "m.login.token"  # noqa: S105 - likewise


class Login(msgspec.Struct):
    """The body of a request to log in; whom it names is read by core/sessions/login.py."""

    type: str
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class Refresh(msgspec.Struct):
    """The body of a request for new tokens."""

    refresh_token: str


@bp.get("/login")
@unauthenticated
def get_login_flows() -> Json:
    """The ways to log in.

    Spec: client-server-api#get_matrixclientv3login
    """
    flows: list[Json] = [{"type": PASSWORD}]
    # Tokens that a device gets for another one came with v1.7. To a client that still says r0, the
    # type means the end of a single sign-on, and this server has none.
    if "/client/r0/" not in (request.environ.get("RAW_URI") or request.environ["REQUEST_URI"]):
        flows.append({"type": TOKEN, "get_login_token": True})
    if context.server().appservices.all:
        flows.append({"type": appservice_users.TYPE})
    return {"flows": flows}


@bp.post("/login", endpoint="login")
@unauthenticated
def log_in() -> Json:
    """Begin a session: an access token for a new device, or for one that the client names.

    Raises M_LIMIT_EXCEEDED after too many attempts, from one address or for one account.

    Spec: client-server-api#post_matrixclientv3login
    """
    body = http.json_object()
    wish = http.convert(body, Login)
    if wish.type == appservice_users.TYPE:
        return _log_in_for_service(body, wish)
    session = login.SessionRequest(
        wish.device_id, wish.initial_device_display_name, wish.refresh_token
    )
    if wish.type == PASSWORD:
        answer = _by_password(body, wish, session)
    elif wish.type == TOKEN:
        answer = _by_token(wish, session)
    else:
        raise errors.unknown(f"This server does not know the login type {wish.type}")
    return _complete(answer)


def _complete(session: Json) -> Json:
    """Return the answer to a login that has succeeded."""
    return {**logged_in(session), "well_known": well_known.client(context.server().config)}


def _by_password(body: Json, wish: Login, session: login.SessionRequest) -> Json:
    name = login.name_of(context.db(), body)
    if name is None or wish.password is None:
        raise errors.missing_param("identifier and password are needed")
    proved = _prove(name, wish.password)
    with context.db().write() as tx:
        return login.begin(tx, proved, session)


def _by_token(wish: Login, session: login.SessionRequest) -> Json:
    """A session by a token that another device of the user has asked for.

    Spec: client-server-api#post_matrixclientv1loginget_token
    """
    if wish.token is None:
        raise errors.missing_param("token is missing")
    with interactive.logging_refusals(None):
        context.rate_limits().check("rc_login.address", address_key())
        with context.db().write() as tx:
            user_id = login_tokens.redeem(tx, wish.token)
            return login.start_session(tx, user_id, session)


def _log_in_for_service(body: Json, wish: Login) -> Json:
    """The answer to an application service that wants a session of a user of its namespace.

    Spec: application-service-api#server-admin-style-permissions
    """
    service, name = authentication.appservice(), login.name_of(context.db(), body)
    if name is None:
        raise errors.missing_param("identifier is missing")
    session = login.SessionRequest(
        wish.device_id, wish.initial_device_display_name, wish.refresh_token
    )
    with context.db().write() as tx:
        answer = appservice_users.log_in(tx, service, name, session)
    return _complete(answer)


def _prove(name: str, password: str) -> accounts.AccountInfo:
    """The account of who gave the right password. Raises M_LIMIT_EXCEEDED, and as by_password()."""
    limits, account = context.rate_limits(), login.account_key(context.server().name, name)
    with interactive.logging_refusals(account):
        limits.check("rc_login.address", address_key())
        limits.check("rc_login.account", account)
        with limits.check_failures("rc_login.failed_attempts", account):
            return login.by_password(context.db(), name, password)


@bp_v1.post("/login/get_token")
@authenticated(suspended=True)
def generate_login_token() -> Json:
    """A token with which another device of the user can log in once, after the password was given.

    Spec: client-server-api#post_matrixclientv1loginget_token
    """
    interactive.require_password(http.json_object())
    user_id = requester().user_id
    context.rate_limits().check("rc_get_login_token", user_id)
    with context.db().write() as tx:
        token = login_tokens.issue(tx, user_id)
    return {"login_token": token, "expires_in_ms": login_tokens.LIFETIME_MS}


@bp.post("/refresh")
@unauthenticated
def refresh() -> Json:
    """New tokens for the bearer of a refresh token.

    Spec: client-server-api#post_matrixclientv3refresh
    """
    body = http.body_as(Refresh)
    with context.db().write() as tx:
        return access_tokens.exchange(tx, body.refresh_token)


@bp.post("/logout")
@authenticated(guests=True, suspended=True, locked=True)
def logout() -> Json:
    """End the session that asks for it.

    Spec: client-server-api#post_matrixclientv3logout
    """
    me = requester()
    devices.end_most(context.db(), me.user_id, [me.device_id])
    with context.db().write() as tx:
        devices.remove(tx, me.user_id, [me.device_id])
    return {}


@bp.post("/logout/all")
@authenticated(guests=True, suspended=True, locked=True)
def logout_all() -> Json:
    """End all sessions of the user.

    Spec: client-server-api#post_matrixclientv3logoutall
    """
    me = requester()
    devices.end_most(context.db(), me.user_id, last=me.device_id)
    with context.db().write() as tx:
        devices.remove_all(tx, me.user_id)
    return {}
