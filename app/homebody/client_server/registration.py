"""Account registration: users, guests, and users of application services.

Spec: client-server-api#account-registration, client-server-api#token-authenticated-registration
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import address_key, logged_in, unauthenticated
from homebody.context import homeserver
from homebody.core.accounts import access_tokens, accounts, threepids
from homebody.core.rooms import newcomers
from homebody.core.sessions import appservice_users, login, registration, registration_tokens
from homebody.spec.events import Json

bp = Blueprint("registration", __name__)
bp_v1 = Blueprint("registration_v1", __name__, url_prefix="/_matrix/client/v1")


class Register(msgspec.Struct):
    """The body of POST /register; `auth` is read by interactive.py."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None


class RegisterGuest(msgspec.Struct):
    """The body for a guest: "all [other] parameters […] MUST BE ignored"."""

    initial_device_display_name: str | None = None


@bp.post("/register")
@unauthenticated
def register() -> Json:
    """Create an account, and log in to it unless `inhibit_login` is set.

    Spec: client-server-api#post_matrixclientv3register
    """
    body = http.json_object()
    if body.get("type") == appservice_users.TYPE:
        return _register_for_service(body)
    if _is_for_guest():
        return _register_guest(body)
    return register_by(body)


def register_by(body: Json) -> Json:
    """Register an account with this body, which the 2014 API composes from its own.

    Raises M_LIMIT_EXCEEDED for too many requests from one address.
    """
    authentication.rate_limits().check("rc_registration", address_key())
    wanted = http.convert(body, Register)
    server = homeserver.server
    flows = registration.flows(server.config)
    guest = None
    if wanted.guest_access_token is not None:
        guest = registration.guest_by_token(
            homeserver.database, wanted.username, wanted.guest_access_token
        )
    else:
        with homeserver.database.read() as tx:
            registration.free_user_id(tx, wanted.username)  # before authentication
    if wanted.password is not None:
        accounts.check_new_password(server.config, wanted.password)
    proof = interactive.require_any(body, flows)
    password_hash = None
    if wanted.password is not None:
        password_hash = accounts.hash_password(server, wanted.password)
    with homeserver.database.write() as tx:
        guest_id = None
        if guest is not None:  # the guest may have logged out meanwhile
            guest_id = access_tokens.reauthenticate(tx, guest).user_id
        user_id = registration.register(
            tx, wanted.username, password_hash, token=proof.registration_token, guest=guest_id
        )
        registration.accept_terms(tx, user_id)
        if proof.email is not None:
            threepids.add(tx, user_id, proof.email)
        session = {"user_id": user_id, "home_server": server.name}
        if not wanted.inhibit_login:
            options = login.SessionRequest(
                wanted.device_id, wanted.initial_device_display_name, wanted.refresh_token
            )
            session = login.start_session(tx, user_id, options)
    newcomers.join_rooms(homeserver.database, user_id)
    return session if wanted.inhibit_login else logged_in(session)


@bp.get("/register/available")
@unauthenticated
def check_username_availability() -> Json:
    """Return whether a user name is available.

    Raises M_FORBIDDEN where registration is closed: it would only reveal which accounts exist.
    Spec: client-server-api#get_matrixclientv3registeravailable
    """
    username = http.query_required("username")
    authentication.rate_limits().check("rc_lookups", address_key())
    registration.flows(homeserver.server.config)
    with homeserver.database.read() as tx:
        registration.free_user_id(tx, username)
    return {"available": True}


@bp_v1.get("/register/m.login.registration_token/validity")
@unauthenticated
def registration_token_validity() -> Json:
    """Return whether a registration token is valid now.

    Spec: client-server-api#get_matrixclientv1registermloginregistration_tokenvalidity
    """
    authentication.rate_limits().check("rc_registration_token_validity", address_key())
    token = http.query_required("token")
    registration.flows(homeserver.server.config)
    with homeserver.database.read() as tx:
        return {"valid": registration_tokens.is_valid(tx, token)}


def _register_for_service(body: Json) -> Json:
    """Register a user of an application service's namespace, with the token of the service.

    Spec: application-service-api#server-admin-style-permissions
    """
    service = authentication.appservice()
    wanted = http.convert(body, Register)
    if wanted.username is None:
        raise errors.missing_param("username is missing")
    with homeserver.database.write() as tx:
        user_id = appservice_users.register(tx, service, wanted.username)
        if wanted.inhibit_login:
            return {"user_id": user_id, "home_server": tx.server.name}
        options = login.SessionRequest(
            wanted.device_id, wanted.initial_device_display_name, wanted.refresh_token
        )
        session = login.start_session(tx, user_id, options)
    return logged_in(session)


def _is_for_guest() -> bool:
    kind = request.args.get("kind", "user")
    if kind not in {"user", "guest"}:
        raise errors.invalid_param("kind must be user or guest")
    return kind == "guest"


def _register_guest(body: Json) -> Json:
    """Register a guest, without authentication.

    Spec: client-server-api#guest-access
    """
    authentication.rate_limits().check("rc_registration", address_key())
    wanted = http.convert(body, RegisterGuest)
    with homeserver.database.write() as tx:
        user_id = registration.register_guest(tx)
        options = login.SessionRequest(display_name=wanted.initial_device_display_name)
        session = login.start_session(tx, user_id, options)
    return logged_in(session)
