"""Invites of addresses: those of users of this server, and those by users of this server.

Spec: server-server-api#third-party-invites
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from flask import Blueprint

from homebody.client_server import authentication, http, membership
from homebody.client_server.authentication import unauthenticated
from homebody.context import homeserver
from homebody.core.federation import sent_invites, server_acls, third_party_invites
from homebody.core.federation.third_party_invites import PendingInvite
from homebody.core.rooms import membership as rooms_membership
from homebody.core.rooms import third_party_invites as rooms_invites
from homebody.server_server.authentication import content_as, from_server, origin
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


class Proof(msgspec.Struct):
    """The part of an invite that shows whose the address is."""

    signed: Signed


class Content(msgspec.Struct):
    """The content of the wanted invite."""

    third_party_invite: Proof
    membership: Literal["invite"] = "invite"


class Exchange(msgspec.Struct):
    """The body of an exchange: parts of the wanted invite."""

    sender: str
    state_key: str
    content: Content
    type: Literal["m.room.member"] = "m.room.member"


@bp.put("/v1/exchange_third_party_invite/<room_id>")
@from_server
def exchange_third_party_invite(room_id: str) -> Json:
    """Invite a user on behalf of a user here who has invited their address."""
    body = content_as(Exchange)
    authentication.rate_limits().check("rc_invites.per_room", room_id)
    signed = msgspec.to_builtins(body.content.third_party_invite.signed)
    proof = (room_id, body.state_key, body.sender, signed)
    with homeserver.database.read() as tx:
        server_acls.check(tx, room_id, origin())
    if not membership.is_elsewhere(body.state_key):
        with homeserver.database.write() as tx:
            rooms_membership.check_not_blocked(tx, body.sender, body.state_key)
            rooms_invites.accept(tx, *proof)
        return {}
    with homeserver.database.read() as tx:
        draft = rooms_invites.draft(tx, *proof)
    sent_invites.send(
        homeserver.database, homeserver.federation, homeserver.server_keys, homeserver.locks, draft
    )
    return {}
