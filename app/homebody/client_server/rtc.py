"""Group calls (MatrixRTC): where their servers are (MSC4143, MSC4195).

Clients that know no such endpoint read the same list in /.well-known/matrix/client. They then ask
lk-jwt-service for a token of the LiveKit server, and prove who they are by an OpenID token.
"""

from __future__ import annotations

from flask import Blueprint

from homebody.client_server.authentication import authenticated
from homebody.context import homeserver
from homebody.core import well_known
from homebody.spec.events import Json

bp = Blueprint("rtc", __name__)
bp_v1 = Blueprint("rtc_v1", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/org.matrix.msc4143/rtc/transports")  # below /unstable, which web/middleware.py makes /v3
@bp_v1.get("/rtc/transports")
@authenticated(guests=True)
def get_rtc_transports() -> Json:
    """Return the servers that relay group calls; none if none is configured."""
    return {"rtc_transports": well_known.rtc_transports(homeserver.server.config)}
