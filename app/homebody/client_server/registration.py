"""Getting an account.

Spec: client-server-api#account-registration, client-server-api#token-authenticated-registration
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import context, errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import address_key, logged_in, unauthenticated
from homebody.core.accounts import access_tokens, accounts, threepids
from homebody.core.sessions import appservice_users, login, registration
from homebody.spec.events import Json

bp = Blueprint("registration", __name__)
bp_v1 = Blueprint("registration_v1", __name__, url_prefix="/_matrix/client/v1")


class Register(msgspec.Struct):
    """The body of a request to register; `auth` is read by interactive.py."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None


class RegisterGuest(msgspec.Struct):
    """The body of a guest's request: "all [other] parameters […] MUST BE ignored"."""

    initial_device_display_name: str | None = None


@bp.post("/register")
@unauthenticated
def register() -> Json:
    """Make an account, and log in to it unless that is not wanted.

    Spec: client-server-api#post_matrixclientv3register
    """
    body = http.json_object()
    if body.get("type") == appservice_users.TYPE:
        return _register_for_service(body)
    if _is_for_guest():
        return _register_guest(body)
    return register_by(body)


def register_by(body: Json) -> Json:
    """The answer to a request to register that has, or could have, this body.

    Raises M_LIMIT_EXCEEDED when too many come from one address.
    """
    context.rate_limits().check("rc_registration", address_key())
    wish = http.convert(body, Register)
    server = context.server()
    flows = registration.flows(server.config)
    guest = None
    if wish.guest_access_token is not None:
        guest = registration.guest_by_token(context.db(), wish.username, wish.guest_access_token)
    else:
        with context.db().read() as tx:
            registration.free_user_id(tx, wish.username)  # before the proof, as the spec wants it
    if wish.password is not None:
        accounts.check_new_password(server.config, wish.password)
    proof = interactive.require_any(body, flows)
    password_hash = None
    if wish.password is not None:
        password_hash = accounts.hash_password(server, wish.password)
    with context.db().write() as tx:
        guest_id = None
        if guest is not None:  # the guest may have logged out during the proof
            guest_id = access_tokens.reauthenticate(tx, guest).user_id
        user_id = registration.register(
            tx, wish.username, password_hash, token=proof.registration_token, guest=guest_id
        )
        registration.accept_terms(tx, user_id)
        if proof.email is not None:
            threepids.add(tx, user_id, proof.email)
        if wish.inhibit_login:
            return {"user_id": user_id, "home_server": server.name}
        session = login.SessionRequest(
            wish.device_id, wish.initial_device_display_name, wish.refresh_token
        )
        answer = login.start_session(tx, user_id, session)
    return logged_in(answer)


@bp.get("/register/available")
@unauthenticated
def check_username_availability() -> Json:
    """Whether somebody could register with this name.

    Raises M_FORBIDDEN where nobody can register: then it would only tell which accounts exist.
    Spec: client-server-api#get_matrixclientv3registeravailable
    """
    username = http.query_required("username")
    context.rate_limits().check("rc_lookups", address_key())
    registration.flows(context.server().config)
    with context.db().read() as tx:
        registration.free_user_id(tx, username)
    return {"available": True}


@bp_v1.get("/register/m.login.registration_token/validity")
@unauthenticated
def registration_token_validity() -> Json:
    """Whether a registration token would be taken now.

    Spec: client-server-api#get_matrixclientv1registermloginregistration_tokenvalidity
    """
    context.rate_limits().check("rc_registration_token_validity", address_key())
    token = http.query_required("token")
    registration.flows(context.server().config)
    with context.db().read() as tx:
        return {"valid": registration.is_valid_token(tx, token)}


def _register_for_service(body: Json) -> Json:
    """The answer to an application service that makes a user of its namespace.

    Spec: application-service-api#server-admin-style-permissions
    """
    service = authentication.appservice()
    wish = http.convert(body, Register)
    if wish.username is None:
        raise errors.missing_param("username is missing")
    with context.db().write() as tx:
        user_id = appservice_users.register(tx, service, wish.username)
        if wish.inhibit_login:
            return {"user_id": user_id, "home_server": tx.server.name}
        session = login.SessionRequest(
            wish.device_id, wish.initial_device_display_name, wish.refresh_token
        )
        answer = login.start_session(tx, user_id, session)
    return logged_in(answer)


def _is_for_guest() -> bool:
    kind = request.args.get("kind", "user")
    if kind not in {"user", "guest"}:
        raise errors.invalid_param("kind must be user or guest")
    return kind == "guest"


def _register_guest(body: Json) -> Json:
    """The answer to who wants to look around. It takes no proof of anything.

    Spec: client-server-api#guest-access
    """
    context.rate_limits().check("rc_registration", address_key())
    wish = http.convert(body, RegisterGuest)
    with context.db().write() as tx:
        user_id = registration.register_guest(tx)
        session = login.SessionRequest(display_name=wish.initial_device_display_name)
        answer = login.start_session(tx, user_id, session)
    return logged_in(answer)
