"""Invites of users of this server to rooms of others.

Spec: server-server-api#inviting-to-a-room
"""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import authentication
from homebody.context import homeserver
from homebody.core.rooms import appservice_queries
from homebody.server_server.authentication import content, content_as, from_server, origin
from homebody.spec.events import Json

bp = Blueprint("server_invites", __name__)

OLD_VERSION = "1"
"""Rooms of versions 1 and 2 are alike, as far as an invite shows."""


class Invite(msgspec.Struct):
    """The body of an invite."""

    room_version: str
    event: Json
    invite_room_state: list[Any] = []


@bp.put("/v2/invite/<room_id>/<event_id>")
@from_server
def send_invite_v2(room_id: str, event_id: str) -> Json:
    """Take in an invite, and return it signed."""
    body = content_as(Invite)
    return {
        "event": _receive(room_id, event_id, body.room_version, body.event, body.invite_room_state)
    }


@bp.put("/v1/invite/<room_id>/<event_id>")
@from_server
def send_invite_v1(room_id: str, event_id: str) -> list[int | Json]:
    """Take in an invite to a room of version 1 or 2, as older servers send it."""
    event = content()
    unsigned = event.get("unsigned")
    stripped = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
    if not isinstance(stripped, list):
        stripped = []
    return [200, {"event": _receive(room_id, event_id, OLD_VERSION, event, stripped)}]


def _receive(room_id: str, event_id: str, version: str, event: Json, stripped: list[Any]) -> Json:
    target = event.get("state_key")
    if not isinstance(target, str) or not homeserver.server.is_local(target):
        raise errors.invalid_param("The event does not invite a user of this server")
    limits = authentication.rate_limits()
    # the sender's first: one who has used that up can't use up the limits of others
    limits.check("rc_invites.per_issuer", str(event.get("sender")))
    limits.check("rc_invites.per_server", origin())
    limits.check("rc_invites.per_room", room_id)
    limits.check("rc_invites.per_user", target)
    appservice_queries.ensure_users(homeserver.database, [target])
    return homeserver.invites.receive(origin(), room_id, event_id, version, event, stripped)
