"""Links by which a person registers, and registration tokens: creating and revoking them.

Registration tokens are not in the paths of their pages, as those are logged: an id that is derived
from the token takes its place.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from flask import Blueprint, Response, request
from markupsafe import Markup

from homebody import errors
from homebody.context import homeserver
from homebody.core.sessions import invitations, registration_tokens
from homebody.errors import MatrixError
from homebody.storage.database import Reader, Tx
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.layout import Action
from homebody.web.browser_sessions import message_of, signed_in

bp = Blueprint("admin_invitation_pages", __name__)

DAY_MS: Final = 86_400_000
DEFAULT_DAYS: Final = 7
MAX_DAYS: Final = 365
MAX_USES: Final = 1_000_000
BACK: Final = "invitations"


@bp.get("/invitations")
@signed_in(admins_only=True)
def list_invitations() -> Response:
    """Return the page with all invitations and registration tokens."""
    return _page()


def _page(error: MatrixError | None = None) -> Response:
    with homeserver.database.read() as tx:
        links = [invitations.described(it) for it in reversed(invitations.all_of(tx))]
        tokens = registration_tokens.every(tx)
        now_ms = tx.now_ms
    return layout.page(
        "invitations.html",
        200 if error is None else error.status,
        values={} if error is None else request.form,
        is_about_token=request.path.endswith("/tokens/new"),
        problem="" if error is None else message_of(error),
        links=links,
        tokens=[{**it, "id": _id_of(it["token"])} for it in tokens],
        now_ms=now_ms,
        config=homeserver.server.config,
        days=DEFAULT_DAYS,
        max_days=MAX_DAYS,
        done=layout.done({"link": _REVOKE_LINK, "token": _REVOKE_TOKEN, "new": _ADD_TOKEN}),
    )


@bp.post("/invitations/new")
@signed_in(admins_only=True)
def invite() -> Response:
    """Create a link by which a person registers, and show it."""
    return layout.perform(_INVITE, BACK, again=_page)


@bp.get("/invitations/<invitation_id>/revoke")
@signed_in(admins_only=True)
def ask_about_invitation(invitation_id: str) -> Response:
    """Return the page that asks before a link is revoked."""
    return layout.ask(_REVOKE_LINK, f"link {invitation_id}", BACK)


@bp.post("/invitations/<invitation_id>/revoke")
@signed_in(admins_only=True)
def revoke_invitation(invitation_id: str) -> Response:
    """Revoke a link."""
    return layout.perform(_REVOKE_LINK, BACK, invitation_id)


@bp.post("/tokens/new")
@signed_in(admins_only=True)
def add_token() -> Response:
    """Create a registration token."""
    return layout.perform(_ADD_TOKEN, BACK, again=_page)


@bp.get("/tokens/<token_id>/revoke")
@signed_in(admins_only=True)
def ask_about_token(token_id: str) -> Response:
    """Return the page that asks before a registration token is revoked."""
    with homeserver.database.read() as tx:
        token = _token(tx, token_id)
    return layout.ask(_REVOKE_TOKEN, f"registration token {token}", BACK)


@bp.post("/tokens/<token_id>/revoke")
@signed_in(admins_only=True)
def revoke_token(token_id: str) -> Response:
    """Delete a registration token."""
    return layout.perform(_REVOKE_TOKEN, BACK, token_id)


def show_link(title: str, link: str, back: str, *, days: int) -> Response:
    """Return the page that shows a link that lets a person in, and its QR code."""
    import segno  # noqa: PLC0415 - memory that a server without invitations saves

    code = Markup(segno.make(link).svg_inline(scale=4, light="#fff"))  # noqa: S704 - made of squares
    return layout.page("link.html", title=title, link=link, code=code, days=days, back=back)


def _invite() -> Response:
    days = layout.number_of("days", "Days", 1, MAX_DAYS)
    name = layout.text_of("name") or None
    with homeserver.database.write() as tx:
        link = invitations.invite(tx, layout.actor(), name, days * DAY_MS)
    return show_link("Invitation", link, BACK, days=days)


def _add_token() -> None:
    uses = layout.number_of("uses", "Accounts", 1, MAX_USES) if layout.text_of("uses") else None
    days = layout.number_of("days", "Days", 1, 3650) if layout.text_of("days") else None
    with homeserver.database.write() as tx:
        expires_ts = None if days is None else tx.now_ms + days * DAY_MS
        registration_tokens.add(tx, layout.actor(), uses_allowed=uses, expires_ts=expires_ts)


def _revoke_token(tx: Tx, actor: str, token_id: str) -> None:
    registration_tokens.remove(tx, actor, _token(tx, token_id))


def _token(tx: Reader, token_id: str) -> str:
    """Return the registration token with an id. Raises M_NOT_FOUND."""
    for known in registration_tokens.every(tx):
        if hmac.compare_digest(_id_of(known["token"]), token_id.encode()):
            return str(known["token"])
    raise errors.not_found("There is no such registration token")


def _id_of(token: str) -> bytes:
    return hashlib.sha256(f"registration token {token}".encode()).hexdigest()[:16].encode()


_INVITE: Final = Action("Create a link", "", "", _invite, is_asking=False)
_REVOKE_LINK: Final = Action(
    "Revoke",
    "The link is revoked.",
    "Nobody can use the link any more. An account for which it was used stays.",
    layout.in_one_write(invitations.revoke),
)
_REVOKE_TOKEN: Final = Action(
    "Revoke the token",
    "The registration token is revoked.",
    "Nobody can register with the token any more. Accounts for which it was used stay.",
    layout.in_one_write(_revoke_token),
)
_ADD_TOKEN: Final = Action(
    "Create a token", "The registration token is in the list.", "", _add_token, is_asking=False
)
