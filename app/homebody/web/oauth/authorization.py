"""The page on which a user lets a client in, and sends it an authorization code.

Until it is known that the redirect URI is one of the client's, a refusal is a page; from then on
everything goes there.

Spec: client-server-api#authorisation-code-flow
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.context import homeserver
from homebody.core.accounts import oauth_sessions
from homebody.core.oauth import authorization, client_metadata, codes, metadata
from homebody.core.oauth.authorization import AuthorizationRequest, Target
from homebody.core.oauth.refusals import OAuthError
from homebody.core.sessions import browser_sessions as core_sessions
from homebody.core.sessions import devices
from homebody.web import browser_sessions, oauth, pages
from homebody.web.browser_sessions import account, for_everyone, see_other, session, visitor

bp = Blueprint("oauth_authorization", __name__)

AUTHORIZE = f"{oauth.PREFIX}/authorize"
REGISTER = f"{oauth.PREFIX}/register"


@bp.get("/authorize")
@for_everyone
def authorize() -> Response:
    """Return the page that asks the user, if need be after the login or a registration.

    A client that proves who it is by its redirect URI, and that the user has let in before, gets
    its code without another question.
    """
    target = find_target()
    try:
        wanted = authorization.request_of(target, parameters())
    except OAuthError as error:
        return see_other(target.refusal(error))
    if wanted.wants_account:
        return see_other(f"{REGISTER}?{urlencode(parameters(), doseq=True)}")
    if visitor() is None:
        return browser_sessions.to_login()
    me, client = account().user_id, target.client
    with homeserver.database.read() as tx:
        replaces = devices.exists(tx, me, wanted.scope.device_id)
        is_known = oauth_sessions.has_consented(tx, me, client.client_id)
    if is_known and not replaces and client_metadata.is_verified(target.redirect_uri):
        authentication.count_change(None)  # a GET, but it writes
        return pages.page("oauth/continue.html", client=client, url=_let_in(target, wanted))
    asking = pages.page(
        "oauth/consent.html",
        client=client,
        device_id=wanted.scope.device_id,
        replaces=replaces,
        host=urlsplit(client.uri).hostname,
        leads_to=_leads_to(target.redirect_uri),
    )
    return pages.with_form_that_leaves(asking)


@bp.post("/authorize")
@for_everyone
def decide() -> Response:
    """Send the client its code, or that the user has refused it."""
    target = find_target()
    try:
        wanted = authorization.request_of(target, parameters())
    except OAuthError as error:
        return see_other(target.refusal(error))
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
        code = codes.issue(tx, session(), target, wanted)
    return target.url(code=code)


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
