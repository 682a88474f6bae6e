"""The logout at a provider, of which it tells this server.

OpenID Connect Back-Channel Logout 1.0. It is off unless the settings turn it on for a provider: the
devices of a user that are logged out lose their encryption keys.
"""

from __future__ import annotations

import logging

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server import authentication
from homebody.client_server.authentication import address_key, unauthenticated
from homebody.config.login_providers import OidcProvider
from homebody.context import homeserver
from homebody.core.sign_on import logins
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.spec.events import Json

LOG = logging.getLogger(__name__)

bp = Blueprint("sign_on_logouts", __name__)


@bp.post("/logout/<provider_id>")
@unauthenticated
def log_out(provider_id: str) -> Response:
    """End the sessions that began with a login which has ended at the provider.

    Raises M_NOT_FOUND for an unknown provider, or one that may not do this.
    """
    provider = homeserver.login_providers.find(provider_id)
    request.max_content_length = 100_000  # before Flask reads the form
    token = request.form.get("logout_token", "")
    if not provider.backchannel_logout:
        return _respond(400, "invalid_request")
    try:
        claims = _accepted(provider, token)
    except MatrixError as error:
        if error.errcode != "M_FORBIDDEN":
            raise
        return _respond(400, "invalid_request")
    ended = logins.log_out_at(
        homeserver.database, provider.id, claims.get("sub"), claims.get("sid")
    )
    LOG.info("login provider %s: %d sessions ended with a logout there", provider.id, ended)
    return _respond(200)


def _accepted(provider: OidcProvider, token: str) -> Json:
    """Return the claims of a logout token. Raises M_FORBIDDEN for one that is not accepted.

    Only those count as requests of a stranger: a provider may log out a thousand users at once.
    """
    with authentication.rate_limits().check_failures("rc_strangers", address_key()):
        try:
            return homeserver.login_providers.logout_claims(provider, token)
        except RemoteError as problem:
            LOG.warning("login provider %s: logout refused: %s", provider.id, problem)
            raise errors.forbidden("The logout token is not accepted") from problem


def _respond(status: int, error: str | None = None) -> Response:
    """Return a response that no proxy keeps."""
    body = b"{}" if error is None else f'{{"error": "{error}"}}'.encode()
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
