"""The way to a provider and back.

OpenID Connect Core 1.0, section 3.1.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import address_key
from homebody.config.login_providers import OidcProvider
from homebody.context import homeserver
from homebody.core.sign_on import attempts, logins
from homebody.core.sign_on.attempts import Attempt, Purpose
from homebody.core.sign_on.providers import Identity, Login
from homebody.outside import RemoteError
from homebody.outside.openid_provider import ERROR_CODE
from homebody.web import browser_sessions
from homebody.web.browser_sessions import for_everyone
from homebody.web.sign_on_pages import PREFIX

LOG = logging.getLogger(__name__)

bp = Blueprint("sign_on", __name__)

FINISH: Final = f"{PREFIX}/finish"
ACCOUNT: Final = f"{browser_sessions.PREFIX}account/"
_REFUSED: Final = {"access_denied", "consent_required", "interaction_required", "login_required"}


@bp.get("/start/<provider_id>")
@for_everyone
def start(provider_id: str) -> Response:
    """Lead the browser to a provider; after the login, it opens the page `next`."""
    return leave(provider_id, "login", browser_sessions.next_page())


@bp.get("/link/<provider_id>")
@for_everyone
def link(provider_id: str) -> Response:
    """Lead a user who is logged in to a provider, to link an account there."""
    user = browser_sessions.visitor()
    if user is None:
        return browser_sessions.to_login(ACCOUNT)
    logins.check_linkable(homeserver.login_providers.find(provider_id))
    return leave(provider_id, "link", ACCOUNT, user.user_id)


@bp.get("/again/<provider_id>")
@for_everyone
def log_in_again(provider_id: str) -> Response:
    """Lead a user who is logged in to a provider, in place of entering a password."""
    user = browser_sessions.visitor()
    if user is None:
        return browser_sessions.to_login(ACCOUNT)
    return leave(provider_id, "again", ACCOUNT, user.user_id)


@bp.get("/callback/<provider_id>")
@for_everyone
def come_back(provider_id: str) -> Response:
    """Take the code that the provider has given the browser, and learn who the user is."""
    authentication.rate_limits().check("rc_login.address", address_key())
    provider, browser = homeserver.login_providers.find(provider_id), cookie()
    state, code = request.args.get("state", ""), request.args.get("code", "")
    with homeserver.database.write() as tx:
        attempt = attempts.note_return(tx, browser, state, provider.id)
    if not code:
        raise _refusal(provider, request.args.get("error", ""))
    login = _login(provider, browser, state, attempt.purpose)
    with provider_errors(provider):
        identity = homeserver.login_providers.identify(
            provider, login, code=code, issuer=request.args.get("iss")
        )
    with homeserver.database.write() as tx:
        attempts.vouch(tx, state, identity)
    return browser_sessions.see_other(f"{FINISH}?state={quote(state, safe='')}")


def leave(provider_id: str, purpose: Purpose, target: str, user_id: str | None = None) -> Response:
    """Return the response that leads the browser to a provider.

    Raises M_NOT_FOUND, M_UNKNOWN (502) if the provider can't be reached, M_LIMIT_EXCEEDED.
    """
    authentication.rate_limits().check("rc_login.address", address_key())
    provider = homeserver.login_providers.find(provider_id)
    browser = cookie() or secrets.token_urlsafe(32)
    with homeserver.database.write() as tx:
        state = attempts.begin(tx, browser, provider.id, purpose, target, user_id)
    with provider_errors(provider):
        login = _login(provider, browser, state, purpose)
        url = homeserver.login_providers.authorization_url(provider, login)
    return browser_sessions.with_sign_on_cookie(redirect(url), browser)


def redirect(url: str) -> Response:
    """Send the browser to a URL; nothing of ours goes with it."""
    response = Response(status=302, headers={"Location": url})
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def cookie() -> str:
    """Return the cookie of this browser's logins, "" if there is none."""
    return browser_sessions.sign_on_cookie() or ""


def vouched() -> tuple[str, Attempt, Identity]:
    """Return the state in the request, its login, and whom the provider vouches for.

    Raises M_FORBIDDEN.
    """
    state = request.values.get("state", "")
    with homeserver.database.read() as tx:
        attempt = attempts.find(tx, cookie(), state)
    if attempt.identity is None:
        raise errors.forbidden(attempts.OVER)
    return state, attempt, attempt.identity


@contextmanager
def provider_errors(provider: OidcProvider) -> Iterator[None]:
    """Log what is wrong with a provider, and raise M_UNKNOWN (502, 504) for the user."""
    try:
        yield
    except RemoteError as problem:
        LOG.warning("login provider %s: %s", provider.id, problem)
        is_slow = problem.kind == "timeout"
        sentence = f"The login at {provider.name} does not work at the moment"
        raise errors.unknown(sentence, 504 if is_slow else 502) from problem


def _login(provider: OidcProvider, browser: str, state: str, purpose: Purpose) -> Login:
    return Login(
        f"{homeserver.server.config.public_url}{PREFIX}/callback/{provider.id}",
        state,
        attempts.secret(browser, state, "nonce"),
        attempts.secret(browser, state, "verifier"),
        is_again=purpose in {"confirm", "again"},
    )


def _refusal(provider: OidcProvider, code: str) -> errors.MatrixError:
    """Return the error for a response without a code."""
    if code in _REFUSED:
        return errors.forbidden(f"{provider.name} did not let you in")
    shown = code if ERROR_CODE.fullmatch(code) else "no code"
    LOG.warning("login provider %s: it responds to a login with %s", provider.id, shown)
    return errors.unknown(f"The login at {provider.name} did not work", 502)
