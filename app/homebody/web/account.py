"""The pages on which users manage their own account.

What an intruder at an unlocked computer must not do needs the password again: setting another one,
adding an e-mail address (which allows resetting the password), closing the account.
"""

from __future__ import annotations

import secrets
from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import threepids as client_threepids
from homebody.client_server.file_responses import disposition
from homebody.context import homeserver
from homebody.core import tasks
from homebody.core.accounts import accounts, external_ids, oauth_sessions, threepids, validation
from homebody.core.administration import export
from homebody.core.media import files
from homebody.core.push import pushers
from homebody.core.sessions import browser_sessions as sessions
from homebody.core.sessions import deactivation, devices, login
from homebody.core.tasks import Task
from homebody.errors import MatrixError
from homebody.spec import identifiers
from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import account, see_other, session, signed_in

bp = Blueprint("account_pages", __name__)

ACCOUNT: Final = f"{browser_sessions.PREFIX}account/"
PASSWORD: Final = f"{ACCOUNT}password"
EMAIL: Final = f"{ACCOUNT}email"
EXPORT: Final = f"{ACCOUNT}export"
DEACTIVATE: Final = f"{ACCOUNT}deactivate"
DONE: Final = {
    "password": "Your password is changed.",
    "email": "The address is added to your account.",
    "email-removed": "The address is removed from your account.",
    "device": "The session is ended.",
    "others": "All other sessions are ended.",
    "consent": "You will be asked before this app is let in again.",
    "linked": "The login is linked to your account.",
    "unlinked": "The login is not linked to your account any more.",
}
"""What the page says was done, by the parameter with which the browser was sent to it."""
_FIELD_OF: Final = {
    "M_FORBIDDEN": "current",
    "M_LIMIT_EXCEEDED": "current",
    "M_WEAK_PASSWORD": "password",
    "M_INVALID_PARAM": "password",
}
"""The field that an error is about, by its errcode."""


@bp.get(ACCOUNT)
@signed_in()
def show_account() -> Response:
    """Return the page of the user's account."""
    me = account().user_id
    with homeserver.database.read() as tx:
        linked = {provider for provider, _ in external_ids.of_user(tx, me)}
        values = {
            "devices": devices.described_for_admin(tx, me, homeserver.last_seen),
            "consents": oauth_sessions.consents_of(tx, me),
            "browsers": sessions.all_of(tx, me),
            "addresses": threepids.of_user(tx, me),
            "linked": linked,
        }
    return pages.page(
        "account.html",
        own=session(),
        done=DONE.get(request.args.get("done", "")),
        config=homeserver.server.config,
        providers=[
            it
            for it in homeserver.login_providers.all
            if it.allow_existing_users or it.id in linked
        ],
        values=values,
    )


@bp.post(f"{ACCOUNT}devices/end")
@signed_in(suspended=True)
def end_device() -> Response:
    """Log out one device."""
    device_id = request.form.get("device_id", "")
    devices.remove_most(homeserver.database, account().user_id, [device_id])
    with homeserver.database.write() as tx:
        devices.remove(tx, account().user_id, [device_id])
    return _done("device")


@bp.post(f"{ACCOUNT}consents/withdraw")
@signed_in(suspended=True)
def withdraw_consent() -> Response:
    """Have the user asked again before a client is let in. Its sessions go on."""
    with homeserver.database.write() as tx:
        oauth_sessions.forget_consent(tx, account().user_id, request.form.get("client_id", ""))
    return _done("consent")


@bp.post(f"{ACCOUNT}browsers/end")
@signed_in(suspended=True)
def end_browser() -> Response:
    """Log out another browser."""
    with homeserver.database.write() as tx:
        for found in sessions.all_of(tx, account().user_id):
            is_other = found.token_hash != session().token_hash
            if is_other and found.id == request.form.get("session"):
                sessions.end(tx, found)
    return _done("device")


@bp.post(f"{ACCOUNT}others/end")
@signed_in(suspended=True)
def end_others() -> Response:
    """Log out all devices, and all other browsers."""
    me = account().user_id
    devices.remove_most(homeserver.database, me)
    with homeserver.database.write() as tx:
        devices.remove_all(tx, me, but_browser=session())
    return _done("others")


@bp.get(PASSWORD)
@signed_in()
def show_password() -> Response:
    """Return the page on which users change their password."""
    return pages.page("account_password.html", config=homeserver.server.config, problems={})


@bp.post(PASSWORD)
@signed_in(suspended=True)
def change_password() -> Response:
    """Change the password, and end the sessions of other browsers; those of devices if wanted."""
    me, new, server = account().user_id, request.form.get("password", ""), homeserver.server
    problems = {}
    try:
        accounts.check_new_password(server.config, new)
        if new != request.form.get("again", ""):
            problems["again"] = "The two passwords are not the same."
        else:
            browser_sessions.prove(request.form.get("current", ""))
    except MatrixError as error:
        problems[_field_of(error)] = browser_sessions.message_of(error)
    if problems:
        return pages.page("account_password.html", 400, config=server.config, problems=problems)
    password_hash = accounts.hash_password(server, new)
    ends_devices = "devices" in request.form
    if ends_devices:
        devices.remove_most(homeserver.database, me)
    with homeserver.database.write() as tx:
        login.change_password(tx, me, password_hash)
        if ends_devices:
            devices.remove_all(tx, me)
        token = browser_sessions.start(tx, me)
    return browser_sessions.with_session(_done("password"), token)


@bp.get(EMAIL)
@signed_in()
def show_email() -> Response:
    """Return the page on which users add an e-mail address."""
    client_threepids.must_send_mail()
    return pages.page("account_email.html", problems={}, address="")


@bp.post(EMAIL)
@signed_in(suspended=True)
def send_mail() -> Response:
    """Send the mail that validates an address, and return the page on which it is added then."""
    client_threepids.must_send_mail()
    address, secret = request.form.get("address", ""), secrets.token_urlsafe(24)
    link = f"{homeserver.server.config.public_url}{ACCOUNT}"
    try:
        wanted = client_threepids.RequestToken(secret, address, 1, next_link=link)
        sid = client_threepids.send_mail("add", wanted)["sid"]
    except MatrixError as error:
        problems = {"address": browser_sessions.message_of(error)}
        return pages.page("account_email.html", error.status, problems=problems, address=address)
    return pages.page("account_email_sent.html", sid=sid, secret=secret, address=address)


@bp.post(f"{EMAIL}/add")
@signed_in(suspended=True)
def add_email() -> Response:
    """Add an address whose link was opened, after the password was proved."""
    client_threepids.must_send_mail()
    sid, secret = request.form.get("sid", ""), request.form.get("client_secret", "")
    try:
        with homeserver.database.read() as tx:
            proof = validation.check(tx, "add", sid, secret)
        browser_sessions.prove(request.form.get("current", ""))
        with homeserver.database.write() as tx:
            threepids.add(tx, account().user_id, proof)
    except MatrixError as error:
        return pages.page(
            "account_email_sent.html",
            error.status,
            sid=sid,
            secret=secret,
            address=request.form.get("address", ""),
            problem=browser_sessions.message_of(error),
        )
    return _done("email")


@bp.post(f"{EMAIL}/remove")
@signed_in()
def remove_email() -> Response:
    """Remove an address from the account."""
    address = request.form.get("address", "")
    with homeserver.database.write() as tx:
        threepids.remove(tx, account().user_id, threepids.EMAIL, address)
        pushers.remove_mailbox(tx, account().user_id, address)
    return _done("email-removed")


@bp.get(EXPORT)
@signed_in()
def show_export() -> Response:
    """Return the page that says what an export contains, and how far the last one is."""
    return _export_page()


@bp.post(EXPORT)
@signed_in(suspended=True)
def order_export() -> Response:
    """Have the server prepare an archive of the user's data."""
    try:
        with homeserver.database.write() as tx:
            export.order(tx, account().user_id)
    except MatrixError as error:
        if "retry_after_ms" not in error.fields:
            raise
        minutes = -(-error.fields["retry_after_ms"] // 60_000)
        problem = f"You have just exported your data. Try again in {minutes} minutes."
        return _export_page(problem, error.status)
    return see_other(EXPORT)


@bp.get(f"{EXPORT}/archive")
@signed_in()
def download_export() -> Response:
    """Return the archive that was prepared last."""
    found = _last_export()
    if found is None or found.status != tasks.COMPLETE:
        raise errors.not_found("There is no archive: have one prepared first")
    path = export.path_of(homeserver.database, found)
    if not path.exists():
        raise errors.not_found("The archive was deleted after some days: have a new one prepared")
    size = path.stat().st_size
    response = Response(files.pieces(path, 0, size), mimetype="application/zip")
    response.headers["Content-Length"] = str(size)
    name = identifiers.localpart(account().user_id)
    response.headers["Content-Disposition"] = disposition(f"{name}.zip", is_inline=False)
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@bp.get(DEACTIVATE)
@signed_in()
def show_deactivation() -> Response:
    """Return the page that says what closing the account means."""
    return pages.page("account_deactivate.html", problems={})


@bp.post(DEACTIVATE)
@signed_in(suspended=True)
def deactivate() -> Response:
    """Close the account, after the password was proved."""
    me, problems = account().user_id, {}
    if "sure" not in request.form:
        problems["sure"] = "Say that you want this."
    try:
        browser_sessions.prove(request.form.get("current", ""))
    except MatrixError as error:
        problems["current"] = browser_sessions.message_of(error)
    if problems:
        return pages.page("account_deactivate.html", 400, problems=problems)
    devices.remove_most(homeserver.database, me)
    deactivation.deactivate(homeserver.database, me, erase="erase" in request.form)
    response = pages.page("account_deactivated.html", user_id=me, me=None)
    return browser_sessions.forget(response)


def _last_export() -> Task | None:
    with homeserver.database.read() as tx:
        return export.latest(tx, account().user_id)


def _export_page(problem: str = "", status: int = 200) -> Response:
    last = _last_export()
    path = export.path_of(homeserver.database, last) if last is not None else None
    return pages.page(
        "account_export.html",
        status,
        problem=problem,
        last=last,
        bytes=path.stat().st_size if path is not None and path.exists() else None,
    )


def _field_of(error: MatrixError) -> str:
    """Return the field that an error is about. Raises the error if it is about none."""
    if error.errcode not in _FIELD_OF:
        raise error
    return _FIELD_OF[error.errcode]


def _done(what: str) -> Response:
    return see_other(f"{ACCOUNT}?done={what}")
