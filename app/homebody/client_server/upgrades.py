"""Replacing a room by one of another version.

Spec: client-server-api#room-upgrades
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http, room_send
from homebody.client_server.authentication import authenticated, requester
from homebody.core.rooms import creation, upgrade
from homebody.spec.events import Json

bp = Blueprint("upgrades", __name__)


class Upgrade(msgspec.Struct):
    """The body of /upgrade."""

    new_version: str
    additional_creators: list[str] | None = None


@bp.post("/rooms/<room_id>/upgrade")
@authenticated()
def upgrade_room(room_id: str) -> Json:
    """The room that takes the place of an old one.

    Spec: client-server-api#post_matrixclientv3roomsroomidupgrade
    """
    body = http.convert(room_send.event_content(), Upgrade)
    version = creation.version_named(body.new_version)
    user_id = requester().user_id
    context.rate_limits().check("rc_room_creation", user_id)
    wish = upgrade.UpgradeRequest(user_id, room_id, version, body.additional_creators or ())
    return {"replacement_room": upgrade.upgrade(context.db(), wish)}
