"""The pages on which users manage their own account."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response

from homebody.web import browser_sessions, pages
from homebody.web.browser_sessions import signed_in

bp = Blueprint("account_pages", __name__)

ACCOUNT: Final = f"{browser_sessions.PREFIX}account/"


@bp.get(ACCOUNT)
@signed_in()
def show_account() -> Response:
    """Return the page of the user's account."""
    return pages.page("account.html")
