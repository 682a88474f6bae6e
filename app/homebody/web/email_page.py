"""The page of the link in a mail that validates an e-mail address.

Opening it confirms nothing, as virus scanners open every link of a mail. A person has to press the
button.

Spec: client-server-api#post_matrixclientv3registeremailrequesttoken
"""

from __future__ import annotations

from flask import Blueprint, Response, request

from homebody.client_server import authentication, threepids
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.context import homeserver
from homebody.core.accounts import validation
from homebody.errors import MatrixError
from homebody.web import pages

bp = Blueprint("email_page", __name__)


@bp.get(threepids.PAGE)
@unauthenticated
def show() -> Response:
    """Return the page with the button."""
    sid, token = request.args.get("sid", ""), request.args.get("token", "")
    try:
        with homeserver.database.read() as tx:
            session = validation.open_link(tx, sid, token)
    except MatrixError as error:
        return _problem(error)
    return pages.page("email.html", address=session.address, sid=sid, token=token)


@bp.post(threepids.PAGE)
@unauthenticated
def confirm() -> Response:
    """Confirm the address by the form of the page."""
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
    return pages.page("email.html", is_done=True, next_link=session.next_link)


def _problem(error: MatrixError) -> Response:
    return pages.page("problem.html", error.status, problem=f"{error.message}.")
