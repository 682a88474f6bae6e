"""The page on which a user lets a client in, and sends it an authorization code.

Until it is known that the redirect URI is one of the client's, a refusal is a page; from then on
everything goes there: at once, unless somebody may have registered the client to have a link to
this server that leads to a site of theirs.

Spec: client-server-api#authorisation-code-flow
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.context import homeserver
from homebody.core.oauth import authorization, client_metadata, clients, codes, metadata
from homebody.core.oauth.authorization import AuthorizationRequest, Target
from homebody.core.oauth.refusals import OAuthError
from homebody.core.sessions import browser_sessions as core_sessions
from homebody.web import browser_sessions, oauth, pages
from homebody.web.browser_sessions import account, for_everyone, see_other, session, visitor

bp = Blueprint("oauth_authorization", __name__)

AUTHORIZE = f"{oauth.PREFIX}/authorize"
REGISTER = f"{oauth.PREFIX}/register"
NO_SESSION = OAuthError("login_required", "The user is not logged in")


@bp.get("/authorize")
@for_everyone
def authorize() -> Response:
    """Return the page that asks the user, if need be after the login or a registration.

    A client that was let in before may get its code without another question. One that wants no
    page at all (`prompt=none`) gets it so, or an error: "login_required", "consent_required" and
    "interaction_required" are those of OpenID Connect Core 1.0, section 3.1.2.6.
    """
    target = find_target()
    try:
        wanted = authorization.request_of(target, parameters())
    except OAuthError as error:
        return _refuse(target, error)
    if "create" in wanted.prompts:
        return see_other(f"{REGISTER}?{urlencode(parameters(), doseq=True)}")
    if visitor() is None:
        return _refuse(target, NO_SESSION) if wanted.is_silent else browser_sessions.to_login()
    answer = _let_in_again(target, wanted)
    if isinstance(answer, OAuthError):
        return _refuse(target, answer) if wanted.is_silent else _ask(target, wanted, answer)
    if wanted.is_silent:
        return see_other(answer)
    # Not by a redirect: the policy of the page with the login allows its form none to other sites
    return pages.page("oauth/continue.html", client=target.client, url=answer)


@bp.post("/authorize")
@for_everyone
def decide() -> Response:
    """Send the client its code, or that the user has refused it."""
    target = find_target()
    try:
        wanted = authorization.request_of(target, parameters())
    except OAuthError as error:
        return _refuse(target, error)
    decision = request.form.get("decision")
    if visitor() is None:
        return browser_sessions.to_login(request.full_path)
    if decision == "other":
        return _other_user()
    if decision != "allow":
        return see_other(target.refusal(OAuthError("access_denied", "The user has refused")))
    return see_other(_let_in(target, wanted))


def parameters() -> authorization.Parameters:
    """Return the parameters of the authorization request."""
    return request.args.to_dict(flat=False)


def find_target() -> Target:
    """Return where the response goes.

    Raises M_INVALID_PARAM, so that a page is shown, if that is not sure, and M_UNRECOGNIZED.
    """
    metadata.check_on(homeserver.server.config)
    try:
        with homeserver.database.read() as tx:
            return authorization.target_of(tx, parameters())
    except OAuthError as error:
        message = f"The app has made a mistake, and you can't be sent back to it: {error}"
        raise errors.invalid_param(message) from error


def _let_in(target: Target, wanted: AuthorizationRequest) -> str:
    with homeserver.database.write() as tx:
        return target.url(code=codes.issue(tx, session(), target, wanted))


def _let_in_again(target: Target, wanted: AuthorizationRequest) -> str | OAuthError:
    """Return the redirect URI with a code, or why the user must be asked first."""
    me = account().user_id
    with homeserver.database.read() as tx:
        question = authorization.question(tx, me, target, wanted)
    if question is not None:
        return question
    authentication.count_change(None)  # a GET, but it writes
    with homeserver.database.write() as tx:
        question = authorization.question(tx, me, target, wanted)  # the consent may be withdrawn
        return question or target.url(code=codes.issue(tx, session(), target, wanted))


def _ask(target: Target, wanted: AuthorizationRequest, why: OAuthError) -> Response:
    asking = pages.page(
        "oauth/consent.html",
        client=target.client,
        device_id=wanted.scope.device_id,
        replaces=why.code == "interaction_required",
        host=urlsplit(target.client.uri).hostname,
        leads_to=_leads_to(target.redirect_uri),
    )
    return pages.with_form_that_leaves(asking)


def _refuse(target: Target, error: OAuthError) -> Response:
    """Send an error to the client: at once, or by a link that says where it leads.

    Anybody can register a client, and make a link to this page that fails. Only if users are logged
    in with the client does it lead to another site by itself. See RFC 9700, section 4.11.2.
    """
    client, url = target.client, target.refusal(error)
    with homeserver.database.read() as tx:
        is_used = clients.is_used(tx, client.client_id)
    if is_used or not client_metadata.is_verified(url):
        return see_other(url)
    values = {"client": client, "url": url, "host": _leads_to(url), "problem": error.description}
    return pages.page("oauth/refused.html", 400, **values)


def _other_user() -> Response:
    """Log this browser out, and begin again with the login."""
    with homeserver.database.write() as tx:
        core_sessions.end(tx, session())
    return browser_sessions.forget(browser_sessions.to_login(request.full_path))


def _leads_to(redirect_uri: str) -> str:
    """Return what the page says about where the user goes next."""
    host = urlsplit(redirect_uri).hostname or ""
    if client_metadata.is_verified(redirect_uri):
        return host
    return "a program on this computer" if host else "an app on this device"
