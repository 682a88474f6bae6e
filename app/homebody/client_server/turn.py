"""TURN servers, which relay calls through firewalls.

Spec: client-server-api#voice-over-ip
"""

from __future__ import annotations

import time

from flask import Blueprint

from homebody.client_server import authentication
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import turn
from homebody.spec.events import Json

bp = Blueprint("turn", __name__)


@bp.get("/voip/turnServer")
@authenticated(guests=True)
def get_turn_server() -> Json:
    """Return temporary credentials for the TURN servers of the configuration."""
    config, user_id = homeserver.server.config, requester().user_id
    authentication.rate_limits().check("rc_lookups", user_id)
    credentials = turn.credentials(config, user_id, time.time_ns() // 1_000_000)
    # Deviates: the four keys are required. Clients request this at every login, and repeat it after
    # an error; an empty object, as from Synapse, tells them that there are no TURN servers.
    return {} if credentials is None else credentials
