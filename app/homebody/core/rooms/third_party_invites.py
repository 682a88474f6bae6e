"""Invites of an address (m.room.third_party_invite): coming in by proving that it is one's own.

The proof is a signature by a key that the invite names. The authorization rules check it, as every
server in the room would; here it only becomes the invite of a user.

An address is not looked up here, not even where it belongs to an account of this server: people
give theirs to get a new password by it, not to be found, and an invite would tell whose it is.
Finding people by addresses is what identity servers are for, and this server asks none.
Spec: client-server-api#third-party-invites
"""

from __future__ import annotations

from typing import Final

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.storage.database import Tx

THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"


def refused() -> MatrixError:
    """What who wants to invite an address gets to hear."""
    # Deviates: "The homeserver uses an identity server to perform the mapping".
    return errors.server_not_trusted("This server asks no identity server: invite by user id")


def accept(tx: Tx, room_id: str, user_id: str, signed: Json) -> None:
    """Invite a user in the name of who invited the address. Who is invited or in already stays so.

    `signed` has sender, mxid, token and signatures. Raises M_FORBIDDEN when the room has no such
    invite, when none of its keys has signed for this user, for invites of other servers' users, and
    for those of users who are locked or suspended by now.
    """
    if state.membership_of(tx, room_id, user_id) in {"invite", "join"}:
        return
    invite = state.current(tx, room_id, THIRD_PARTY_INVITE, signed["token"])
    if invite is None or invite.sender != signed["sender"]:
        raise errors.forbidden("The room has no such third-party invite")
    if not tx.server.is_local(invite.sender):
        raise errors.forbidden("Only the server of who has invited can complete this invite")
    account = accounts.find(tx, invite.sender)
    if account is None or account.is_suspended or account.is_locked:
        raise errors.forbidden(f"{invite.sender}, who sent the invite, can't invite any more")
    shown = invite.content.get("display_name")
    proof: Json = {"signed": signed} | ({"display_name": shown} if isinstance(shown, str) else {})
    content = {"membership": "invite", "third_party_invite": proof}
    sending.send(tx, sending.Draft(room_id, invite.sender, state.MEMBER, content, user_id))
