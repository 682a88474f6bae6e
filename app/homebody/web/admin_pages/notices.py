"""Notices: messages of the server to a user, or to all users."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core import audit, tasks
from homebody.core.administration import notices_to_all
from homebody.core.rooms import server_notices
from homebody.errors import MatrixError
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.layout import Action, Field
from homebody.web.browser_sessions import message_of, signed_in

bp = Blueprint("admin_notice_pages", __name__)

BACK: Final = "notices"
ACTIONS: Final = ("notice.send", "notice.send_to_all")
"""In the audit log."""


@bp.get("/notices")
@signed_in(admins_only=True)
def show_notices() -> Response:
    """Return the page by which notices are sent."""
    return _page()


@bp.post("/notices")
@signed_in(admins_only=True)
def send_notice() -> Response:
    """Send a notice to a user."""
    return layout.perform(_SEND, BACK, again=_page)


@bp.get("/notices/all")
@signed_in(admins_only=True)
def ask_about_all() -> Response:
    """Return the page by which a notice is sent to all users."""
    return layout.ask(_SEND_TO_ALL, _all_users(), BACK)


@bp.post("/notices/all")
@signed_in(admins_only=True)
def send_to_all() -> Response:
    """Order that a notice is sent to all users."""
    again = layout.again(_SEND_TO_ALL, _all_users(), BACK)
    return layout.perform(_SEND_TO_ALL, BACK, again=again)


def _page(error: MatrixError | None = None) -> Response:
    with homeserver.database.read() as tx:
        sent = tasks.select_tasks(tx, actions=[notices_to_all.ACTION])[::-1]
        entries = audit.latest(tx, 20, actions=ACTIONS)
    return layout.page(
        "notices.html",
        200 if error is None else error.status,
        sender=homeserver.server.config.server_notices_user,
        tasks=sent,
        entries=entries,
        values={} if error is None else request.form,
        problem="" if error is None else message_of(error),
        done=layout.done({"one": _SEND, "all": _SEND_TO_ALL}),
    )


def _all_users() -> str:
    with homeserver.database.read() as tx:
        count = len(notices_to_all.recipients(tx))
    return f"{count} user{'s' * (count != 1)}"


def _text() -> str:
    """Return what the users are to read. Raises M_INVALID_PARAM."""
    text = layout.text_of("text")
    if not text:
        raise errors.invalid_param("Enter what the users are to read")
    return text


def send_to(user_id: str) -> None:
    """Send the text of the form to a user."""
    notice = server_notices.text_notice(_text())
    with homeserver.database.write() as tx:
        server_notices.send(tx, layout.actor(), user_id, notice)


def _send() -> None:
    name = layout.text_of("user")
    if not name:
        raise errors.invalid_param("Enter the name of a user")
    send_to(name if name.startswith("@") else f"@{name}:{homeserver.server.name}")


def _send_to_all() -> None:
    text = _text()
    with homeserver.database.write() as tx:
        notices_to_all.order(tx, layout.actor(), text)


_SEND: Final = Action("Send", "The notice is sent.", "", _send, is_asking=False)
_SEND_TO_ALL: Final = Action(
    "Send to all",
    "The notice is being sent to all users.",
    "All users of this server get the notice, except guests and those of bridges. It can't be"
    " taken back.",
    _send_to_all,
    fields=(Field("text", "Text", "lines", is_required=True),),
)
