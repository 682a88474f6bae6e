"""Deactivation of accounts.

Spec: client-server-api#account-deactivation
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import bindparam, select

from homebody.core import archives, audit
from homebody.core.accounts import access_tokens, accounts, threepids
from homebody.core.encryption import backed_up_keys, cross_signing, one_time_keys
from homebody.core.profiles import profiles
from homebody.core.sessions import dehydrated_devices, devices, invitations
from homebody.core.timeline import delayed_events, sending
from homebody.core.user_data import account_data, thread_subscriptions
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

ROOMS_AT_ONCE = 20
"""Left in one transaction, so that other writers get their turn in between."""

Progress = Callable[[int, int], None]

_ROOMS = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        StateInterval.state_key == bindparam("user_id"),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership.in_(("join", "invite", "knock")),
    )
)


def deactivate(
    db: Database,
    user_id: str,
    *,
    erase: bool = False,
    actor: str | None = None,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Leave all rooms, end all sessions, delete the user's keys, and close the account.

    Uses several transactions and marks the account last, so an interrupted request can be repeated.
    With `erase`, profile, account data and exports are deleted as well, and events/visibility.py
    hides the user's messages from users who join later. `actor`: the administrator who does it, if
    not the user; `progress` is called with the number of rooms that the user has left, and of all.
    Only an administrator can open the account again.
    """
    with db.read() as tx:
        rooms = _rooms(tx, user_id)
    for number, some in enumerate(batches(rooms, ROOMS_AT_ONCE)):
        with db.write() as tx:
            _leave(tx, user_id, some)
        progress(number * ROOMS_AT_ONCE + len(some), len(rooms))
    backed_up_keys.erase(db, user_id)
    with db.write() as tx:
        devices.remove_all(tx, user_id)
        access_tokens.revoke_issued(tx, of_user=user_id)
        _leave(tx, user_id, _rooms(tx, user_id))  # rooms that a device has joined meanwhile
        cross_signing.erase(tx, user_id)
        dehydrated_devices.erase(tx, user_id)
        one_time_keys.erase(tx, user_id)
        threepids.remove_all(tx, user_id)
        invitations.end_reset_links(tx, user_id)
        thread_subscriptions.erase(tx, user_id)
        delayed_events.remove_user(tx, user_id)
        accounts.mark_deactivated(tx, user_id, erase=erase)
        if erase:
            profiles.erase(tx, user_id)
            account_data.erase(tx, user_id)
            archives.forget(tx, user_id)
        if actor is not None:
            audit.note(tx, actor, "user.deactivate", user_id, erase=erase)


def reactivate(tx: Tx, actor: str, user_id: str) -> None:
    """Open a deactivated account again, without a password, sessions and rooms."""
    accounts.mark_reactivated(tx, user_id)
    profiles.restore(tx, user_id)
    audit.note(tx, actor, "user.reactivate", user_id)


def _rooms(tx: Reader, user_id: str) -> list[str]:
    """Return the rooms that the user has joined, is invited to or has knocked on."""
    return list(tx.sql.execute(_ROOMS, {"user_id": user_id}).scalars())


def _leave(tx: Tx, user_id: str, room_ids: list[str]) -> None:
    for room_id in room_ids:
        sending.force_leave(tx, room_id, user_id)
