"""Logging in to the pages of this server with a browser, and what protects their forms.

Views of pages are declared with `signed_in`, for users who are logged in, or `for_everyone`. Both
turn errors into pages, and check that each form that is sent comes from a page of this server:

- The session is in a cookie that scripts can't read, and that browsers send with requests from
  pages of this server alone.
- Each form has a hidden field, `{{ csrf_field() }}` in its template, derived from the cookie, which
  other sites don't know. Before the login a random cookie takes the place of the session's.

The sessions themselves are in core/sessions/browser_sessions.py.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, ParamSpec, cast
from urllib.parse import parse_qs, quote, urlsplit

from flask import Blueprint, Response, after_this_request, g, request
from markupsafe import Markup
from werkzeug.exceptions import RequestEntityTooLarge

from homebody import errors
from homebody.client_server import authentication, policy_servers
from homebody.client_server import login as client_login
from homebody.client_server.authentication import READING, Access
from homebody.context import homeserver
from homebody.core.accounts import external_ids
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.sessions import browser_sessions, login, sign_on_sessions
from homebody.core.sessions.browser_sessions import BrowserSession
from homebody.core.sign_on import logins
from homebody.core.timeline.policies import UnapprovedError
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Tx
from homebody.web import pages

bp = Blueprint("browser_sessions", __name__)

P = ParamSpec("P")
PREFIX: Final = "/_homebody/"
"""The paths of the pages that need a session; a login leads to none but these."""
LOGIN: Final = f"{PREFIX}login"
SIGN_ON_START: Final = f"{PREFIX}sign-on/start/"
"""Followed by the id of a provider, with the parameter `next`."""
SIGN_ON_AGAIN: Final = f"{PREFIX}sign-on/again/"
"""Followed by the id of a provider."""
SESSION: Final = "homebody_session"
FORM: Final = "homebody_form"
SIGN_ON: Final = "homebody_sign_on"
"""The names of the cookies; with https they have a prefix, see `_cookie`."""
CSRF: Final = "csrf_token"
MAX_NEXT: Final = 20_000
"""Characters: the page of a client has its URL, escaped. It is kept during a login elsewhere."""
MAX_FORM_BYTES: Final = 250_000
"""For a notice of 20,000 characters, of which each may take nine in a form."""
STALE: Final = "The form is too old, or your browser does not accept cookies. Load the page again"


def signed_in(
    *, admins_only: bool = False, suspended: authentication.Allowed = False
) -> Callable[[Callable[P, Response]], Callable[P, Response]]:
    """Run the view of a page only for users who are logged in; others are sent to the login.

    `session()` and `account()` are then the user's. With `admins_only`, other users get a page with
    the status 403; `suspended` users may send forms only where it says so. Requests that are not
    GET need the hidden field of their form, and count under `rc_writes`.
    """

    def decorate(view: Callable[P, Response]) -> Callable[P, Response]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Response:
            try:
                if not _resume():
                    return to_login()
                g.access = access
                if admins_only and not account().is_admin:
                    raise errors.forbidden(authentication.ADMINS_ONLY)
                if request.method not in READING:
                    authentication.rate_limits().check("rc_writes", account().user_id)
                    if account().is_suspended and not suspended:
                        raise errors.user_suspended()
                    _check_form()
                return view(*args, **kwargs)
            except UnapprovedError as needed:
                again = functools.partial(view, *args, **kwargs)
                return policy_servers.with_approval(needed, again)
            except MatrixError as error:
                if error.errcode == "M_UNKNOWN_TOKEN":  # the session has ended meanwhile
                    return to_login()
                return problem(error)

        access = Access("browser", suspended=suspended, admins_only=admins_only)
        authentication.declared[checked] = access
        return checked

    return decorate


def for_everyone(view: Callable[P, Response]) -> Callable[P, Response]:
    """Run the view of a page that needs no session; see `signed_in` for what it checks of forms."""

    @functools.wraps(view)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            if request.method not in READING:
                authentication.count_change(None)
                _check_form()
            return view(*args, **kwargs)
        except MatrixError as error:
            return problem(error)

    authentication.declared[checked] = Access("none", guests=True, suspended=True, locked=True)
    return checked


def session() -> BrowserSession:
    """Return the session of the request, in a view for users who are logged in."""
    return cast(BrowserSession, g.browser_session)


def account() -> AccountInfo:
    """Return the account of the request, in a view for users who are logged in."""
    return cast(AccountInfo, g.browser_account)


def visitor() -> AccountInfo | None:
    """Return the account of the request if there is a session, in a view for everyone."""
    return account() if _resume() else None


def start(tx: Tx, user_id: str) -> str:
    """Start a session of a user whose identity the request has proved, and return its token."""
    return browser_sessions.start(tx, user_id, **client())


def with_session(response: Response, token: str) -> Response:
    """Set the cookie of a session that was started."""
    _set_cookie(response, SESSION, token)
    return response


def prove_named(name: str, password: str) -> AccountInfo:
    """Return the account with this name or e-mail address, and this password.

    Raises M_FORBIDDEN, M_USER_LOCKED, M_LIMIT_EXCEEDED.
    """
    known = login.name_of(homeserver.database, _identifier(name)) or ""
    return client_login.prove(known, password)


def prove(password: str) -> None:
    """Require the password of the user who is logged in, for what an intruder must not do.

    The request can write only while the account has this password. A user without one must have
    logged in again, at a provider, just before. Raises M_FORBIDDEN, M_LIMIT_EXCEEDED.
    """
    if account().password_hash is None:
        with homeserver.database.read() as tx:
            if not logins.has_proved(tx, sign_on_cookie() or "", account().user_id):
                raise errors.forbidden("Log in again first, by the link above")
        return
    try:
        proved = client_login.prove(account().user_id, password)
    except MatrixError as error:
        if error.errcode != "M_FORBIDDEN":
            raise
        raise errors.forbidden("This is not your password") from error
    authentication.rely_on(proved)


def sign_on_cookie() -> str | None:
    """Return the cookie of logins at other providers that this browser has begun."""
    return request.cookies.get(_cookie(SIGN_ON))


def with_sign_on_cookie(response: Response, value: str) -> Response:
    """Set this cookie."""
    _set_cookie(response, SIGN_ON, value)
    return response


def sign_on_links(wanted: str) -> list[tuple[str, str]]:
    """Return the name of each login provider, and the link to log in there, then open `wanted`.

    `wanted` is the path of one of our pages, with its query.
    """
    return [
        (it.name, f"{SIGN_ON_START}{it.id}?next={quote(wanted, safe='')}")
        for it in homeserver.login_providers.all
    ]


@bp.app_template_global()
def links_to_log_in_again() -> list[tuple[str, str]]:
    """Return the name of each provider that the user is linked to, and the link to prove it."""
    with homeserver.database.read() as tx:
        linked = {it for it, _ in external_ids.of_user(tx, account().user_id)}
    known = homeserver.login_providers.all
    return [(it.name, f"{SIGN_ON_AGAIN}{it.id}") for it in known if it.id in linked]


def next_page() -> str:
    """Return the page that the user wants after the login, if it is one of ours."""
    wanted = request.values.get("next", "")
    is_ours = wanted.startswith(PREFIX) and "\\" not in wanted and wanted.isprintable()
    is_plain = wanted.isascii() and len(wanted) <= MAX_NEXT
    return wanted if is_ours and is_plain else f"{PREFIX}account/"


def forget(response: Response) -> Response:
    """Have the browser delete the cookie of its session."""
    _set_cookie(response, SESSION, "")
    return response


def see_other(url: str) -> Response:
    """Send the browser to another page of this server, or back to a client."""
    response = Response(status=303, headers={"Location": url})
    response.headers["Cache-Control"] = "no-store"
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


def problem(error: MatrixError) -> Response:
    """Return the page for an error."""
    response = pages.page("problem.html", error.status, problem=message_of(error))
    if "retry_after_ms" in error.fields:
        response.headers["Retry-After"] = str(_seconds(error))
    return response


def message_of(error: MatrixError) -> str:
    """Return a sentence for users that says what was wrong."""
    if "retry_after_ms" in error.fields:
        return f"Too many attempts. Try again in {_seconds(error)} seconds."
    return f"{error.message}."


@bp.get(LOGIN)
@for_everyone
def show_login() -> Response:
    """Return the page on which users log in to the pages of this server."""
    if visitor() is not None:
        return see_other(next_page())
    return _login_page()


@bp.post(LOGIN)
@for_everyone
def log_in() -> Response:
    """Log in by the form of the page, and go on where the user wanted to go."""
    name, password = request.form.get("user", "").strip(), request.form.get("password", "")
    try:
        proved = prove_named(name, password)
        with homeserver.database.write() as tx:
            token = browser_sessions.begin(tx, proved, **client())
    except MatrixError as error:
        return _login_page(error, name)
    return with_session(see_other(next_page()), token)


@bp.post(f"{PREFIX}logout")
@signed_in(suspended=True)
def log_out() -> Response:
    """End the session of this browser."""
    with homeserver.database.write() as tx:
        origin = sign_on_sessions.of_browser(tx, session().token_hash)
        browser_sessions.end(tx, session())
    return forget(see_other("/") if origin is None else _logged_out(origin.provider))


def _logged_out(provider_id: str) -> Response:
    """Return a page that leads to the logout of the provider where the session began, if any."""
    providers = {it.id: it for it in homeserver.login_providers.all}
    provider = providers.get(provider_id)
    url = None if provider is None else homeserver.login_providers.logout_url(provider)
    if provider is None or url is None:
        return see_other("/")
    return pages.page("sign_on_logged_out.html", name=provider.name, url=url, me=None)


@bp.app_context_processor
def _for_templates() -> dict[str, object]:
    """Return what all templates may use: `csrf_field()`, and `me`, who is logged in."""
    return {"csrf_field": csrf_field, "me": g.get("browser_account")}


@bp.app_template_filter("minute")
def show_minute(ts: int) -> str:
    """Return a time in ms as users read it, in the time zone of the server."""
    return f"{datetime.fromtimestamp(ts / 1000).astimezone():%Y-%m-%d %H:%M}"


@bp.app_template_filter("iso_time")
def show_iso_time(ts: int) -> str:
    """Return a time in ms as programs read it."""
    return datetime.fromtimestamp(ts / 1000).astimezone().isoformat(timespec="seconds")


def csrf_field() -> Markup:
    """Return the hidden field that each form needs."""
    return Markup('<input type="hidden" name="{}" value="{}">').format(CSRF, _mac(_secret()))


def _resume() -> bool:
    """Find the session of the request's cookie, and note its use."""
    token = request.cookies.get(_cookie(SESSION))
    if not token:
        return False
    try:
        with homeserver.database.read() as tx:
            found, its_account = browser_sessions.find(tx, token)
    except MatrixError as error:
        if error.errcode != "M_UNKNOWN_TOKEN":
            raise
        return False
    g.browser_session, g.browser_account = found, its_account
    if browser_sessions.is_use_to_write(found, time.time_ns() // 1_000_000):
        with homeserver.database.write() as tx:
            browser_sessions.note_use(tx, found, request.remote_addr or "")
    return True


def _check_form() -> None:
    """Raise M_FORBIDDEN unless the form comes from a page that this browser has loaded.

    Raises M_TOO_LARGE as well.
    """
    request.max_content_length = MAX_FORM_BYTES  # before Flask reads the form
    try:
        given = request.form.get(CSRF, "").encode()
    except RequestEntityTooLarge as error:
        raise errors.too_large("The form is too large") from error
    cookies = [request.cookies.get(_cookie(name)) for name in (SESSION, FORM)]
    known = [_mac(secret).encode() for secret in cookies if secret]
    if not any(hmac.compare_digest(given, it) for it in known):
        raise errors.forbidden(STALE)


def _secret() -> str:
    """Return what the field of a form is derived from: the session's cookie, or another one."""
    if "browser_session" in g:
        return request.cookies[_cookie(SESSION)]
    if "form_secret" not in g:
        g.form_secret = request.cookies.get(_cookie(FORM)) or secrets.token_urlsafe(24)

        @after_this_request
        def keep(response: Response) -> Response:
            _set_cookie(response, FORM, g.form_secret)
            return response

    return cast(str, g.form_secret)


def client() -> dict[str, str]:
    """Return the address and the program of the browser, as they are kept with its session."""
    return {"ip": request.remote_addr or "", "user_agent": request.headers.get("User-Agent", "")}


def _mac(secret: str) -> str:
    return hmac.new(secret.encode(), b"homebody form", hashlib.sha256).hexdigest()


def _set_cookie(response: Response, name: str, value: str) -> None:
    """Set a cookie until the browser is closed, or delete it by an empty value."""
    response.set_cookie(
        _cookie(name),
        value,
        max_age=None if value else 0,
        secure=_is_secure(),
        httponly=True,
        samesite="Lax",  # clients send their users here; no GET changes what Strict would protect
    )


def _cookie(name: str) -> str:
    """Return the name of a cookie. With the prefix, no other host of the domain can set it."""
    return f"__Host-{name}" if _is_secure() else name


def _is_secure() -> bool:
    """Return whether the browser uses https, also behind a proxy that does not say so."""
    if request.is_secure:
        return True
    public = urlsplit(homeserver.server.config.public_url)
    return public.scheme == "https" and request.host == public.netloc


def to_login(wanted: str = "") -> Response:
    """Send the browser to the login, and then to the page that is wanted, or back to this one."""
    if not wanted and request.method in READING:
        wanted = request.full_path.rstrip("?")
    return see_other(f"{LOGIN}?next={quote(wanted)}" if wanted else LOGIN)


def _login_page(error: MatrixError | None = None, name: str = "") -> Response:
    return pages.page(
        "browser_login.html",
        error.status if error else 200,
        name=name or _hint(),
        next=next_page(),
        registration=_registration(),
        sign_on=sign_on_links(next_page()),
        problem=message_of(error) if error else "",
    )


def _hint() -> str:
    """Return the user whom a client expects to log in, for the field of the form."""
    hints = parse_qs(urlsplit(next_page()).query).get("login_hint", [""])
    return hints[0].removeprefix("mxid:")[:255]


def _registration() -> str:
    """Return the page on which a new user of a client registers, if that is why we are here."""
    authorize, query = f"{PREFIX}oauth/authorize?", next_page()
    if homeserver.server.config.registration == "closed" or not query.startswith(authorize):
        return ""
    return query.replace(authorize, f"{PREFIX}oauth/register?", 1)


def _identifier(name: str) -> Json:
    """Return the identifier of a login, for a user name, a user ID or an e-mail address."""
    if "@" in name[1:]:
        return {"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": name}}
    return {"user": name}


def _seconds(error: MatrixError) -> int:
    return int(-(-error.fields["retry_after_ms"] // 1000))
