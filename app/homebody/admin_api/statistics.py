"""How much of the database each room takes."""

from __future__ import annotations

from flask import Blueprint

from homebody.client_server.authentication import authenticated
from homebody.context import homeserver
from homebody.core.administration import disk_usage
from homebody.spec.events import Json

bp = Blueprint("admin_statistics", __name__)


@bp.get("/v1/statistics/database/rooms")
@authenticated(admins_only=True)
def get_largest_rooms() -> Json:
    """Return the ten largest rooms, by an estimate."""
    with homeserver.database.read() as tx:
        return {"rooms": disk_usage.largest_rooms(tx)}
