"""E-mail addresses of accounts. Telephone numbers this server knows none, and says so.

A mail asks whether an address is somebody's own (core/accounts/validation.py); with the proof they
register, add the address to their account, or get a new password. Without a mail server in the
settings all of that is refused.

Strangers don't learn from an answer whether an address has an account: what there is to say, the
mail says, to who reads mail there. Those who are logged in are told at once.

Spec: client-server-api#adding-account-administrative-contact-information
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import msgspec
from flask import Blueprint, render_template

from homebody import context, errors
from homebody.client_server import http, interactive
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    maybe_requester,
    requester,
    unauthenticated,
)
from homebody.core.accounts import threepids, validation
from homebody.core.push import pushers
from homebody.spec.events import Json

bp = Blueprint("threepids", __name__)

NO_MAIL = "This server sends no mail, and keeps no e-mail addresses"
NO_MESSAGES = "This server keeps no telephone numbers"
NO_IDENTITY_SERVER = "This server knows no identity server"

PAGE = "/_matrix/static/client/email"
"""Where the link in a mail leads; see web/email_page.py."""

SUBJECTS = {
    ("register", True): "Confirm your e-mail address",
    ("register", False): "You have an account already",
    ("add", True): "Confirm your e-mail address",
    ("add", False): "This address belongs to an account",
    ("reset", True): "A new password",
    ("reset", False): "There is no account with this address",
}
"""By purpose, and whether the address can be used for it. mail.txt and mail.html have the rest."""


class RequestToken(msgspec.Struct):
    """The body of a request for a mail; an `id_server` in it is of no interest."""

    client_secret: str
    email: str
    send_attempt: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    next_link: str | None = None


class Credentials(msgspec.Struct):
    """What names a session whose address was proved."""

    client_secret: str
    sid: str


class OldCredentials(msgspec.Struct):
    """The same in the older request."""

    three_pid_creds: Credentials


class Bind(msgspec.Struct):
    """The body of a request to tell an identity server of an address."""

    client_secret: str
    sid: str
    id_server: str
    id_access_token: str


class ThreePid(msgspec.Struct):
    """The body of a request that names an address."""

    medium: str
    address: str


@bp.get("/account/3pid")
@authenticated()
def get_account_3pids() -> Json:
    """The e-mail addresses of the account.

    Spec: client-server-api#get_matrixclientv3account3pid
    """
    with context.db().read() as tx:
        return {"threepids": threepids.of_user(tx, requester().user_id)}


@bp.post("/register/email/requestToken")
@unauthenticated
def request_token_to_register_email() -> Json:
    """Send a mail to somebody who wants to register.

    Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
    """
    _must_send_mail()
    return _request_token("register", http.body_as(RequestToken))


@bp.post("/account/3pid/email/requestToken")
@authenticated(optional=True, guests=True, suspended=True)
def request_token_to_3pid_email() -> Json:
    """Send a mail to somebody who wants to add the address to the account.

    Spec: client-server-api#post_matrixclientv3account3pidemailrequesttoken
    """
    _must_send_mail()
    return _request_token("add", http.body_as(RequestToken))


@bp.post("/account/password/email/requestToken")
@authenticated(optional=True, guests=True, suspended="partly")
def request_token_to_reset_password_email() -> Json:
    """Send a mail to somebody who has forgotten the password.

    Without a mail server, the owner sets new passwords by `homebody user passwd`.
    Spec: client-server-api#post_matrixclientv3accountpasswordemailrequesttoken
    """
    if context.server().config.smtp.host is None:
        raise errors.threepid_not_found(NO_MAIL)
    return _request_token("reset", http.body_as(RequestToken))


@bp.post("/register/msisdn/requestToken")
@bp.post("/account/3pid/msisdn/requestToken")
@unauthenticated
def request_token_msisdn() -> NoReturn:
    """Raises M_THREEPID_DENIED: no message is sent to a telephone.

    Spec: client-server-api#post_matrixclientv3registermsisdnrequesttoken,
    client-server-api#post_matrixclientv3account3pidmsisdnrequesttoken
    """
    raise errors.threepid_denied(NO_MESSAGES)


@bp.post("/account/password/msisdn/requestToken")
@unauthenticated
def request_token_to_reset_password_msisdn() -> NoReturn:
    """Raises M_THREEPID_NOT_FOUND, likewise.

    Spec: client-server-api#post_matrixclientv3accountpasswordmsisdnrequesttoken
    """
    raise errors.threepid_not_found(NO_MESSAGES)


@bp.post("/account/3pid/add")
@authenticated(suspended=True)
def add_3pid() -> Json:
    """Add an address, once its link was opened and the password given.

    Spec: client-server-api#post_matrixclientv3account3pidadd
    """
    _must_send_mail()
    body = http.json_object()
    return _add(body, http.convert(body, Credentials))


@bp.post("/account/3pid")
@authenticated(suspended=True)
def post_3pids() -> Json:
    """The same as clients of r0 ask for it.

    Spec: client-server-api#post_matrixclientv3account3pid
    """
    _must_send_mail()
    # Deviates: "equivalent to /3pid/bind", and no password is asked for. There is no identity
    # server to bind at, and clients that still call this mean what it did in r0. Whoever adds an
    # address can have a new password sent there, so an unlocked telephone must not be enough.
    body = http.json_object()
    return _add(body, http.convert(body, OldCredentials).three_pid_creds)


@bp.post("/account/3pid/bind")
@authenticated()
def bind_3pid() -> NoReturn:
    """Raises M_SERVER_NOT_TRUSTED: this server tells no identity server of anybody's address.

    Spec: client-server-api#post_matrixclientv3account3pidbind
    """
    http.body_as(Bind)
    raise errors.server_not_trusted(NO_IDENTITY_SERVER)


@bp.post("/account/3pid/delete")
@authenticated()
def delete_3pid_from_account() -> Json:
    """Take an address from the account. Raises M_THREEPID_NOT_FOUND.

    Spec: client-server-api#post_matrixclientv3account3piddelete
    """
    wish, user_id = http.body_as(ThreePid), requester().user_id
    with context.db().write() as tx:
        threepids.remove(tx, user_id, wish.medium, wish.address)
        pushers.remove_mailbox(tx, user_id, wish.address)
    return {"id_server_unbind_result": "no-support"}


@bp.post("/account/3pid/unbind")
@authenticated()
def unbind_3pid_from_account() -> Json:
    """Nothing to do: this server has told no identity server of the address.

    Spec: client-server-api#post_matrixclientv3account3pidunbind
    """
    http.body_as(ThreePid)
    return {"id_server_unbind_result": "no-support"}


def _must_send_mail() -> None:
    if context.server().config.smtp.host is None:
        raise errors.threepid_denied(NO_MAIL)


def _request_token(purpose: validation.Purpose, body: RequestToken) -> Json:
    """`sid`, once the mail is on its way. Raises M_THREEPID_IN_USE, M_THREEPID_NOT_FOUND."""
    address = threepids.canonical(body.email)
    wish = validation.checked(
        validation.TokenRequest(
            purpose, address, body.client_secret, body.send_attempt, body.next_link
        )
    )
    context.rate_limits().check("rc_3pid_validation", address_key())
    context.rate_limits().check("rc_3pid_validation", address)
    with context.db().read() as tx:
        owner = threepids.owner(tx, address)
    is_good = (owner is not None) == (purpose == "reset")
    who = maybe_requester()
    if not is_good and who is not None and not who.is_guest:  # a guest is a stranger with a token
        if owner is None:
            raise errors.threepid_not_found("No account has this address")
        raise errors.threepid_in_use()
    compose = _Mail(purpose, address, owner, is_good=is_good)
    return {"sid": validation.send_token(context.db(), wish, compose, can_validate=is_good)}


def _add(body: Json, credentials: Credentials) -> Json:
    """Add the address that was proved, once the password was given in the body."""
    with context.db().read() as tx:  # before the password is asked for, which would be for nothing
        proof = validation.check(tx, "add", credentials.sid, credentials.client_secret)
    interactive.require_password(body)
    with context.db().write() as tx:
        threepids.add(tx, requester().user_id, proof)
    return {}


class _Mail:
    """The mail about an address, when it is known which link belongs into it."""

    def __init__(
        self, purpose: validation.Purpose, address: str, owner: str | None, *, is_good: bool
    ) -> None:
        self._subject = SUBJECTS[purpose, is_good]
        self._values = {
            "purpose": purpose,
            "address": address,
            "owner": owner,
            "is_good": is_good,
            "subject": self._subject,
        }

    def __call__(self, sid: str, token: str) -> validation.Message:
        config = context.server().config
        link = f"{config.public_url}{PAGE}?sid={sid}&token={token}"
        values = {**self._values, "server_name": config.server_name, "link": link}
        text = render_template("mail.txt", **values)
        html = render_template("mail.html", **values)
        return validation.Message(f"{self._subject} ({config.server_name})", text, html)
