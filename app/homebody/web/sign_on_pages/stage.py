"""The stage m.login.sso of user-interactive authentication: a user without a password confirms.

Somebody with a stolen access token could begin a request that needs confirmation, and lead the user
to this page; the provider may not ask the user anything. So the user is asked here, after the
login, with what the request would do.

Spec: client-server-api#sso-during-user-interactive-authentication
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core.accounts import external_ids
from homebody.core.sessions import uia
from homebody.core.sign_on import attempts, logins
from homebody.core.sign_on.attempts import Attempt
from homebody.core.sign_on.providers import Identity
from homebody.web import pages
from homebody.web.browser_sessions import for_everyone
from homebody.web.sign_on_pages import PREFIX, journey

bp = Blueprint("sign_on_stage", __name__)
bp_v3 = Blueprint("sign_on_stage_v3", __name__, url_prefix="/_matrix/client/v3")

_ACTIONS: Final = (
    ("/delete_devices", "log out some of your devices"),
    ("/devices/", "log out one of your devices"),
    ("/keys/device_signing/upload", "replace the keys by which others recognize you"),
    ("/account/password", "set a new password"),
    ("/account/deactivate", "close your account"),
    ("/account/3pid/add", "add an address to your account, by which it can be recovered"),
    ("/login/get_token", "log in another device"),
)
"""What a request does, by what is in its path."""


@bp_v3.get("/auth/m.login.sso/fallback/web")
@for_everyone
def show() -> Response:
    """Return the page that explains what is to be confirmed, with a link to each provider.

    Spec: client-server-api#fallback
    """
    session_id = request.args.get("session", "")
    with homeserver.database.read() as tx:
        endpoint, user_id = uia.asked_by(tx, uia.hash_of(session_id))
        linked = {it for it, _ in external_ids.of_user(tx, user_id or "")}
    links = [
        (it.name, f"{PREFIX}/confirm/{it.id}?session={quote(session_id, safe='')}")
        for it in homeserver.login_providers.all
        if it.id in linked
    ]
    return pages.page("sign_on_stage.html", action=_action(endpoint), links=links)


@bp.get("/confirm/<provider_id>")
@for_everyone
def start(provider_id: str) -> Response:
    """Lead the browser to a provider, for a request that needs confirmation."""
    session_hash = uia.hash_of(request.args.get("session", ""))
    with homeserver.database.read() as tx:
        uia.asked_by(tx, session_hash)
    return journey.leave(provider_id, "confirm", session_hash.hex())


def ask(state: str, attempt: Attempt, identity: Identity) -> Response:
    """Return the page that asks whether to go ahead, after the login."""
    with homeserver.database.read() as tx:
        endpoint, user_id = uia.asked_by(tx, bytes.fromhex(attempt.target))
        account = logins.account_of(tx, identity)
    if account is None or account.user_id != user_id:
        raise errors.forbidden("This login belongs to another account")
    return pages.page(
        "sign_on_confirm.html", state=state, action=_action(endpoint), user_id=user_id
    )


@bp.post("/confirm")
@for_everyone
def confirm() -> Response:
    """Complete the stage; the client that waits for it repeats its request."""
    state, attempt, identity = journey.vouched()
    if attempt.purpose != "confirm":
        raise errors.forbidden(attempts.OVER)
    with homeserver.database.write() as tx:
        account = logins.account_of(tx, identity)
        if account is None:
            raise errors.forbidden(logins.NOT_OPEN)
        uia.complete_by_sign_on(tx, bytes.fromhex(attempt.target), account.user_id)
        attempts.end(tx, state)
    return pages.page("stage_done.html")


def _action(endpoint: str) -> str:
    """Return what a request does, as the end of a sentence."""
    found = (action for part, action in _ACTIONS if part in endpoint)
    return next(found, "change something in your account")
