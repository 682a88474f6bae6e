"""The end of a login at a provider: the user's account, a new one, or one to link."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import address_key
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.rooms import newcomers
from homebody.core.sign_on import attempts, logins
from homebody.core.sign_on.attempts import Attempt
from homebody.core.sign_on.providers import Identity
from homebody.errors import MatrixError
from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import for_everyone, signed_in
from homebody.web.sign_on_pages import journey, stage

bp = Blueprint("sign_on_accounts", __name__)

_FIELD_OF: Final = {
    "M_USER_IN_USE": "name",
    "M_INVALID_USERNAME": "name",
    "M_EXCLUSIVE": "name",
    "M_FORBIDDEN": "token",
}
"""The field that an error of a new account is about, by its errcode."""


@dataclass(slots=True)
class Form:
    """What was sent, and what is wrong with it: {field: sentence}."""

    name: str = ""
    user: str = ""
    problems: dict[str, str] = field(default_factory=dict)


@bp.get("/finish")
@for_everyone
def finish() -> Response:
    """Start a session of the account that is linked to the login; else ask which it should be."""
    state, attempt, identity = journey.vouched()
    if attempt.purpose == "confirm":
        return stage.ask(state, attempt, identity)
    if attempt.purpose == "link":
        return _link_page(state, attempt, identity)
    if attempt.purpose == "again":
        return _proved(attempt)
    with homeserver.database.write() as tx:
        account = logins.account_of(tx, identity)
        if account is not None:
            token = logins.start_session(tx, account, identity, **browser_sessions.client())
            attempts.end(tx, state)
    if account is not None:
        return _enter(attempt, token)
    provider = homeserver.login_providers.find(identity.provider)
    with homeserver.database.read() as tx:
        name = logins.free_name(tx, identity)
    policy = logins.registration_policy(homeserver.server.config, provider)
    has_questions = policy != "open" or homeserver.server.config.terms
    if name is not None and provider.localpart_template is not None and not has_questions:
        return _create(state, attempt, identity, name, None)
    return _new_page(state, identity, Form(name or ""))


@bp.post("/new")
@for_everyone
def create() -> Response:
    """Create an account for the login, with the name that the user has chosen."""
    state, attempt, identity = _logging_in()
    form = Form(request.form.get("name", "").strip())
    if homeserver.server.config.terms and not request.form.get("terms"):
        form.problems["terms"] = "You can only have an account here if you agree."
        return _new_page(state, identity, form)
    try:
        token = request.form.get("token", "").strip()
        return _create(state, attempt, identity, form.name, token)
    except MatrixError as error:
        if error.errcode not in _FIELD_OF:
            raise
        form.problems[_FIELD_OF[error.errcode]] = browser_sessions.message_of(error)
        return _new_page(state, identity, form)


@bp.post("/existing")
@for_everyone
def link_existing() -> Response:
    """Link the login to the account with this name and password, and log in to it."""
    state, attempt, identity = _logging_in()
    provider = homeserver.login_providers.find(identity.provider)
    form = Form(user=request.form.get("user", "").strip())
    logins.check_linkable(provider)
    try:
        proved = browser_sessions.prove_named(form.user, request.form.get("password", ""))
        with homeserver.database.write() as tx:
            logins.link(tx, identity, proved)
            token = logins.start_session(tx, proved, identity, **browser_sessions.client())
            attempts.end(tx, state)
    except MatrixError as error:
        form.problems["user"] = browser_sessions.message_of(error)
        return _new_page(state, identity, form, error.status)
    return _enter(attempt, token)


@bp.post("/link")
@signed_in()
def link_own() -> Response:
    """Link the login to the account that is logged in, after its password was proved.

    It is one more way in, which an intruder at an unlocked computer must not get.
    """
    state, attempt, identity = journey.vouched()
    me = browser_sessions.account()
    if attempt.purpose != "link" or attempt.user_id != me.user_id:
        raise errors.forbidden(attempts.OVER)
    try:
        browser_sessions.prove(request.form.get("current", ""))
    except MatrixError as error:
        problems = {"current": browser_sessions.message_of(error)}
        return _link_page(state, attempt, identity, problems, error.status)
    with homeserver.database.write() as tx:
        logins.link(tx, identity, accounts.find(tx, me.user_id) or me)
        attempts.end(tx, state)
    return browser_sessions.see_other(f"{journey.ACCOUNT}?done=linked")


@bp.post("/unlink")
@signed_in()
def unlink() -> Response:
    """End the link of the account that is logged in to its logins at a provider."""
    with homeserver.database.write() as tx:
        logins.unlink(tx, browser_sessions.account().user_id, request.form.get("provider", ""))
    return browser_sessions.see_other(f"{journey.ACCOUNT}?done=unlinked")


def _logging_in() -> tuple[str, Attempt, Identity]:
    """Return the login of the request. Raises M_FORBIDDEN for one with another purpose."""
    found = journey.vouched()
    if found[1].purpose != "login":
        raise errors.forbidden(attempts.OVER)
    return found


def _create(
    state: str, attempt: Attempt, identity: Identity, name: str, token: str | None
) -> Response:
    authentication.rate_limits().check("rc_registration", address_key())
    provider = homeserver.login_providers.find(identity.provider)
    with homeserver.database.write() as tx:
        account = logins.register(tx, provider, identity, name, token)
        session = logins.start_session(tx, account, identity, **browser_sessions.client())
        attempts.end(tx, state)
    newcomers.join_rooms(homeserver.database, account.user_id)
    return _enter(attempt, session)


def _enter(attempt: Attempt, token: str) -> Response:
    """Start the session of the browser, and open the page that the user wanted."""
    return browser_sessions.with_session(browser_sessions.see_other(attempt.target), token)


def _proved(attempt: Attempt) -> Response:
    """Return the page after a login in place of a password; the attempt stays, as its proof."""
    with homeserver.database.read() as tx:
        if not logins.has_proved(tx, journey.cookie(), attempt.user_id or ""):
            raise errors.forbidden("This login belongs to another account")
    return pages.page("sign_on_again.html", minutes=attempts.AGAIN_MINUTES)


def _link_page(
    state: str,
    attempt: Attempt,
    identity: Identity,
    problems: dict[str, str] | None = None,
    status: int = 200,
) -> Response:
    me = browser_sessions.visitor()
    if me is None or me.user_id != attempt.user_id:
        raise errors.forbidden(attempts.OVER)
    return pages.page(
        "sign_on_link.html",
        status,
        state=state,
        provider=homeserver.login_providers.find(identity.provider),
        identity=identity,
        problems=problems or {},
    )


def _new_page(state: str, identity: Identity, form: Form, status: int = 400) -> Response:
    """Return the page for a login without an account."""
    config = homeserver.server.config
    provider = homeserver.login_providers.find(identity.provider)
    policy = logins.registration_policy(config, provider)
    if policy == "closed" and not provider.allow_existing_users:
        raise errors.forbidden(logins.NOT_OPEN)
    return pages.page(
        "sign_on_new.html",
        status if form.problems else 200,
        state=state,
        identity=identity,
        provider=provider,
        policy=policy,
        config=config,
        form=form,
        me=None,
    )
