"""The pages of the account to which clients send their users.

Clients of the OAuth 2.0 API can't change an account by the Client-Server API; each of the actions
that they may ask for has a page here or in web/account.py. Links to them can come from anybody, so
a page says what it does, and does nothing before its button is pressed.

Spec: client-server-api#oauth-20-account-management, client-server-api#oauth-authentication
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from homebody.client_server import authentication
from homebody.context import homeserver
from homebody.core.accounts import accounts, oauth_sessions
from homebody.core.oauth import metadata
from homebody.core.profiles import profiles
from homebody.core.sessions import devices
from homebody.errors import MatrixError
from homebody.web import account as account_pages
from homebody.web import browser_sessions, pages
from homebody.web.account import ACCOUNT
from homebody.web.browser_sessions import account, for_everyone, see_other, signed_in

bp = Blueprint("oauth_account", __name__)

REPLACEABLE_MS: Final = 10 * 60_000
"""How long a client may replace the cross-signing keys after its user has allowed it."""
PAGES: Final = {
    "profile": f"{metadata.ACCOUNT}/profile",
    "devices_list": f"{ACCOUNT}#devices",
    "device_view": f"{metadata.ACCOUNT}/device",
    "device_delete": f"{metadata.ACCOUNT}/device",
    "account_deactivate": account_pages.DEACTIVATE,
    "cross_signing_reset": f"{metadata.ACCOUNT}/cross_signing_reset",
}
"""The page of each action, by its name in core/oauth/metadata.py."""


@bp.get("/account")
@for_everyone
def show_action() -> Response:
    """Send the browser to the page of an action; of an unknown one, to that of the account."""
    action = metadata.ACTIONS.get(request.args.get("action", ""), "")
    page, device_id = PAGES.get(action, ACCOUNT), request.args.get("device_id")
    if action.startswith("device_"):
        if not device_id:
            return see_other(PAGES["devices_list"])
        page = f"{page}?{urlencode({'device_id': device_id})}"
    return see_other(page)


@bp.get("/account/device")
@signed_in()
def show_own_device() -> Response:
    """Return the page of one device, with a button that logs it out."""
    device_id = request.args.get("device_id", "")
    with homeserver.database.read() as tx:
        device = devices.get(tx, account().user_id, device_id, homeserver.last_seen)
        client = oauth_sessions.client_of(tx, account().user_id, device_id)
    return pages.page("oauth/own_device.html", device=device, client=client)


@bp.get("/account/profile")
@signed_in()
def show_profile() -> Response:
    """Return the page on which users change their display name."""
    with homeserver.database.read() as tx:
        profile = profiles.of(tx, account().user_id)
    return _profile_page(str(profile.get("displayname") or ""))


@bp.post("/account/profile")
@signed_in()
def change_profile() -> Response:
    """Change the display name, in all rooms."""
    me, name = account().user_id, request.form.get("displayname", "").strip()
    authentication.rate_limits().check("rc_message", me)  # it sends events into rooms
    try:
        with homeserver.database.write() as tx:
            if name:
                profiles.put(tx, me, "displayname", name)
            else:
                profiles.remove(tx, me, "displayname")
    except MatrixError as error:
        return _profile_page(name, browser_sessions.message_of(error))
    if not account().is_shadow_banned:
        profiles.update_rooms(homeserver.database, me, "displayname")
    return see_other(f"{PAGES['profile']}?done=yes")


@bp.get("/account/cross_signing_reset")
@signed_in()
def show_cross_signing_reset() -> Response:
    """Return the page that says what it means to reset the cross-signing keys."""
    return pages.page("oauth/cross_signing_reset.html", problems={})


@bp.post("/account/cross_signing_reset")
@signed_in(suspended=True)
def allow_cross_signing_reset() -> Response:
    """Let the user's clients replace the cross-signing keys for some minutes."""
    me = account()
    try:
        browser_sessions.prove(request.form.get("current", ""))
    except MatrixError as error:
        problems = {"current": browser_sessions.message_of(error)}
        return pages.page("oauth/cross_signing_reset.html", error.status, problems=problems)
    with homeserver.database.write() as tx:
        accounts.allow_key_replacement(tx, me.user_id, tx.now_ms + REPLACEABLE_MS)
    return pages.page("oauth/cross_signing_allowed.html", minutes=REPLACEABLE_MS // 60_000)


def _profile_page(name: str, problem: str = "") -> Response:
    problems = {"displayname": problem} if problem else {}
    return pages.page(
        "oauth/profile.html",
        400 if problem else 200,
        name=name,
        problems=problems,
        done="done" in request.args,
    )
