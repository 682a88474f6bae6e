"""Notifications of identity servers about addresses of users of this server.

Spec: server-server-api#put_matrixfederationv13pidonbind
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint

from homebody.client_server import authentication, http
from homebody.client_server.authentication import unauthenticated
from homebody.context import homeserver
from homebody.core.federation import third_party_invites
from homebody.core.federation.third_party_invites import PendingInvite
from homebody.spec.events import Json

bp = Blueprint("server_third_party_invites", __name__)


class Signed(msgspec.Struct):
    """What the identity server has signed."""

    mxid: str
    token: str
    signatures: dict[str, dict[str, str]]


class Invite(msgspec.Struct):
    """A pending invite of the address."""

    room_id: str
    sender: str
    signed: Signed


class Bound(msgspec.Struct):
    """The body of the notification."""

    mxid: str
    invites: Annotated[list[Invite], msgspec.Meta(max_length=100)] = []


@bp.put("/v1/3pid/onbind")
@unauthenticated
def on_bind_third_party_identifier() -> Json:
    """Have a user invited to the rooms to which their address was invited.

    It needs no signature: each invite has that of the identity server, which the room knows.
    Raises M_LIMIT_EXCEEDED: for each invite another server may be asked.
    """
    body = http.body_as(Bound)
    cost = max(len(body.invites), 1)
    authentication.rate_limits().check("rc_strangers", authentication.address_key(), cost)
    pending = [
        PendingInvite(it.room_id, it.sender, msgspec.to_builtins(it.signed)) for it in body.invites
    ]
    third_party_invites.complete(homeserver.database, homeserver.federation, body.mxid, pending)
    return {}
