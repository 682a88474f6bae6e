"""Single sign-on for clients: the user logs in on our pages, and the client gets a login token.

A client that a link names must not get into the account by that alone, so the user is asked whether
to continue to it; a list of trusted clients is excepted.

Spec: client-server-api#client-login-via-sso
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from typing import Final, ParamSpec
from urllib.parse import quote, unquote, urlsplit

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.context import homeserver
from homebody.core.accounts import login_tokens
from homebody.core.sessions import browser_sessions as sessions
from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import for_everyone, session, signed_in
from homebody.web.sign_on_pages import PREFIX, journey

bp = Blueprint("sign_on_clients", __name__)
bp_v3 = Blueprint("sign_on_clients_v3", __name__, url_prefix="/_matrix/client/v3")

P = ParamSpec("P")
CLIENT: Final = f"{PREFIX}/client"
REGISTER: Final = f"{browser_sessions.PREFIX}oauth/register"
"""The page on which new users register; it also knows clients that don't use OAuth 2.0."""
FRESH_MS: Final = 5 * 60_000
"""How old a session may be for a trusted client to need no question: else a user could not choose
another account."""
MAX_URL: Final = 4_000
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_PLAIN: Final = re.compile(r"[!-\[\]-~]+")
_WEB: Final = {"http", "https"}
_NOT_CLIENTS: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "intent", "javascript", "vbscript"}
)
"""Schemes that browsers open themselves, where a token could get into other hands; and one by which
Android opens any app, whatever the page that asks would call it."""


def _with_errors_for_programs(view: Callable[P, Response]) -> Callable[P, Response]:
    """Have errors of a view of the Client-Server API as pages for browsers, and else as JSON."""

    @functools.wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Response:
        is_browser = "text/html" in request.headers.get("Accept", "")
        return as_page(*args, **kwargs) if is_browser else view(*args, **kwargs)

    as_page = for_everyone(view)
    authentication.declared[checked] = authentication.declared[as_page]
    return checked


@bp_v3.get("/login/sso/redirect", endpoint="redirect_to_sso")
@_with_errors_for_programs
def redirect_to_sso() -> Response:
    """Lead the browser to our login page, where all ways to log in are, or to the registration.

    Spec: client-server-api#get_matrixclientv3loginssoredirect
    """
    url = redirect_url()
    is_open = homeserver.server.config.registration != "closed"
    if request.args.get("action") == "register" and is_open:
        return journey.redirect(f"{REGISTER}?redirectUrl={quote(url, safe='')}")
    return journey.redirect(page_of(url))


@bp_v3.get("/login/sso/redirect/<idp_id>", endpoint="redirect_to_idp")
@_with_errors_for_programs
def redirect_to_idp(idp_id: str) -> Response:
    """Lead the browser to a provider.

    Spec: client-server-api#get_matrixclientv3loginssoredirectidpid
    """
    return journey.leave(idp_id, "login", page_of(redirect_url()))


@bp.get("/client")
@signed_in(suspended=True)
def ask() -> Response:
    """Ask the user who is logged in whether to continue to the client."""
    url = redirect_url()
    is_fresh = time.time_ns() // 1_000_000 - session().created_ts < FRESH_MS
    if is_fresh and _is_trusted(url):
        return _continue_to(url)
    parts = urlsplit(url)
    asking = pages.page(
        "sign_on_client.html",
        url=url,
        place=parts.netloc if parts.scheme in _WEB else parts.scheme,
        is_web=parts.scheme in _WEB,
        user_id=browser_sessions.account().user_id,
    )
    return pages.with_form_that_leaves(asking)


@bp.post("/client")
@signed_in(suspended=True)
def agree() -> Response:
    """Continue to the client, with a login token."""
    return _continue_to(redirect_url())


@bp.post("/switch")
@signed_in(suspended=True)
def switch() -> Response:
    """End the session, so that the user can log in with another account."""
    wanted = page_of(redirect_url())
    with homeserver.database.write() as tx:
        sessions.end(tx, session())
    login = f"{browser_sessions.LOGIN}?next={quote(wanted, safe='')}"
    return browser_sessions.forget(browser_sessions.see_other(login))


def redirect_url() -> str:
    """Return the URL of the client. Raises M_MISSING_PARAM, M_INVALID_PARAM."""
    url = request.values.get("redirectUrl", "")
    if not url:
        raise errors.missing_param("redirectUrl is missing")
    scheme = _SCHEME.match(url)
    # As browsers write it: a letter beyond ASCII could make a host look like another one
    is_plain = len(url) <= MAX_URL and _PLAIN.fullmatch(url) is not None
    if scheme is None or not is_plain or scheme[1].lower() in _NOT_CLIENTS:
        raise errors.invalid_param("redirectUrl is not the URL of a client")
    try:
        parts = urlsplit(url)
        is_complete = parts.scheme not in _WEB or (parts.hostname and parts.username is None)
    except ValueError:
        is_complete = False
    if not is_complete:
        raise errors.invalid_param("redirectUrl is not the URL of a client")
    return url


def page_of(url: str) -> str:
    """Return the path of our page that asks whether to continue to a client."""
    return f"{CLIENT}?redirectUrl={quote(url, safe='')}"


def _is_trusted(url: str) -> bool:
    """Return whether a client is in the list of trusted ones: the same origin, and below a path."""
    asked = urlsplit(url)
    is_below = ".." not in unquote(asked.path)  # browsers take %2e for a dot
    for known in map(urlsplit, homeserver.server.config.sso_trusted_clients):
        is_same = (known.scheme, known.netloc) == (asked.scheme, asked.netloc)
        folder = known.path.rstrip("/")
        if is_same and is_below and f"{asked.path}/".startswith(f"{folder}/"):
            return True
    return False


def _continue_to(url: str) -> Response:
    me = browser_sessions.account().user_id
    authentication.rate_limits().check("rc_get_login_token", me)
    with homeserver.database.write() as tx:
        token = login_tokens.issue(
            tx, me, login_tokens.SSO_LIFETIME_MS, browser_hash=session().token_hash
        )
    return journey.redirect(with_token(url, token))


def with_token(url: str, token: str) -> str:
    """Return the URL of a client with a login token, in place of any that it has."""
    rest, hash_mark, fragment = url.partition("#")
    path, _, query = rest.partition("?")
    kept = [it for it in query.split("&") if it and unquote(it.partition("=")[0]) != "loginToken"]
    return f"{path}?{'&'.join([*kept, f'loginToken={token}'])}{hash_mark}{fragment}"
