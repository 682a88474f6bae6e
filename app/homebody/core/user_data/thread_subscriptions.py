"""The threads to which users are subscribed: those of which they want to be notified (MSC4306).

Clients subscribe a user who writes in a thread, and, automatically, one who is mentioned there. An
automatic subscription names the event that caused it, and is refused if that event was there
before the user has unsubscribed: else a device that was switched off would subscribe the user
again. The positions of the clock say what happened first.

Rows of threads that were unsubscribed are kept for that, and for sliding sync, which sends changes.
This module alone writes the table thread_subscriptions.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, and_, bindparam, delete, exists, func, select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core import quotas
from homebody.models.threads import ThreadSubscription
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

MAX_THREADS: Final = 20_000
"""For each user, including those that were unsubscribed; 300 bytes each."""
MAX_LIMIT: Final = 1000
"""Changes in one response."""

_OTHER = aliased(ThreadSubscription)
_USERS = listed("user_ids")
_FIND = select(
    ThreadSubscription.is_subscribed,
    ThreadSubscription.is_automatic,
    ThreadSubscription.unsubscribed_position,
    ThreadSubscription.position,
).where(
    ThreadSubscription.user_id == bindparam("user_id"),
    ThreadSubscription.room_id == bindparam("room_id"),
    ThreadSubscription.thread_id == bindparam("thread_id"),
)
_COUNT = select(func.count()).where(ThreadSubscription.user_id == bindparam("user_id"))
_UPSERT = insert(ThreadSubscription)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "room_id", "thread_id"],
    set_={
        name: _UPSERT.excluded[name]
        for name in ("is_subscribed", "is_automatic", "unsubscribed_position", "position")
    },
)
_OF_USERS = (
    select(_USERS.c.value, func.coalesce(ThreadSubscription.is_subscribed, 0))
    .select_from(
        _USERS.outerjoin(
            ThreadSubscription,
            and_(
                ThreadSubscription.user_id == _USERS.c.value,
                ThreadSubscription.room_id == bindparam("room_id"),
                ThreadSubscription.thread_id == bindparam("thread_id"),
            ),
        )
    )
    .where(exists().where(_OTHER.user_id == _USERS.c.value))
)
_CHANGES = (
    select(
        ThreadSubscription.room_id,
        ThreadSubscription.thread_id,
        ThreadSubscription.is_subscribed,
        ThreadSubscription.is_automatic,
        ThreadSubscription.position,
    )
    .where(
        ThreadSubscription.user_id == bindparam("user_id"),
        ThreadSubscription.position > bindparam("after"),
        ThreadSubscription.position <= bindparam("until"),
    )
    .order_by(ThreadSubscription.position.desc())
    .limit(bindparam("count"))
)


@dataclass(frozen=True, slots=True)
class Changes:
    """Subscriptions that have changed between two positions, each as it is now."""

    subscribed: dict[str, dict[str, Json]]
    """{room_id: {thread_id: {automatic, bump_stamp}}}"""
    unsubscribed: dict[str, dict[str, Json]]
    """{room_id: {thread_id: {bump_stamp}}}"""
    end: int | None
    """The position up to which older changes are to be read; None: there are no more."""

    def __bool__(self) -> bool:
        return bool(self.subscribed or self.unsubscribed)

    @property
    def body(self) -> Json:
        """The part of a response that sliding sync and GET /thread_subscriptions share."""
        body: Json = {}
        if self.subscribed:
            body["subscribed"] = self.subscribed
        if self.unsubscribed:
            body["unsubscribed"] = self.unsubscribed
        return body


NOTHING: Final = Changes({}, {}, None)


def subscribe(
    tx: Tx, user_id: str, room_id: str, thread_id: str, cause_position: int | None
) -> None:
    """Subscribe a user to a thread; automatically if there is an event that has caused it.

    A manual subscription is not made an automatic one. Raises M_CONFLICTING_UNSUBSCRIPTION if the
    user has unsubscribed after that event, M_USER_LIMIT_EXCEEDED.
    """
    is_automatic = cause_position is not None
    before = _find(tx, user_id, room_id, thread_id)
    if before is not None and before.is_subscribed:
        if before.is_automatic and not is_automatic:
            _store(tx, user_id, room_id, thread_id, before.unsubscribed_position)
        return
    unsubscribed = 0 if before is None else before.unsubscribed_position
    if cause_position is not None and cause_position <= unsubscribed:
        raise errors.conflicting_unsubscription()
    if before is None:
        _check_number(tx, user_id)
    _store(tx, user_id, room_id, thread_id, unsubscribed, is_automatic=is_automatic)


def unsubscribe(tx: Tx, user_id: str, room_id: str, thread_id: str) -> None:
    """Unsubscribe a user from a thread.

    Without a subscription this is noted as well: one that another device is about to make, for an
    event that is there already, is refused. Raises M_USER_LIMIT_EXCEEDED.
    """
    if _find(tx, user_id, room_id, thread_id) is None:
        _check_number(tx, user_id)
    _store(tx, user_id, room_id, thread_id, None, is_subscribed=False)


def is_automatic(tx: Reader, user_id: str, room_id: str, thread_id: str) -> bool:
    """Return whether a subscription was made automatically. Raises M_NOT_FOUND without one."""
    found = _find(tx, user_id, room_id, thread_id)
    if found is None or not found.is_subscribed:
        raise errors.not_found("You are not subscribed to this thread")
    return bool(found.is_automatic)


def of_users(
    tx: Reader, room_id: str, thread_id: str, user_ids: Collection[str]
) -> dict[str, bool]:
    """Return {user_id: whether they are subscribed to a thread}.

    Users who have never subscribed to any thread are left out: their clients may not know of
    subscriptions, and would never be notified of a thread.
    """
    asked = {"user_ids": user_ids, "room_id": room_id, "thread_id": thread_id}
    return {user_id: bool(subscribed) for user_id, subscribed in tx.sql.execute(_OF_USERS, asked)}


def changes(tx: Reader, user_id: str, after: int, until: int, limit: int) -> Changes:
    """Return at most `limit` changes between two positions, the latest of them."""
    recent = tx.caches.recent
    if after and recent.knows(after, until) and recent.thread_subscriptions <= after:
        return NOTHING
    limit = min(limit, MAX_LIMIT)
    asked = {"user_id": user_id, "after": after, "until": until, "count": limit + 1}
    rows = tx.sql.execute(_CHANGES, asked).all()
    shown = rows[:limit]
    subscribed: dict[str, dict[str, Json]] = {}
    unsubscribed: dict[str, dict[str, Json]] = {}
    for room_id, thread_id, is_subscribed, automatic, position in shown:
        if is_subscribed:
            entry = {"automatic": bool(automatic), "bump_stamp": position}
            subscribed.setdefault(room_id, {})[thread_id] = entry
        else:
            unsubscribed.setdefault(room_id, {})[thread_id] = {"bump_stamp": position}
    return Changes(subscribed, unsubscribed, shown[-1].position - 1 if len(rows) > limit else None)


def everything(tx: Reader, user_id: str) -> dict[str, list[str]]:
    """Return {room_id: threads} to which a user is subscribed."""
    asked = {"user_id": user_id, "after": 0, "until": tx.position, "count": MAX_THREADS}
    found: dict[str, list[str]] = {}
    for row in tx.sql.execute(_CHANGES, asked):
        if row.is_subscribed:
            found.setdefault(row.room_id, []).append(row.thread_id)
    return found


def erase(tx: Tx, user_id: str) -> None:
    """Delete the subscriptions of a user who is deactivated."""
    tx.sql.execute(delete(ThreadSubscription).where(ThreadSubscription.user_id == user_id))


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the subscriptions of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(ThreadSubscription).where(ThreadSubscription.room_id == room_id))


def _find(tx: Reader, user_id: str, room_id: str, thread_id: str) -> Row[*tuple[Any, ...]] | None:
    key = {"user_id": user_id, "room_id": room_id, "thread_id": thread_id}
    row: Row[*tuple[Any, ...]] | None = tx.sql.execute(_FIND, key).first()
    return row


def _check_number(tx: Reader, user_id: str) -> None:
    used = tx.sql.execute(_COUNT, {"user_id": user_id}).scalar_one()
    quotas.check(tx, "thread subscriptions", used=used + 1, limit=MAX_THREADS, unit="threads")


def _store(
    tx: Tx,
    user_id: str,
    room_id: str,
    thread_id: str,
    unsubscribed: int | None,
    *,
    is_subscribed: bool = True,
    is_automatic: bool = False,
) -> None:
    """Store a change, and wake the user's clients.

    `unsubscribed` is the position of the last unsubscription; None: this is one.
    """
    position = tx.caches.recent.thread_subscriptions = tx.next_position()
    row = {
        "user_id": user_id,
        "room_id": room_id,
        "thread_id": thread_id,
        "is_subscribed": is_subscribed,
        "is_automatic": is_automatic,
        "unsubscribed_position": position if unsubscribed is None else unsubscribed,
        "position": position,
    }
    tx.sql.execute(_UPSERT, row)
    tx.wake(user_id)
