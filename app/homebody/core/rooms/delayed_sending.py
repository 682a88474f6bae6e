"""Sending delayed events (MSC4140), as if their users requested it now.

`send` finalises the event in the same write, so that no crash separates the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from homebody import errors
from homebody.core.accounts import accounts, overrides
from homebody.core.events import state
from homebody.core.rooms import personal_settings, state_events
from homebody.core.timeline import delayed_events, leaving_threads, sending, shadow_bans, store
from homebody.core.timeline.delayed_events import Delayed
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Reader, Tx

Follow = Callable[[Database], None]
"""What follows from an event, in writes of its own."""

MEMBERSHIPS = ("leave", "ban")
"""What can be delayed: leaving, kicks, bans and their ends. For invites and joins, other servers
may have to be asked."""


def check_membership(content: Json) -> None:
    """Raise M_FORBIDDEN for memberships that can't be delayed."""
    if content.get("membership") not in MEMBERSHIPS:
        raise errors.forbidden("Only leaves and bans can be delayed")


def requester(tx: Reader, user_id: str) -> Requester:
    """Return the user of an event as they would make a request now, with any device or none.

    Raises M_USER_DEACTIVATED, M_USER_LOCKED, ORG_MATRIX_EXPIRED_ACCOUNT.
    """
    service = tx.server.appservices.owner_of_user(user_id)
    account = accounts.find(tx, user_id)
    if account is None:  # the own user of a service whose registration is gone
        raise errors.user_deactivated()
    accounts.check_active(tx, account)
    limit = overrides.find(tx, user_id)
    return Requester(
        user_id,
        "",
        b"",
        is_guest=account.is_guest,
        is_admin=account.is_admin,
        is_suspended=account.is_suspended,
        is_shadow_banned=account.is_shadow_banned,
        message_limit=None if limit is None else (limit.messages_per_second, limit.burst_count),
        service=service,
    )


def send(tx: Tx, it: Delayed, sender: Requester) -> Follow | None:
    """Send a scheduled event, and return what is to be done after the write, if anything is.

    `sender` is what `requester` returns.
    Raises as sending.send_message and state_events.put do, and UnapprovedError.
    """
    before = tx.position
    event_id = _send_message(tx, it, sender) if it.state_key is None else _set_state(tx, it, sender)
    delayed_events.note_sent(tx, it.delay_id, event_id)
    if sender.is_shadow_banned:
        return None
    if it.type == store.REDACTION:
        return partial(leaving_threads.follow, event_id=str(it.content.get("redacts")))
    if (it.type, it.state_key) == personal_settings.TOMBSTONE:
        users = personal_settings.members_of_replacement(tx, it.room_id, before)
        return partial(personal_settings.copy_for_users, room_id=it.room_id, user_ids=users)
    return None


def _send_message(tx: Tx, it: Delayed, sender: Requester) -> str:
    return sending.send_message(
        tx,
        sender,
        it.room_id,
        it.type,
        it.content,
        ts=it.origin_server_ts,
        delay_id=it.delay_id,
        sticky_ms=it.sticky_ms,
    )


def _set_state(tx: Tx, it: Delayed, sender: Requester) -> str:
    state_key, content = it.state_key or "", it.content
    is_leave = (it.type, state_key) == (state.MEMBER, it.user_id)
    if sender.is_suspended and not (is_leave and content.get("membership") == "leave"):
        raise errors.user_suspended()
    if sender.is_shadow_banned:
        if shadow_bans.is_hidden(tx, sender, it.room_id, it.type, content):
            return shadow_bans.event_id(tx, sender, it.room_id)
        content = {"membership": content.get("membership")}
    return state_events.put(
        tx,
        it.room_id,
        it.user_id,
        it.type,
        state_key,
        content,
        it.origin_server_ts,
        delay_id=it.delay_id,
        sticky_ms=it.sticky_ms,
    )
