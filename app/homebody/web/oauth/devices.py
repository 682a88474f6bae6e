"""The page on which a user lets in a device that shows a code.

Spec: client-server-api#device-authorisation-flow
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, request

from homebody.client_server import authentication
from homebody.client_server.authentication import address_key
from homebody.context import homeserver
from homebody.core.oauth import device_codes
from homebody.core.sessions import devices
from homebody.web import pages
from homebody.web.browser_sessions import account, session, signed_in

bp = Blueprint("oauth_devices", __name__)

UNKNOWN: Final = "No device shows this code, or it has expired. Compare it with what you see there."


@bp.get("/device")
@signed_in()
def show_device() -> Response:
    """Return the page that asks for the code, or for a code whether the device is let in."""
    code = request.args.get("user_code", "")
    if not code:
        return _code_page()
    authentication.rate_limits().check("rc_strangers", address_key())
    with homeserver.database.read() as tx:
        pending = device_codes.find(tx, code)
        replaces = pending and devices.exists(tx, account().user_id, pending.device_id)
    if pending is None:
        return _code_page(code, UNKNOWN)
    host = urlsplit(pending.client.uri).hostname
    return pages.page("oauth/device.html", pending=pending, replaces=replaces, host=host)


@bp.post("/device")
@signed_in(suspended=True)
def decide_about_device() -> Response:
    """Let the device in, or turn it away."""
    authentication.rate_limits().check("rc_strangers", address_key())
    code, is_allowed = request.form.get("user_code", ""), request.form.get("decision") == "allow"
    with homeserver.database.write() as tx:
        decided = device_codes.decide(tx, session(), code, is_allowed=is_allowed)
    if decided is None:
        return _code_page("", UNKNOWN)
    return pages.page("oauth/device_done.html", is_allowed=is_allowed, client=decided.client)


def _code_page(code: str = "", problem: str = "") -> Response:
    problems = {"user_code": problem} if problem else {}
    status = 400 if problem else 200
    return pages.page("oauth/code.html", status, code=code, problems=problems)
