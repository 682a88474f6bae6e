"""The page on which a new user registers, before the client that sent them here is let in.

The rules are those of POST /register: closed, open, or with a token; the documents to accept; its
rate limit.

Spec: client-server-api#user-registration
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import address_key
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.rooms import newcomers
from homebody.core.sessions import registration, registration_tokens
from homebody.errors import MatrixError
from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import for_everyone, see_other
from homebody.web.oauth.authorization import AUTHORIZE, find_target, parameters
from homebody.web.sign_on_pages import clients as single_sign_on

bp = Blueprint("oauth_registration", __name__)

_FIELD_OF: Final = {
    "M_WEAK_PASSWORD": "password",
    "M_INVALID_PARAM": "password",
    "M_USER_IN_USE": "name",
    "M_INVALID_USERNAME": "name",
    "M_EXCLUSIVE": "name",
    "M_FORBIDDEN": "token",
}
"""The field that an error is about, by its errcode."""


@dataclass(slots=True)
class Form:
    """What was sent, and what is wrong with it: {field: sentence}."""

    name: str = ""
    password: str = ""
    token: str | None = None
    problems: dict[str, str] = field(default_factory=dict)


@bp.get("/register")
@for_everyone
def show_registration() -> Response:
    """Return the page on which a new user chooses a name and a password."""
    return _page(Form(), _following())


@bp.post("/register")
@for_everyone
def register() -> Response:
    """Register the account, and go on with what the client has asked for."""
    following = _following()
    flow = registration.flows(homeserver.server.config)[0]
    authentication.rate_limits().check("rc_registration", address_key())
    form = Form(request.form.get("name", "").strip(), request.form.get("password", ""))
    if registration.TOKEN in flow:
        form.token = request.form.get("token", "").strip()
    _check(form)
    if form.problems:
        return _page(form, following)
    try:
        password_hash = accounts.hash_password(homeserver.server, form.password)
        with homeserver.database.write() as tx:
            user_id = registration.register(tx, form.name, password_hash, token=form.token)
            registration.accept_terms(tx, user_id)
            session = browser_sessions.start(tx, user_id)
    except MatrixError as error:
        if error.errcode not in _FIELD_OF:
            raise
        form.problems[_FIELD_OF[error.errcode]] = f"{error.message}."
        return _page(form, following)
    newcomers.join_rooms(homeserver.database, user_id)
    return browser_sessions.with_session(see_other(following), session)


def _check(form: Form) -> None:
    with homeserver.database.read() as tx:
        try:
            registration.free_user_id(tx, form.name)
        except MatrixError as error:
            form.problems["name"] = f"{error.message}."
        if form.token is not None and not registration_tokens.is_valid(tx, form.token):
            form.problems |= {"token": "This registration token is not valid."}
    try:
        accounts.check_new_password(homeserver.server.config, form.password)
    except MatrixError as error:
        form.problems["password"] = f"{error.message}."
    else:
        if form.password != request.form.get("again", ""):
            form.problems["again"] = "The two passwords are not the same."
    if homeserver.server.config.terms and not request.form.get("terms"):
        form.problems["terms"] = "You can only have an account here if you agree."


def _page(form: Form, following: str) -> Response:
    config = homeserver.server.config
    if config.registration == "closed":
        raise errors.forbidden("Registration is closed on this server. Ask its administrator")
    return pages.page(
        "oauth/register.html",
        400 if form.problems else 200,
        form=form,
        config=config,
        authorize=following,
        sign_on=browser_sessions.sign_on_links(following),
    )


def _following() -> str:
    """Return the page that lets the client in, which is next.

    Raises M_INVALID_PARAM if it is not sure which client that is.
    """
    if "redirectUrl" in request.args:
        return single_sign_on.page_of(single_sign_on.redirect_url())
    find_target()
    rest = {name: values for name, values in parameters().items() if name != "prompt"}
    return f"{AUTHORIZE}?{urlencode(rest, doseq=True)}"
