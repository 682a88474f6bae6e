"""Servers that carry calls through firewalls.

Spec: client-server-api#voice-over-ip
"""

from __future__ import annotations

import time

from flask import Blueprint

from homebody import context
from homebody.client_server.authentication import authenticated, requester
from homebody.core.accounts import turn
from homebody.spec.events import Json

bp = Blueprint("turn", __name__)


@bp.get("/voip/turnServer")
@authenticated(guests=True)
def get_turn_server() -> Json:
    """Return a password for the TURN servers of the configuration, good for a while."""
    config, user_id = context.server().config, requester().user_id
    context.rate_limits().check("rc_lookups", user_id)
    found = turn.credentials(config, user_id, time.time_ns() // 1_000_000)
    # Deviates: the four keys are required. Clients ask at every login, and again and again after an
    # error; with an empty object, which Synapse answers, they know that there are no TURN servers.
    return {} if found is None else found
