"""Third-party invites (m.room.third_party_invite): invites of an e-mail address.

The address is proved by a signature with a key that the invite names. The authorization rules check
it, as every server in the room would; this module turns it into the invite of a user.

Addresses are not looked up, even where they belong to an account of this server: users add them to
reset passwords, not to be found, and an invite would reveal whose address it is. Identity servers
are for looking up users by address, and this server uses none.
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
from homebody.storage.database import Reader, Tx

THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"


def refused() -> MatrixError:
    """Return the error for invites by address."""
    # Deviates: "The homeserver uses an identity server to perform the mapping".
    return errors.server_not_trusted("This server uses no identity server: invite by user ID")


def accept(tx: Tx, room_id: str, user_id: str, inviter: str, signed: Json) -> None:
    """Invite a user on behalf of the inviter of an address, unless they are invited or joined.

    Raises as `draft` does, and M_FORBIDDEN when none of the invite's keys has signed for this user.
    """
    if state.membership_of(tx, room_id, user_id) not in {"invite", "join"}:
        sending.send(tx, draft(tx, room_id, user_id, inviter, signed))


def draft(tx: Reader, room_id: str, user_id: str, inviter: str, signed: Json) -> sending.Draft:
    """Return the invite of a user on behalf of the inviter of an address.

    `signed` has mxid, token and signatures. Raises M_FORBIDDEN when the room has no such invite,
    for invites by users of other servers, and by users who have been locked or suspended.
    """
    invite = state.current(tx, room_id, THIRD_PARTY_INVITE, signed["token"])
    if invite is None or invite.sender != inviter:
        raise errors.forbidden("The room has no such third-party invite")
    if not tx.server.is_local(invite.sender):
        raise errors.forbidden("Only the inviter's server can complete this invite")
    account = accounts.find(tx, invite.sender)
    if account is None or account.is_suspended or account.is_locked:
        raise errors.forbidden(f"{invite.sender}, who sent the invite, may no longer invite users")
    shown = invite.content.get("display_name")
    proof: Json = {"signed": signed} | ({"display_name": shown} if isinstance(shown, str) else {})
    content = {"membership": "invite", "third_party_invite": proof}
    return sending.Draft(room_id, invite.sender, state.MEMBER, content, user_id)
