"""The pages behind links that let a person in once: to register, or to set a new password.

The token is in the path. Responses forbid to keep the page or to pass its address on, and the log
masks it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, request

from homebody.client_server import authentication
from homebody.client_server.authentication import address_key
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.rooms import newcomers
from homebody.core.sessions import devices, invitations, login, registration
from homebody.core.sessions.invitations import Invitation
from homebody.errors import MatrixError
from homebody.spec import identifiers
from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import for_everyone

bp = Blueprint("invitation_pages", __name__)

INVITE: Final = f"{browser_sessions.PREFIX}invite/<token>"
RESET: Final = f"{browser_sessions.PREFIX}reset/<token>"
START: Final = f"{browser_sessions.PREFIX}start"
_FIELD_OF: Final = {
    "M_WEAK_PASSWORD": "password",
    "M_INVALID_PARAM": "password",
    "M_USER_IN_USE": "name",
    "M_INVALID_USERNAME": "name",
    "M_EXCLUSIVE": "name",
}
"""The field that an error is about, by its errcode."""


@dataclass(slots=True)
class Form:
    """What was sent, and what is wrong with it: {field: sentence}."""

    name: str = ""
    password: str = ""
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The status of the page that shows it."""
        return 400 if self.problems else 200


@bp.get(INVITE)
@for_everyone
def show_invitation(token: str) -> Response:
    """Return the page on which a person who was invited chooses a name and a password."""
    return _invitation_page(_find(invitations.REGISTER, token), Form())


@bp.post(INVITE)
@for_everyone
def accept_invitation(token: str) -> Response:
    """Register the account, join the rooms for newcomers, and show the first steps."""
    authentication.rate_limits().check("rc_registration", address_key())
    found = _find(invitations.REGISTER, token)
    form = Form(request.form.get("name", "").strip(), request.form.get("password", ""))
    if found.user_id is None:
        _check_name(form)
    _check_password(form)
    if homeserver.server.config.terms and not request.form.get("terms"):
        form.problems["terms"] = "You can only have an account here if you agree."
    if form.problems:
        return _invitation_page(found, form)
    try:
        password_hash = accounts.hash_password(homeserver.server, form.password)
        with homeserver.database.write() as tx:
            user_id, rooms = invitations.register(tx, token, form.name, password_hash)
            session = browser_sessions.start(tx, user_id)
    except MatrixError as error:
        if error.errcode not in _FIELD_OF:
            raise
        form.problems[_FIELD_OF[error.errcode]] = f"{error.message}."
        return _invitation_page(found, form)
    newcomers.join_rooms(homeserver.database, user_id, rooms)
    return browser_sessions.with_session(browser_sessions.see_other(START), session)


@bp.get(START)
@for_everyone
def show_first_steps() -> Response:
    """Return the page that says how to connect each client with this server."""
    config, user = homeserver.server.config, browser_sessions.visitor()
    user_id = user.user_id if user else None
    name = identifiers.localpart(user_id) if user_id else None
    links = _links(config.server_name, name)
    return pages.page("first_steps.html", user_id=user_id, name=name, config=config, links=links)


@bp.get(RESET)
@for_everyone
def show_reset(token: str) -> Response:
    """Return the page on which a user who has lost the password sets a new one."""
    return _reset_page(_find(invitations.PASSWORD, token), Form())


@bp.post(RESET)
@for_everyone
def reset_password(token: str) -> Response:
    """Set the new password, and log out all devices."""
    authentication.rate_limits().check("rc_login.address", address_key())
    found = _find(invitations.PASSWORD, token)
    form = Form(password=request.form.get("password", ""))
    _check_password(form)
    if form.problems:
        return _reset_page(found, form)
    password_hash = accounts.hash_password(homeserver.server, form.password)
    devices.remove_most(homeserver.database, found.user_id or "")
    with homeserver.database.write() as tx:
        user_id = login.reset_password(tx, token, password_hash)
    return browser_sessions.forget(pages.page("reset_done.html", user_id=user_id))


def _find(purpose: str, token: str) -> Invitation:
    authentication.rate_limits().check("rc_strangers", address_key())
    with homeserver.database.read() as tx:
        return invitations.find(tx, purpose, token)


def _check_name(form: Form) -> None:
    try:
        with homeserver.database.read() as tx:
            registration.free_user_id(tx, form.name)
    except MatrixError as error:
        form.problems["name"] = f"{error.message}."


def _check_password(form: Form) -> None:
    try:
        accounts.check_new_password(homeserver.server.config, form.password)
    except MatrixError as error:
        form.problems["password"] = f"{error.message}."
        return
    if form.password != request.form.get("again", ""):
        form.problems["again"] = "The two passwords are not the same."


def _invitation_page(found: Invitation, form: Form) -> Response:
    config = homeserver.server.config
    return pages.page(
        "invitation.html", form.status, user_id=found.user_id, form=form, config=config
    )


def _reset_page(found: Invitation, form: Form) -> Response:
    config = homeserver.server.config
    return pages.page("reset.html", form.status, user_id=found.user_id, form=form, config=config)


def _links(server_name: str, name: str | None) -> dict[str, str]:
    """Return links that open clients with this server and user filled in."""
    server = quote(server_name, safe="")
    hint = f"&login_hint=mxid:@{quote(name, safe='')}:{server}" if name else ""
    user = f"?username={quote(name, safe='')}" if name else ""
    return {
        # with a slash before the query: without it, the app does not open
        "element_x": f"https://mobile.element.io/element/?account_provider={server}{hint}",
        "cinny": f"https://app.cinny.in/login/{server}/{user}",
    }
