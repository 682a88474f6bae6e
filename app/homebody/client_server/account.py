"""Account management: whoami, changing the password, deactivation, OpenID tokens.

OpenID tokens are checked with an endpoint of the Server-Server API, which widgets and video
conferences also use on a server without federation.
Spec: client-server-api#account-management, client-server-api#current-account-information,
client-server-api#openid, server-server-api#openid
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    maybe_requester,
    must_be_me,
    requester,
    unauthenticated,
)
from homebody.context import homeserver
from homebody.core.accounts import accounts, openid, threepids, validation
from homebody.core.sessions import deactivation, devices, login
from homebody.spec.events import Json

bp = Blueprint("account", __name__)
bp_federation = Blueprint("openid_userinfo", __name__, url_prefix="/_matrix/federation/v1")


class ChangePassword(msgspec.Struct):
    """The body of POST /account/password; `auth` is read by interactive.py."""

    new_password: str
    logout_devices: bool = True


class Deactivate(msgspec.Struct):
    """The body of POST /account/deactivate."""

    erase: bool = False


@bp.get("/account/whoami")
@authenticated(guests=True)
def get_token_owner() -> Json:
    """Return the user and the device of the access token.

    Spec: client-server-api#get_matrixclientv3accountwhoami
    """
    me = requester()
    device = {"device_id": me.device_id} if me.device_id else {}  # a bridge may have none
    return {"user_id": me.user_id, **device, "is_guest": me.is_guest}


@bp.post("/account/password")
@authenticated(optional=True, guests=True, suspended=True)
def change_password() -> Json:
    """Set a new password after the old one was proved. The session of the request stays.

    Users who have forgotten it, and so have no token, open a link in an e-mail instead.
    Spec: client-server-api#post_matrixclientv3accountpassword
    """
    body = http.json_object()
    me = maybe_requester()
    if me is None and homeserver.server.config.smtp.host is None:
        raise errors.missing_token()
    wanted = http.convert(body, ChangePassword)
    if me is not None and me.service is not None:
        raise errors.forbidden("Users of application services have no password")
    accounts.check_new_password(homeserver.server.config, wanted.new_password)
    if me is None:
        _reset_password(body, wanted)
        return {}
    interactive.require_password(body)
    password_hash = accounts.hash_password(homeserver.server, wanted.new_password)
    if wanted.logout_devices:
        devices.remove_most(homeserver.database, me.user_id, but=me.device_id)
    with homeserver.database.write() as tx:
        login.change_password(tx, me.user_id, password_hash)
        if wanted.logout_devices:
            devices.remove_all(tx, me.user_id, but=me.device_id)
    return {}


def _reset_password(body: Json, wanted: ChangePassword) -> None:
    """Set a new password after the e-mail address of the account was proved.

    Raises M_THREEPID_NOT_FOUND when the address was removed from the account meanwhile, and
    M_USER_LOCKED: a lock holds "on all but" logging out, also on endpoints without a token.
    Spec: client-server-api#account-locking
    """
    authentication.rate_limits().check("rc_login.address", address_key())
    proof = interactive.require_email(body)
    password_hash = accounts.hash_password(homeserver.server, wanted.new_password)
    with homeserver.database.write() as tx:
        validation.consume(tx, proof.sid)
        user_id = threepids.owner(tx, proof.address)
        if user_id is None:
            raise errors.threepid_not_found("No account has this address any more")
        account = accounts.find(tx, user_id)
        if account is not None and account.is_locked:
            raise errors.user_locked()
        login.change_password(tx, user_id, password_hash)
        if wanted.logout_devices:
            devices.remove_all(tx, user_id)


@bp.post("/account/deactivate")
@authenticated(suspended=True)
def deactivate_account() -> Json:
    """Deactivate the account after the password was proved.

    Spec: client-server-api#post_matrixclientv3accountdeactivate
    """
    body = http.json_object()
    wanted = http.convert(body, Deactivate)
    interactive.require_password(body)
    me = requester()
    devices.remove_most(homeserver.database, me.user_id, last=me.device_id)
    deactivation.deactivate(homeserver.database, me.user_id, erase=wanted.erase)
    return {"id_server_unbind_result": "success"}  # "if the homeserver has no identifiers"


@bp.post("/user/<user_id>/openid/request_token")
@authenticated()
def request_open_id_token(user_id: str) -> Json:
    """Issue a token that proves the user's identity to others; it gives no access here."""
    must_be_me(user_id)
    http.json_object(may_be_empty=True)
    authentication.rate_limits().check("rc_lookups", user_id)
    with homeserver.database.write() as tx:
        return openid.issue(tx, user_id)


@bp_federation.get("/openid/userinfo")
@unauthenticated
def exchange_open_id_token() -> Json:
    """Return the user for whom an OpenID token was issued.

    Spec: server-server-api#get_matrixfederationv1openiduserinfo
    """
    token = request.args.get("access_token")
    if token is None:
        raise errors.missing_token()
    with homeserver.database.read() as tx:
        return {"sub": openid.bearer(tx, token)}
