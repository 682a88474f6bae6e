"""HTML pages: the landing page, fallbacks for login and the stages of authentication, e-mail links.

Their style and script are inline, with a nonce; the policy allows nothing else. The log-in page
needs its script: the client that opened it receives the response of POST /login by a JavaScript
call.

The link in a mail that validates an e-mail address opens a page, too. Opening it confirms
nothing, as virus scanners open every link of a mail: a person has to press its button.

Spec: client-server-api#login-fallback, client-server-api#fallback,
client-server-api#post_matrixclientv3registeremailrequesttoken
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from flask import Blueprint, Response, render_template, request

from homebody.client_server import authentication, threepids
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.context import homeserver
from homebody.core.accounts import validation
from homebody.core.sessions import registration, uia
from homebody.errors import MatrixError

bp = Blueprint("pages", __name__)

STAGES = {registration.DUMMY, registration.TOKEN, registration.TERMS}
"""The stages that have a page: those that need no account."""
CONTACT_ROLES: Final = {"m.role.admin": "Administrator", "m.role.security": "Security"}
"""What the landing page calls the roles of contacts; others are shown as they are."""
FORM_ACTION: Final = "form-action 'self'"


@bp.get("/")
@unauthenticated
def landing() -> Response:
    """Return the landing page, for browsers."""
    return page("landing.html", config=homeserver.server.config, roles=CONTACT_ROLES)


@bp.get("/_matrix/static/client/login")
@bp.get("/_matrix/client/v3/login/fallback")
@bp.get("/matrix/client/api/v1/login/fallback")  # the 2014 API
@unauthenticated
def login_fallback() -> Response:
    """Return the page to log in with a browser.

    Spec: client-server-api#login-fallback
    """
    return page("login.html", server_name=homeserver.server.name)


@bp.get("/_matrix/client/v3/auth/<auth_type>/fallback/web")
@unauthenticated
def stage_fallback(auth_type: str) -> Response:
    """Return the page for a stage of user-interactive authentication.

    Spec: client-server-api#fallback
    """
    if auth_type not in STAGES:
        return _no_such_page()
    return page("stage.html", session=request.args.get("session", ""), **_shown(auth_type))


@bp.post("/_matrix/client/v3/auth/<auth_type>/fallback/web")
@unauthenticated
def complete_stage(auth_type: str) -> Response:
    """Complete the stage by the form of its page.

    Spec: client-server-api#fallback
    """
    if auth_type not in STAGES:
        return _no_such_page()
    authentication.rate_limits().check("rc_registration", address_key())
    request.max_content_length = 10_000  # before Flask reads the form
    session, token = request.form.get("session", ""), request.form.get("token", "").strip()
    auth = {"token": token} if auth_type == registration.TOKEN else {}
    try:
        uia.complete(homeserver.database, session, auth_type, auth)
    except MatrixError as error:
        values = {"session": session, "problem": f"{error.message}.", **_shown(auth_type)}
        return page("stage.html", error.status, **values)
    return page("stage_done.html")


@bp.get(threepids.PAGE)
@unauthenticated
def show_email() -> Response:
    """Return the page that asks to confirm an e-mail address."""
    sid, token = request.args.get("sid", ""), request.args.get("token", "")
    try:
        with homeserver.database.read() as tx:
            session = validation.open_link(tx, sid, token)
    except MatrixError as error:
        return _problem(error)
    return page("email.html", address=session.address, sid=sid, token=token)


@bp.post(threepids.PAGE)
@unauthenticated
def confirm_email() -> Response:
    """Confirm the e-mail address by the form of its page."""
    authentication.rate_limits().check("rc_registration", address_key())
    request.max_content_length = 10_000  # before Flask reads the form
    sid, token = request.form.get("sid", ""), request.form.get("token", "")
    try:
        with homeserver.database.write() as tx:
            session = validation.confirm(tx, sid, token)
    except MatrixError as error:
        return _problem(error)
    # Not by a redirect: "This option is ignored when submitting 3PID validation information through
    # a POST request". A link shows where it leads.
    return page("email.html", is_done=True, next_link=session.next_link)


def _problem(error: MatrixError) -> Response:
    return page("problem.html", error.status, problem=f"{error.message}.")


def _shown(auth_type: str) -> dict[str, Any]:
    """Return the template values for the page of a stage."""
    documents = homeserver.server.config.terms if auth_type == registration.TERMS else ()
    return {"is_token": auth_type == registration.TOKEN, "documents": documents}


def _no_such_page() -> Response:
    return page("problem.html", 404, problem="There is no page for this stage.")


def page(template: str, status: int = 200, **values: object) -> Response:
    """Render a page, with headers that allow it only what it needs."""
    nonce = secrets.token_urlsafe(16)
    response = Response(render_template(template, nonce=nonce, **values), status)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}';"
        f" connect-src 'self'; {FORM_ACTION}; base-uri 'none'; frame-ancestors 'none'"
    )
    response.headers["Cache-Control"] = "no-store"  # a nonce is valid for one response
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def with_form_that_leaves(response: Response) -> Response:
    """Allow the form of a page to lead to another site, by redirects.

    Browsers compare all of them with the policy, also those by which a client's own page redirects.
    """
    policy = response.headers["Content-Security-Policy"]
    response.headers["Content-Security-Policy"] = policy.replace(f" {FORM_ACTION};", "")
    return response
