"""Invites of an e-mail address that has turned out to be a user's, as its identity server says.

The invite itself comes from the inviter's server, which gets the identity server's proof.

Spec:
server-server-api#cases-where-an-association-doesnt-exist-for-a-third-party-identifier
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.rooms import membership, third_party_invites
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class PendingInvite:
    """An invite of an address."""

    room_id: str
    inviter: str
    signed: Json
    """The identity server's proof: mxid, token and signatures."""


def complete(
    db: Database, client: FederationClient, user_id: str, pending: list[PendingInvite]
) -> None:
    """Have a user of this server invited to the rooms to which their address was invited.

    What is refused is logged: the identity server can do nothing about it.
    Raises M_NOT_FOUND for an unknown user.
    """
    with db.read() as tx:
        if accounts.find(tx, user_id) is None:
            raise errors.not_found(f"{user_id} is not a user of this server")
    for invite in pending:
        try:
            if db.server.is_local(invite.inviter):
                with db.write() as tx:
                    membership.check_not_blocked(tx, invite.inviter, user_id)
                    third_party_invites.accept(
                        tx, invite.room_id, user_id, invite.inviter, invite.signed
                    )
            else:
                _exchange(client, user_id, invite)
        except (MatrixError, RemoteError, ValueError) as error:
            LOG.info("%s is not invited to %s: %s", user_id, invite.room_id, error)


def _exchange(client: FederationClient, user_id: str, invite: PendingInvite) -> None:
    """Send the proof to the inviter's server. Raises RemoteError, ValueError for no user ID."""
    # Its server knows the name by which the room calls the address
    proof = {"display_name": "", "signed": invite.signed}
    event = {
        "type": "m.room.member",
        "room_id": invite.room_id,
        "sender": invite.inviter,
        "state_key": user_id,
        "content": {"membership": "invite", "third_party_invite": proof},
    }
    server_name = identifiers.server_name(invite.inviter)
    path = path_of("exchange_third_party_invite", invite.room_id)
    client.request(server_name, "PUT", path, json=event, timeout_s=TIMEOUT_S)
