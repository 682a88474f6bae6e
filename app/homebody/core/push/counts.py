"""Notifications of users by events, and their unread counts.

`count` runs inside the write of every event, so it handles all local members at once: their
compiled rules are cached, and two statements write the rows of all users who are notified.

    notifications    one row for each event that notifies a user: unread ones, and of read ones the
                     highlights, for GET /notifications
    unread_counts    the number of unread ones by room and thread, for /sync

Both are bounded: reading deletes rows, and so does leaving the room. Of users who never read (most
bots), only the notifications of a room's newest KEPT_EVENTS events are kept; counting goes on.

This module alone writes the two tables.
Spec: client-server-api#receiving-notifications, client-server-api#threaded-read-receipts
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

import orjson
from sqlalchemy import (
    Boolean,
    Integer,
    Text,
    bindparam,
    cast,
    delete,
    false,
    func,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import members, state
from homebody.core.push import pushers
from homebody.core.user_data import account_data, thread_subscriptions
from homebody.core.user_data.account_data import PushSettings
from homebody.models.events import StoredEvent
from homebody.models.push import Notification, UnreadCount
from homebody.spec import push_rules, room_state
from homebody.spec.events import Event
from homebody.spec.push_conditions import EventView, Recipient
from homebody.spec.push_rules import Outcome
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches, listed

MAIN: Final = "main"
"""The name of the main timeline in receipts and counts."""
KEPT_EVENTS: Final = 1000
_USERS_AT_ONCE: Final = 500
_PRUNED_EVERY: Final = 256
"""Events of a room."""
_Kind = tuple[int, str, bool]
"""Position of an event, thread, whether it is a highlight."""

_USERS = listed("users")
_NOTIFY = insert(Notification).from_select(
    ["user_id", "room_id", "event_position", "thread_id", "is_highlight", "is_read", "actions"],
    select(
        _USERS.c.value,
        bindparam("room_id", type_=Text),
        bindparam("position", type_=Integer),
        bindparam("thread_id", type_=Text),
        bindparam("is_highlight", type_=Boolean),
        false(),
        bindparam("actions", type_=Text),
    ),
)
_ADD = insert(UnreadCount).from_select(
    ["user_id", "room_id", "thread_id", "notification_count", "highlight_count"],
    select(
        _USERS.c.value,
        bindparam("room_id", type_=Text),
        bindparam("thread_id", type_=Text),
        literal(1),
        bindparam("is_highlight", type_=Integer),
    ).where(true()),  # SQLite takes the ON of ON CONFLICT for that of a join without it
)
_ADD = _ADD.on_conflict_do_update(
    index_elements=["user_id", "room_id", "thread_id"],
    set_={
        "notification_count": UnreadCount.notification_count + 1,
        "highlight_count": UnreadCount.highlight_count + _ADD.excluded.highlight_count,
    },
)
_UNREAD = select(
    UnreadCount.room_id,
    UnreadCount.thread_id,
    UnreadCount.notification_count,
    UnreadCount.highlight_count,
).where(
    UnreadCount.user_id == bindparam("user_id"),
    UnreadCount.room_id.in_(bindparam("room_ids", expanding=True)),
)
_UNREAD_IN_ROOM = select(UnreadCount.thread_id).where(
    UnreadCount.user_id == bindparam("user_id"), UnreadCount.room_id == bindparam("room_id")
)
_RECOUNT = insert(UnreadCount).from_select(
    ["user_id", "room_id", "thread_id", "notification_count", "highlight_count"],
    select(
        Notification.user_id,
        Notification.room_id,
        Notification.thread_id,
        func.count(),
        # as a number: the sum of booleans would be taken for one, and 5 for true
        func.sum(cast(Notification.is_highlight, Integer)),
    )
    .where(
        Notification.user_id == bindparam("of_user"),
        Notification.room_id == bindparam("in_room"),
        Notification.thread_id.in_(bindparam("threads", expanding=True)),
        Notification.is_read.is_(False),
    )
    .group_by(Notification.user_id, Notification.room_id, Notification.thread_id),
)
_OF_USER_IN_ROOM = (
    Notification.user_id == bindparam("of_user"),
    Notification.room_id == bindparam("in_room"),
)
_READ_UPTO = (
    *_OF_USER_IN_ROOM,
    Notification.event_position <= bindparam("upto"),
    Notification.thread_id.in_(bindparam("threads", expanding=True)),
)
_DROP_READ = delete(Notification).where(*_READ_UPTO, Notification.is_highlight.is_(False))
_MARK_READ = update(Notification).where(*_READ_UPTO).values(is_read=True)
_DROP_OLD = delete(Notification).where(
    *_OF_USER_IN_ROOM, Notification.event_position < bindparam("oldest")
)
_DROP_ALL = delete(Notification).where(*_OF_USER_IN_ROOM)
_DROP_COUNTS = delete(UnreadCount).where(
    UnreadCount.user_id == bindparam("of_user"), UnreadCount.room_id == bindparam("in_room")
)
_DROP_COUNT = _DROP_COUNTS.where(UnreadCount.thread_id == bindparam("thread"))
_COUNTED = (
    UnreadCount.user_id.in_(bindparam("users", expanding=True)),
    UnreadCount.room_id == bindparam("in_room"),
    UnreadCount.thread_id == bindparam("thread"),
)
_COUNT_DOWN = (
    update(UnreadCount)
    .where(*_COUNTED)
    .values(
        notification_count=UnreadCount.notification_count - 1,
        highlight_count=func.max(0, UnreadCount.highlight_count - bindparam("highlights")),
    )
)
_DROP_EMPTY = delete(UnreadCount).where(*_COUNTED, UnreadCount.notification_count <= 0)
_OF_EVENT = (
    Notification.user_id.in_(bindparam("users", expanding=True)),
    Notification.room_id == bindparam("in_room"),
)
_OLD_UNREAD = (
    select(Notification.user_id, Notification.thread_id)
    .where(
        Notification.user_id.in_(bindparam("users", expanding=True)),
        Notification.room_id == bindparam("room_id"),
        Notification.event_position < bindparam("oldest"),
        Notification.is_read.is_(False),
    )
    .distinct()
)
_RETURNED = (
    Notification.user_id,
    Notification.event_position,
    Notification.thread_id,
    Notification.is_highlight,
    Notification.is_read,
)
_DROP_OF_EVENT = (
    delete(Notification)
    .where(*_OF_EVENT, Notification.event_position == bindparam("position"))
    .returning(*_RETURNED)
)
_MOVE_TO_MAIN = (
    update(Notification)
    .where(*_OF_EVENT, Notification.event_position.in_(bindparam("positions", expanding=True)))
    .values(thread_id=MAIN)
    .returning(*_RETURNED)
)
_UNREAD_IN_THREAD = select(UnreadCount.user_id).where(
    UnreadCount.user_id.in_(bindparam("users", expanding=True)),
    UnreadCount.room_id == bindparam("room_id"),
    UnreadCount.thread_id == bindparam("thread_id"),
)
_REMOVE_ROOM = (
    delete(Notification).where(Notification.room_id == bindparam("the_room")),
    delete(UnreadCount).where(UnreadCount.room_id == bindparam("the_room")),
)
_OLDEST_KEPT = (
    select(StoredEvent.position)
    .where(StoredEvent.room_id == bindparam("room_id"), StoredEvent.position.is_not(None))
    .order_by(StoredEvent.position.desc())
    .offset(KEPT_EVENTS)
    .limit(1)
)


def count(tx: Tx, event: Event, position: int, thread_id: str | None) -> None:
    """Store which users a new event notifies."""
    thread = thread_id or MAIN
    if event.state_key is None and tx.server.is_local(event.sender):
        mark_read(tx, event.sender, event.room_id, thread, position)  # the sender has read it
    members = _local_recipients(tx, event)
    if members:
        outcomes = _evaluate(tx, event, members, thread)
        if outcomes:
            _write(tx, event, position, thread, outcomes)
        if event.depth % _PRUNED_EVERY == 0:
            _prune(tx, event.room_id, members)


def follow_member(
    tx: Tx, room_id: str, user_id: str, membership: str | None, *, was_joined: bool
) -> None:
    """Delete what a user who has left, or has accepted an invite, need not read any more."""
    if not tx.server.is_local(user_id):
        return
    key = {"of_user": user_id, "in_room": room_id}
    if membership == "join" and not was_joined:
        tx.sql.execute(_DROP_ALL, key)  # the notification of the invite, which is not counted
    elif membership in {"leave", "ban"}:
        tx.sql.execute(_DROP_ALL, key)
        asked = {"user_id": user_id, "room_id": room_id}
        if tx.sql.execute(_UNREAD_IN_ROOM, asked).first() is not None:
            tx.sql.execute(_DROP_COUNTS, key)
            _note_change(tx, [user_id])


def unread_in(
    tx: Reader, user_id: str, room_ids: Collection[str]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Return {room_id: {thread_id or "main": (unread notifications, highlights)}}."""
    if not room_ids:
        return {}
    found: dict[str, dict[str, tuple[int, int]]] = {}
    asked = {"user_id": user_id, "room_ids": room_ids}
    for room_id, thread_id, notified, highlighted in tx.sql.execute(_UNREAD, asked):
        found.setdefault(room_id, {})[thread_id] = (notified, highlighted)
    return found


def mark_read(
    tx: Tx, user_id: str, room_id: str, thread_id: str | None, upto_position: int
) -> None:
    """Mark a thread as read up to a position; thread None: all of the room."""
    unread = tx.sql.execute(_UNREAD_IN_ROOM, {"user_id": user_id, "room_id": room_id})
    threads = [row.thread_id for row in unread if thread_id in {None, row.thread_id}]
    if not threads:
        return
    _note_change(tx, [user_id])
    key = {"of_user": user_id, "in_room": room_id}
    read = {**key, "upto": upto_position, "threads": threads}
    tx.sql.execute(_DROP_READ, read)
    tx.sql.execute(_MARK_READ, read)
    tx.sql.execute(_DROP_COUNT, [{**key, "thread": thread} for thread in threads])
    tx.sql.execute(_RECOUNT, {**key, "threads": threads})


def remove_before(tx: Tx, room_id: str, position: int) -> None:
    """Delete the notifications of events before a position, as the events are deleted."""
    members = list(state.joined(tx, room_id).local)
    unread: dict[str, list[str]] = {}
    for some in batches(members, _USERS_AT_ONCE):
        asked = {"users": some, "room_id": room_id, "oldest": position}
        for row in tx.sql.execute(_OLD_UNREAD, asked):
            unread.setdefault(row.user_id, []).append(row.thread_id)
    rows = [{"of_user": it, "in_room": room_id, "oldest": position} for it in members]
    tx.sql.execute(_DROP_OLD, rows)
    for user_id, threads in unread.items():
        key = {"of_user": user_id, "in_room": room_id}
        tx.sql.execute(_DROP_COUNT, [{**key, "thread": thread} for thread in threads])
        tx.sql.execute(_RECOUNT, {**key, "threads": threads})
    if unread:
        _note_change(tx, unread)


def forget(tx: Tx, event: Event, position: int) -> None:
    """Delete the notifications of a redacted event.

    For users with more than KEPT_EVENTS unread events, older ones remain counted: their rows are
    gone.
    """
    asked = {"users": _notified_by(tx, event), "in_room": event.room_id, "position": position}
    _take_out(tx, event.room_id, _alike(tx.sql.execute(_DROP_OF_EVENT, asked)))


def move_to_main(tx: Tx, room_id: str, thread_id: str, positions: Collection[int]) -> None:
    """Move events of a thread to the main timeline, as their parent was redacted."""
    if not positions:
        return
    asked = {"users": state.joined(tx, room_id).local, "room_id": room_id, "thread_id": thread_id}
    unread = list(tx.sql.execute(_UNREAD_IN_THREAD, asked).scalars())
    moving = {"users": unread, "in_room": room_id, "positions": positions}
    moved = _alike(tx.sql.execute(_MOVE_TO_MAIN, moving)) if unread else {}
    _take_out(
        tx,
        room_id,
        {(position, thread_id, is_loud): it for (position, _, is_loud), it in moved.items()},
    )
    for (_, thread, is_highlight), users in moved.items():
        row = {"room_id": room_id, "thread_id": thread, "is_highlight": is_highlight}
        tx.sql.execute(_ADD, {"users": users, **row})


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete all rows of a room; called by rooms/purge.py alone."""
    for statement in _REMOVE_ROOM:
        tx.sql.execute(statement, {"the_room": room_id})


def _notified_by(tx: Reader, event: Event) -> list[str]:
    """Return the local users whom the event may have notified and who have not left."""
    invited = [event.state_key or ""] if event.type == state.MEMBER else []
    here = state.joined(tx, event.room_id).local
    return [*here, *(it for it in invited if tx.server.is_local(it) and it not in here)]


def _alike(notifications: Iterable[state.AnyRow]) -> dict[_Kind, list[str]]:
    """Group the users of unread notifications by position, thread and highlight."""
    found: dict[_Kind, list[str]] = {}
    for row in notifications:
        if not row.is_read:
            kind = (row.event_position, row.thread_id, row.is_highlight)
            found.setdefault(kind, []).append(row.user_id)
    return found


def _take_out(tx: Tx, room_id: str, notifications: Mapping[_Kind, list[str]]) -> None:
    """Subtract these notifications from the unread counts."""
    for (_, thread, is_highlight), users in notifications.items():
        counted = {
            "users": users,
            "in_room": room_id,
            "thread": thread,
            "highlights": int(is_highlight),
        }
        tx.sql.execute(_COUNT_DOWN, counted)
        tx.sql.execute(_DROP_EMPTY, counted)
    concerned = {user for users in notifications.values() for user in users}
    if concerned:
        _note_change(tx, concerned)


def _note_change(tx: Tx, user_ids: Collection[str]) -> None:
    """Have the number on these users' badges updated."""
    pushers.queue(tx, list(user_ids), {})


def _local_recipients(tx: Reader, event: Event) -> list[str]:
    """Return the local users whom the event might notify: members, and the invited user."""
    members = [it for it in state.joined(tx, event.room_id).local if it != event.sender]
    if event.type == state.MEMBER and event.content.get("membership") == "invite":
        invited = event.state_key or ""
        decide = account_data.decide_on_invite
        if tx.server.is_local(invited) and decide(tx, invited, event.sender) == "allow":
            members.append(invited)
    services = tx.server.appservices
    if services.all:  # bridged users read elsewhere
        members = [it for it in members if services.owner_of_user(it) is None]
    return members


def _evaluate(tx: Reader, event: Event, members: list[str], thread: str) -> dict[str, Outcome]:
    settings, unknown = tx.cached_many(account_data.COMPILED, members)
    if unknown:
        settings |= account_data.settings_of(tx, unknown)
    known = state.current_many(tx, event.room_id, (room_state.CREATE, room_state.POWER_LEVELS))
    levels = room_state.levels_after(
        known.get(room_state.POWER_LEVELS), known.get(room_state.CREATE)
    )
    there = state.joined(tx, event.room_id)
    # a room whose members are not known yet is not taken for a chat of two
    view = EventView(event, max(there.total, 3) if there.presumed else there.total, levels)
    if thread != MAIN:
        view.subscriptions = thread_subscriptions.of_users(tx, event.room_id, thread, members)
    may_be_named = view.legacy_body is not None or any(it.has_name_rule for it in settings.values())
    names = _names(tx, view, settings) if may_be_named else {}
    return push_rules.evaluate(
        view,
        [
            Recipient(user_id, names.get(user_id))
            for user_id in members
            if event.sender not in settings[user_id].ignored
        ],
        lambda user_id: settings[user_id].ruleset,
    )


def _names(tx: Reader, view: EventView, settings: dict[str, PushSettings]) -> dict[str, str]:
    """Return the display names that rules may find in the event; set `named` of the view.

    A message without m.mentions may name any member. `named` excludes most members at once, so
    that in a large room nothing else is evaluated for them. In other events, hardly any user has
    a rule that searches for names.
    """
    wanted = {user_id for user_id, it in settings.items() if it.has_name_rule}
    body = view.legacy_body
    names = members.names(tx, view.room_id)
    if body is not None:
        text = body.text
        view.named = {
            user_id
            for user_id, (name, localpart) in names.items()
            if ((name and name in text) or localpart in text) and user_id != view.sender
        }
        wanted |= view.named
    return {user_id: names[user_id].display_name for user_id in wanted & names.keys()}


def _write(tx: Tx, event: Event, position: int, thread: str, outcomes: dict[str, Outcome]) -> None:
    """Store notifications, and queue them for pushers.

    Invites are not counted: the room has no counts before the user has joined.
    """
    users: dict[int, list[str]] = {}
    kinds: dict[int, Outcome] = {}
    for user_id, outcome in outcomes.items():  # most users have the same outcome
        kinds[id(outcome)] = outcome
        users.setdefault(id(outcome), []).append(user_id)
    is_invite = event.type == state.MEMBER and event.content.get("membership") == "invite"
    for kind, outcome in kinds.items():
        row = {
            "users": users[kind],
            "room_id": event.room_id,
            "position": position,
            "thread_id": thread,
            "is_highlight": outcome.highlight,
            "actions": orjson.dumps(outcome.actions).decode(),
        }
        tx.sql.execute(_NOTIFY, row)
        payload = {"room_id": event.room_id, "position": position, "tweaks": outcome.tweaks}
        with_pushers = tx.cached(pushers.PUSHERS, pushers.EVERYBODY)
        if with_pushers is None or not with_pushers.keys().isdisjoint(users[kind]):
            pushers.queue(tx, users[kind], payload)
        if not is_invite:
            tx.sql.execute(_ADD, row)


def _prune(tx: Tx, room_id: str, members: list[str]) -> None:
    oldest = tx.sql.execute(_OLDEST_KEPT, {"room_id": room_id}).scalar()
    if oldest is not None:
        rows = [{"of_user": it, "in_room": room_id, "oldest": oldest} for it in members]
        tx.sql.execute(_DROP_OLD, rows)
