"""Pages for people: what is here, and how to log in where a client knows no way itself.

They are plain HTML, with their own few lines of style and script, which a nonce lets through; the
policy allows nothing else. In the log-in page the script is needed: the client that opened the page
wants the answer of POST /login handed over by a JavaScript call.

Spec: client-server-api#login-fallback, client-server-api#fallback
"""

from __future__ import annotations

import secrets
from typing import Any

from flask import Blueprint, Response, render_template, request

from homebody import context
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.core.sessions import registration, uia
from homebody.errors import MatrixError

bp = Blueprint("pages", __name__)

STAGES = {registration.DUMMY, registration.TOKEN, registration.TERMS}
"""What can be proved on a page: the stages that need no account."""


@bp.get("/")
@unauthenticated
def landing() -> Response:
    """What this is, for whoever opens the server's address in a browser."""
    return page("landing.html", config=context.server().config)


@bp.get("/_matrix/static/client/login")
@bp.get("/_matrix/client/v3/login/fallback")
@bp.get("/matrix/client/api/v1/login/fallback")  # as documents of 2014 have it
@unauthenticated
def login_fallback() -> Response:
    """Log in with a browser.

    Spec: client-server-api#login-fallback
    """
    return page("login.html", server_name=context.server().name)


@bp.get("/_matrix/client/v3/auth/<auth_type>/fallback/web")
@unauthenticated
def stage_fallback(auth_type: str) -> Response:
    """Complete a stage of user-interactive authentication with a browser.

    Spec: client-server-api#fallback
    """
    if auth_type not in STAGES:
        return _no_such_page()
    return page("stage.html", session=request.args.get("session", ""), **_shown(auth_type))


@bp.post("/_matrix/client/v3/auth/<auth_type>/fallback/web")
@unauthenticated
def complete_stage(auth_type: str) -> Response:
    """The form of that page.

    Spec: client-server-api#fallback
    """
    if auth_type not in STAGES:
        return _no_such_page()
    context.rate_limits().check("rc_registration", address_key())
    request.max_content_length = 10_000  # before Flask reads the form
    session, token = request.form.get("session", ""), request.form.get("token", "").strip()
    auth = {"token": token} if auth_type == registration.TOKEN else {}
    try:
        uia.complete(context.db(), session, auth_type, auth)
    except MatrixError as error:
        values = {"session": session, "problem": f"{error.message}.", **_shown(auth_type)}
        return page("stage.html", error.status, **values)
    return page("stage_done.html")


def _shown(auth_type: str) -> dict[str, Any]:
    """What the page of a stage asks for, or shows."""
    documents = context.server().config.terms if auth_type == registration.TERMS else ()
    return {"is_token": auth_type == registration.TOKEN, "documents": documents}


def _no_such_page() -> Response:
    return page("problem.html", 404, problem="There is no page for this way to log in.")


def page(template: str, status: int = 200, **values: object) -> Response:
    """A page, with the headers that let it do what it must and nothing else."""
    nonce = secrets.token_urlsafe(16)
    answer = Response(render_template(template, nonce=nonce, **values), status)
    answer.headers["Content-Security-Policy"] = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    answer.headers["Cache-Control"] = "no-store"  # a nonce is good for one answer
    answer.headers["Referrer-Policy"] = "no-referrer"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer
