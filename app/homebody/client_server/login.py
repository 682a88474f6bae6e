"""Logging in and out, and refreshing access tokens.

Spec: client-server-api#login, client-server-api#refreshing-access-tokens
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    logged_in,
    requester,
    unauthenticated,
)
from homebody.config.login_providers import OidcProvider
from homebody.context import homeserver
from homebody.core import well_known
from homebody.core.accounts import access_tokens, accounts, login_tokens
from homebody.core.sessions import appservice_users, devices, login
from homebody.spec.events import Json

bp = Blueprint("login", __name__)

bp_v1 = Blueprint("login_v1", __name__, url_prefix="/_matrix/client/v1")

PASSWORD = "m.login.password"  # noqa: S105 - the name of a way to log in
TOKEN = "m.login.token"  # noqa: S105 - likewise
SSO = "m.login.sso"


class Login(msgspec.Struct):
    """The body of POST /login; core/sessions/login.py reads the identifier of the user."""

    type: str
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class Refresh(msgspec.Struct):
    """The body of POST /refresh."""

    refresh_token: str


@bp.get("/login")
@unauthenticated
def get_login_flows() -> Json:
    """Return the supported login types.

    Spec: client-server-api#get_matrixclientv3login
    """
    flows: list[Json] = [{"type": PASSWORD}]
    # For clients that still use r0, both are of use only if there are other ways than a password
    is_r0 = "/client/r0/" in (request.environ.get("RAW_URI") or request.environ["REQUEST_URI"])
    if homeserver.login_providers.all or not is_r0:
        flows += [_single_sign_on(), {"type": TOKEN, "get_login_token": True}]
    if homeserver.server.appservices.all:
        flows.append({"type": appservice_users.TYPE})
    return {"flows": flows}


def _single_sign_on() -> Json:
    """Return the flow that leads to our pages, on which all ways to log in are.

    Clients that know the OAuth 2.0 API without using it offer this flow alone, where there is one.
    Spec: client-server-api#client-login-via-sso, client-server-api#oauth-20-aware-clients
    """
    flow: Json = {"type": SSO}
    if homeserver.server.config.oauth:
        flow["oauth_aware_preferred"] = True
        flow["org.matrix.msc3824.delegated_oidc_compatibility"] = True  # its name before v1.18
    if providers := homeserver.login_providers.all:
        flow["identity_providers"] = [_described(it) for it in providers]
    return flow


def _described(provider: OidcProvider) -> Json:
    """Return a provider as clients show it."""
    brand = {} if provider.brand is None else {"brand": provider.brand}
    return {"id": provider.id, "name": provider.name, **brand}


@bp.post("/login", endpoint="login")
@unauthenticated
def log_in() -> Json:
    """Log in: issue an access token for a new device, or for one that the client names.

    Raises M_LIMIT_EXCEEDED after too many attempts, from one address or for one account.

    Spec: client-server-api#post_matrixclientv3login
    """
    body = http.json_object()
    wanted = http.convert(body, Login)
    if wanted.type == appservice_users.TYPE:
        return _log_in_for_service(body, wanted)
    options = login.SessionRequest(
        wanted.device_id, wanted.initial_device_display_name, wanted.refresh_token
    )
    if wanted.type == PASSWORD:
        session = _by_password(body, wanted, options)
    elif wanted.type == TOKEN:
        session = _by_token(wanted, options)
    else:
        raise errors.unknown(f"This server does not know the login type {wanted.type}")
    return _complete(session)


def _complete(session: Json) -> Json:
    """Return the response to a successful login."""
    return {**logged_in(session), "well_known": well_known.client(homeserver.server.config)}


def _by_password(body: Json, wanted: Login, options: login.SessionRequest) -> Json:
    name = login.name_of(homeserver.database, body)
    if name is None or wanted.password is None:
        raise errors.missing_param("identifier and password are required")
    account = prove(name, wanted.password)
    with homeserver.database.write() as tx:
        return login.begin(tx, account, options)


def _by_token(wanted: Login, options: login.SessionRequest) -> Json:
    """Log in with a token that another device has requested, or that a single sign-on ended with.

    Spec: client-server-api#post_matrixclientv1loginget_token,
    client-server-api#client-login-via-sso
    """
    if wanted.token is None:
        raise errors.missing_param("token is missing")
    with interactive.logging_refusals(None):
        authentication.rate_limits().check("rc_login.address", address_key())
        with homeserver.database.write() as tx:
            return login.begin_by_token(tx, wanted.token, options)


def _log_in_for_service(body: Json, wanted: Login) -> Json:
    """Log in a user of an application service's namespace, with the token of the service.

    Spec: application-service-api#server-admin-style-permissions
    """
    service, name = authentication.appservice(), login.name_of(homeserver.database, body)
    if name is None:
        raise errors.missing_param("identifier is missing")
    options = login.SessionRequest(
        wanted.device_id, wanted.initial_device_display_name, wanted.refresh_token
    )
    with homeserver.database.write() as tx:
        session = appservice_users.log_in(tx, service, name, options)
    return _complete(session)


def prove(name: str, password: str) -> accounts.AccountInfo:
    """Return the account if the password is right; count the attempt, and have it logged if wrong.

    Raises M_LIMIT_EXCEEDED, and what login.by_password() raises.
    """
    limits, key = (
        authentication.rate_limits(),
        login.account_key(homeserver.server.name, name),
    )
    with interactive.logging_refusals(key):
        limits.check("rc_login.address", address_key())
        limits.check("rc_login.account", key)
        with limits.check_failures("rc_login.failed_attempts", key):
            return login.by_password(homeserver.database, name, password)


@bp_v1.post("/login/get_token")
@authenticated(suspended=True)
def generate_login_token() -> Json:
    """Issue a token with which another device can log in once, after the password was proved.

    Spec: client-server-api#post_matrixclientv1loginget_token
    """
    interactive.require_password(http.json_object())
    user_id = requester().user_id
    authentication.rate_limits().check("rc_get_login_token", user_id)
    with homeserver.database.write() as tx:
        token = login_tokens.issue(tx, user_id)
    return {"login_token": token, "expires_in_ms": login_tokens.LIFETIME_MS}


@bp.post("/refresh")
@unauthenticated
def refresh() -> Json:
    """Exchange a refresh token for new tokens.

    Spec: client-server-api#post_matrixclientv3refresh
    """
    body = http.body_as(Refresh)
    with homeserver.database.write() as tx:
        return access_tokens.exchange(tx, body.refresh_token)


@bp.post("/logout")
@authenticated(guests=True, suspended=True, locked=True)
def logout() -> Json:
    """End the session of the request.

    Spec: client-server-api#post_matrixclientv3logout
    """
    me = requester()
    devices.remove_most(homeserver.database, me.user_id, [me.device_id])
    with homeserver.database.write() as tx:
        devices.remove(tx, me.user_id, [me.device_id])
        if not me.device_id and me.service is None:  # an administrator who acts as the user
            access_tokens.revoke_one(tx, me)
    return {}


@bp.post("/logout/all")
@authenticated(guests=True, suspended=True, locked=True)
def logout_all() -> Json:
    """End all sessions of the user.

    Spec: client-server-api#post_matrixclientv3logoutall
    """
    me = requester()
    devices.remove_most(homeserver.database, me.user_id, last=me.device_id)
    with homeserver.database.write() as tx:
        devices.remove_all(tx, me.user_id)
    return {}
