"""The page to which the link in a mail leads.

It confirms nothing by itself: programs that look for viruses open every link of a mail. A person
has to press the button.

Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from homebody import context
from homebody.client_server import threepids
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.core.accounts import validation
from homebody.errors import MatrixError
from homebody.web import pages

bp = Blueprint("email_page", __name__)


@bp.get(threepids.PAGE)
@unauthenticated
def show() -> Response:
    """Ask whether the address is the reader's own."""
    sid, token = request.args.get("sid", ""), request.args.get("token", "")
    try:
        with context.db().read() as tx:
            opened = validation.open_link(tx, sid, token)
    except MatrixError as error:
        return _problem(error)
    return pages.page("email.html", address=opened.address, sid=sid, token=token)


@bp.post(threepids.PAGE)
@unauthenticated
def confirm() -> Response:
    """The form of that page."""
    context.rate_limits().check("rc_registration", address_key())
    request.max_content_length = 10_000  # before Flask reads the form
    sid, token = request.form.get("sid", ""), request.form.get("token", "")
    try:
        with context.db().write() as tx:
            opened = validation.confirm(tx, sid, token)
    except MatrixError as error:
        return _problem(error)
    # Not by a redirect: "This option is ignored when submitting 3PID validation information through
    # a POST request". A link lets people see where it leads.
    return pages.page("email.html", is_done=True, next_link=opened.next_link)


def _problem(error: MatrixError) -> Response:
    return pages.page("problem.html", error.status, problem=f"{error.message}.")
