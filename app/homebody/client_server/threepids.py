"""E-mail addresses of accounts. Telephone numbers are not supported.

Users prove by a link in a mail that an address is theirs (core/accounts/validation.py); with that
they register, add the address to their account, or set a new password. Without a mail server in
the settings all of that is refused.

A response does not reveal to strangers whether an address has an account: the mail says it, to
its owner. Users who are logged in get an error at once.

Spec: client-server-api#adding-account-administrative-contact-information
"""

from __future__ import annotations

from typing import Annotated, NoReturn

import msgspec
from flask import Blueprint, render_template

from homebody import errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import (
    address_key,
    authenticated,
    maybe_requester,
    requester,
    unauthenticated,
)
from homebody.context import homeserver
from homebody.core.accounts import threepids, validation
from homebody.core.push import pushers
from homebody.spec.events import Json

bp = Blueprint("threepids", __name__)

NO_MAIL = "This server does not send mail, and does not store e-mail addresses"
NO_MESSAGES = "This server does not support telephone numbers"
NO_IDENTITY_SERVER = "This server does not use identity servers"

PAGE = "/_matrix/static/client/email"
"""The path of the link in a mail; see web/pages.py."""

SUBJECTS = {
    ("register", True): "Confirm your e-mail address",
    ("register", False): "You have an account already",
    ("add", True): "Confirm your e-mail address",
    ("add", False): "This address belongs to an account",
    ("reset", True): "A new password",
    ("reset", False): "There is no account with this address",
}
"""Subjects of mails, by purpose and whether the address can be used for it."""


class RequestToken(msgspec.Struct):
    """The body of a request for a mail; `id_server` is ignored."""

    client_secret: str
    email: str
    send_attempt: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    next_link: str | None = None


class Credentials(msgspec.Struct):
    """A validation session of an address."""

    client_secret: str
    sid: str


class OldCredentials(msgspec.Struct):
    """The body of POST /account/3pid, an older form of /account/3pid/add."""

    three_pid_creds: Credentials


class Bind(msgspec.Struct):
    """The body of POST /account/3pid/bind."""

    client_secret: str
    sid: str
    id_server: str
    id_access_token: str


class ThreePid(msgspec.Struct):
    """The body of a request to delete or unbind an address."""

    medium: str
    address: str


@bp.get("/account/3pid")
@authenticated()
def get_account_3pids() -> Json:
    """Return the e-mail addresses of the account.

    Spec: client-server-api#get_matrixclientv3account3pid
    """
    with homeserver.database.read() as tx:
        return {"threepids": threepids.of_user(tx, requester().user_id)}


@bp.post("/register/email/requestToken")
@unauthenticated
def request_token_to_register_email() -> Json:
    """Send a mail to validate an address for registration.

    Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
    """
    must_send_mail()
    return send_mail("register", http.body_as(RequestToken))


@bp.post("/account/3pid/email/requestToken")
@authenticated(optional=True, guests=True, suspended=True)
def request_token_to_3pid_email() -> Json:
    """Send a mail to validate an address that is to be added to the account.

    Spec: client-server-api#post_matrixclientv3account3pidemailrequesttoken
    """
    must_send_mail()
    return send_mail("add", http.body_as(RequestToken))


@bp.post("/account/password/email/requestToken")
@authenticated(optional=True, guests=True, suspended="partly")
def request_token_to_reset_password_email() -> Json:
    """Send a mail to validate an address for a password reset.

    Without a mail server, an administrator sets new passwords with `homebody user passwd`.
    Spec: client-server-api#post_matrixclientv3accountpasswordemailrequesttoken
    """
    if homeserver.server.config.smtp.host is None:
        raise errors.threepid_not_found(NO_MAIL)
    return send_mail("reset", http.body_as(RequestToken))


@bp.post("/register/msisdn/requestToken")
@bp.post("/account/3pid/msisdn/requestToken")
@unauthenticated
def request_token_msisdn() -> NoReturn:
    """Raise M_THREEPID_DENIED: text messages are not supported.

    Spec: client-server-api#post_matrixclientv3registermsisdnrequesttoken,
    client-server-api#post_matrixclientv3account3pidmsisdnrequesttoken
    """
    raise errors.threepid_denied(NO_MESSAGES)


@bp.post("/account/password/msisdn/requestToken")
@unauthenticated
def request_token_to_reset_password_msisdn() -> NoReturn:
    """Raise M_THREEPID_NOT_FOUND: text messages are not supported.

    Spec: client-server-api#post_matrixclientv3accountpasswordmsisdnrequesttoken
    """
    raise errors.threepid_not_found(NO_MESSAGES)


@bp.post("/account/3pid/add")
@authenticated(suspended=True)
def add_3pid() -> Json:
    """Add an address to the account, after its validation and the password.

    Spec: client-server-api#post_matrixclientv3account3pidadd
    """
    must_send_mail()
    body = http.json_object()
    return _add(body, http.convert(body, Credentials))


@bp.post("/account/3pid")
@authenticated(suspended=True)
def post_3pids() -> Json:
    """Add an address to the account, as clients of r0 do.

    Spec: client-server-api#post_matrixclientv3account3pid
    """
    must_send_mail()
    # Deviates: "equivalent to /3pid/bind", without a password. There is no identity server, and
    # clients that still call this mean what it did in r0. An added address allows a password
    # reset, so an unlocked telephone must not be enough.
    body = http.json_object()
    return _add(body, http.convert(body, OldCredentials).three_pid_creds)


@bp.post("/account/3pid/bind")
@authenticated()
def bind_3pid() -> NoReturn:
    """Raise M_SERVER_NOT_TRUSTED: identity servers are not supported.

    Spec: client-server-api#post_matrixclientv3account3pidbind
    """
    http.body_as(Bind)
    raise errors.server_not_trusted(NO_IDENTITY_SERVER)


@bp.post("/account/3pid/delete")
@authenticated()
def delete_3pid_from_account() -> Json:
    """Remove an address from the account. Raises M_THREEPID_NOT_FOUND.

    Spec: client-server-api#post_matrixclientv3account3piddelete
    """
    wanted, user_id = http.body_as(ThreePid), requester().user_id
    with homeserver.database.write() as tx:
        threepids.remove(tx, user_id, wanted.medium, wanted.address)
        pushers.remove_mailbox(tx, user_id, wanted.address)
    return {"id_server_unbind_result": "no-support"}


@bp.post("/account/3pid/unbind")
@authenticated()
def unbind_3pid_from_account() -> Json:
    """Do nothing: no identity server knows the address.

    Spec: client-server-api#post_matrixclientv3account3pidunbind
    """
    http.body_as(ThreePid)
    return {"id_server_unbind_result": "no-support"}


def must_send_mail() -> None:
    """Raise M_THREEPID_DENIED where the configuration names no mail server."""
    if homeserver.server.config.smtp.host is None:
        raise errors.threepid_denied(NO_MAIL)


def send_mail(purpose: validation.Purpose, body: RequestToken) -> Json:
    """Send a mail, and return its `sid`. Strangers learn only from the mail what is wrong.

    Raises M_THREEPID_IN_USE, M_THREEPID_NOT_FOUND.
    """
    address = threepids.canonical(body.email)
    wanted = validation.checked(
        validation.TokenRequest(
            purpose, address, body.client_secret, body.send_attempt, body.next_link
        )
    )
    authentication.rate_limits().check("rc_3pid_validation", address_key())
    authentication.rate_limits().check("rc_3pid_validation", address)
    with homeserver.database.read() as tx:
        owner = threepids.owner(tx, address)
    is_good = (owner is not None) == (purpose == "reset")
    user = maybe_requester()
    if not is_good and user is not None and not user.is_guest:  # guests are strangers with tokens
        if owner is None:
            raise errors.threepid_not_found("No account has this address")
        raise errors.threepid_in_use()
    compose = _Mail(purpose, address, owner, is_good=is_good)
    return {
        "sid": validation.send_token(homeserver.database, wanted, compose, can_validate=is_good)
    }


def _add(body: Json, credentials: Credentials) -> Json:
    """Add a validated address after the password in the body was proved."""
    with homeserver.database.read() as tx:  # before the password is requested
        proof = validation.check(tx, "add", credentials.sid, credentials.client_secret)
    interactive.require_password(body)
    with homeserver.database.write() as tx:
        threepids.add(tx, requester().user_id, proof)
    return {}


class _Mail:
    """Composes the mail about an address, for the link with a sid and a token."""

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
        config = homeserver.server.config
        link = f"{config.public_url}{PAGE}?sid={sid}&token={token}"
        values = {**self._values, "server_name": config.server_name, "link": link}
        text = render_template("mail.txt", **values)
        html = render_template("mail.html", **values)
        return validation.Message(f"{self._subject} ({config.server_name})", text, html)
