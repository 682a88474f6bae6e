"""Joins of users on an administrator's order."""

from __future__ import annotations

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.rooms import membership, room_admins
from homebody.spec import event_auth, room_state
from homebody.spec.events import StateKey
from homebody.storage.database import Reader, Tx


def check_user(tx: Reader, user_id: str) -> None:
    """Check that this is a user of this server. Raises M_UNKNOWN (400), M_NOT_FOUND."""
    if not tx.server.is_local(user_id):
        raise errors.unknown(f"{user_id} is not a user of this server")
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found(f"There is no user {user_id}")


def join(tx: Tx, actor: str, room_id: str, user_id: str) -> None:
    """Join a user to a room of which this server knows enough.

    If users need an invite, the administrator invites them, or by the command line the local user
    with most power. Raises M_FORBIDDEN where the administrator may not, M_NOT_FOUND.
    """
    if not state.is_joined(tx, room_id, user_id):
        let_in(tx, actor, room_id, user_id)
        note(tx, actor, room_id, user_id)


def let_in(tx: Tx, actor: str, room_id: str, user_id: str) -> None:
    """Join a user as `join` does, without an entry of the audit log."""
    member: StateKey = (state.MEMBER, user_id)
    state.head(tx, room_id)
    known = state.current_many(tx, room_id, [room_state.JOIN_RULES, member])
    is_open = event_auth.join_rule(known) == "public"
    if not is_open and event_auth.membership(known, user_id) != "invite":
        inviter = actor
        if actor == audit.COMMAND_LINE:
            inviter = room_admins.strongest_local_user(tx, room_id)
        state.check_joined(tx, room_id, inviter)
        membership.change(tx, room_id, inviter, user_id, "invite")
    membership.join(tx, room_id, user_id)


def note(tx: Tx, actor: str, room_id: str, user_id: str) -> None:
    """Add the audit log's entry of a join."""
    audit.note(tx, actor, "room.join", room_id, user_id=user_id)
