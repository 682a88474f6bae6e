"""Typing notifications, kept in memory; see ephemeral.py.

Typing times out after the time that the client gives, by one timer for each room. Other servers
don't give one: their users stop after REMOTE_MS unless they are notified again.
Spec: client-server-api#typing-notifications, server-server-api#typing-notifications
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Set

from homebody.core.ephemeral.ephemeral import Ephemeral, TypingRoom
from homebody.core.user_data import account_data
from homebody.spec.events import Json
from homebody.storage.database import Reader

DEFAULT_MS = 30_000
MAX_MS = 120_000
"""More than any client uses; without a maximum, a client that is gone could type for hours."""
REMOTE_MS = 45_000
"""Some servers repeat it after 30 seconds, Synapse after 40."""
REPEATED_MS = 20_000
"""When other servers are notified again; clients repeat it sooner than that, as it times out."""
MAX_ROOMS = 10_000
"""The number of rooms kept in memory: those with the most recent changes."""
_NOBODY = TypingRoom()


def start(
    ephemeral: Ephemeral,
    room_id: str,
    user_id: str,
    timeout_ms: int = DEFAULT_MS,
    device_id: str = "",
) -> None:
    """Set the user as typing for this time, and notify other members if that is new."""
    with ephemeral.lock:
        room = ephemeral.typing.setdefault(room_id, TypingRoom())
        has_changed = user_id not in room.until_ms
        room.until_ms[user_id] = ephemeral.now_ms + max(0, min(timeout_ms, MAX_MS))
        room.device_ids[user_id] = device_id
        _schedule(ephemeral, room_id, room)
        if has_changed:
            _note_change(ephemeral, room_id, room, [user_id])
        is_due = ephemeral.now_ms - room.sent_ms.get(user_id, -REPEATED_MS) >= REPEATED_MS
        if has_changed or is_due:
            room.sent_ms[user_id] = ephemeral.now_ms
    if has_changed:
        ephemeral.wake_room(room_id)
    if has_changed or is_due:
        ephemeral.send_typing(room_id, user_id, is_typing=True)


def stop(ephemeral: Ephemeral, room_id: str, user_id: str, *, may_write: bool = True) -> None:
    """Set the user as no longer typing. No write is possible during a COMMIT."""
    with ephemeral.lock:
        room = ephemeral.typing.get(room_id)
        if room is None or user_id not in room.until_ms:
            return
        _drop(room, [user_id])
        _note_change(ephemeral, room_id, room, [user_id])
    ephemeral.wake_room(room_id, may_write=may_write)
    ephemeral.send_typing(room_id, user_id, is_typing=False)


def log_out(ephemeral: Ephemeral, user_id: str, device_ids: Collection[str]) -> None:
    """End typing on devices that have logged out, in all rooms; called during a COMMIT."""
    with ephemeral.lock:
        room_ids = [
            room_id
            for room_id, room in ephemeral.typing.items()
            if user_id in room.until_ms and room.device_ids.get(user_id) in device_ids
        ]
    for room_id in room_ids:
        stop(ephemeral, room_id, user_id, may_write=False)


def all_typing(ephemeral: Ephemeral) -> list[tuple[str, str, str]]:
    """Return (room_id, user_id, device_id) of all users who are typing."""
    with ephemeral.lock:
        return [
            (room_id, user_id, room.device_ids.get(user_id, ""))
            for room_id, room in ephemeral.typing.items()
            for user_id in room.until_ms
        ]


def since(
    tx: Reader,
    ephemeral: Ephemeral,
    user_id: str,
    room_ids: Set[str],
    since: int,
    *,
    was_quiet: bool = False,
) -> dict[str, Json]:
    """Return {room_id: m.typing} of rooms where typing changed; since 0: where somebody types.

    With a token from before a restart: of all rooms, as the client may still show users whose
    typing is lost, unless `was_quiet`: nobody was typing then. Ignored users are omitted.
    """
    if ephemeral.is_of_earlier_run(since):
        if not was_quiet:
            return in_rooms(tx, ephemeral, user_id, room_ids)
        since = 0
    with ephemeral.lock:
        if next(reversed(ephemeral.typing.values()), _NOBODY).position <= since:
            return {}
    ignored = account_data.ignored_users(tx, user_id)
    found: dict[str, Json] = {}
    with ephemeral.lock:
        for room_id, room in reversed(ephemeral.typing.items()):
            if room.position <= since:
                break
            if room_id in room_ids and _has_changed(room, since, ignored):
                found[room_id] = _event(room, ignored)
    return found


def in_rooms(
    tx: Reader, ephemeral: Ephemeral, user_id: str, room_ids: Iterable[str]
) -> dict[str, Json]:
    """Return {room_id: m.typing} of all these rooms, even where nobody types."""
    ignored = account_data.ignored_users(tx, user_id)
    with ephemeral.lock:
        return {
            room_id: _event(ephemeral.typing.get(room_id, _NOBODY), ignored) for room_id in room_ids
        }


def _event(room: TypingRoom, ignored: Set[str]) -> Json:
    user_ids = [user_id for user_id in room.until_ms if user_id not in ignored]
    return {"type": "m.typing", "content": {"user_ids": user_ids}}


def _drop(room: TypingRoom, user_ids: Iterable[str]) -> None:
    for user_id in user_ids:
        del room.until_ms[user_id]
        room.device_ids.pop(user_id, None)
        room.sent_ms.pop(user_id, None)


def _has_changed(room: TypingRoom, since: int, ignored: Set[str]) -> bool:
    if since == 0:
        return bool(room.until_ms.keys() - ignored)
    return not ignored or any(
        at > since and user_id not in ignored for user_id, at in room.changed_at.items()
    )


def _note_change(
    ephemeral: Ephemeral, room_id: str, room: TypingRoom, user_ids: Iterable[str]
) -> None:
    room.position = ephemeral.next_position()
    room.changed_at.update(dict.fromkeys(user_ids, room.position))
    ephemeral.typing.move_to_end(room_id)
    if room.until_ms:
        ephemeral.typed_in.add(room_id)
    else:
        ephemeral.typed_in.discard(room_id)
    if len(ephemeral.typing) > MAX_ROOMS:
        oldest, _ = ephemeral.typing.popitem(last=False)
        ephemeral.typed_in.discard(oldest)


def _schedule(ephemeral: Ephemeral, room_id: str, room: TypingRoom) -> None:
    """Schedule a timer for the first timeout in the room."""
    due_ms = min(room.until_ms.values())
    if room.timer_ms is None or due_ms < room.timer_ms:
        room.timer_ms = due_ms
        ephemeral.timers.call_at(due_ms, lambda: _check_timeouts(ephemeral, room_id, room))


def _check_timeouts(ephemeral: Ephemeral, room_id: str, room: TypingRoom) -> None:
    """Remove users whose typing has timed out."""
    with ephemeral.lock:
        now_ms = ephemeral.now_ms
        room.timer_ms = None
        over = [user_id for user_id, until_ms in room.until_ms.items() if until_ms <= now_ms]
        _drop(room, over)
        if room.until_ms:
            _schedule(ephemeral, room_id, room)
        has_changed = bool(over) and ephemeral.typing.get(room_id) is room
        if has_changed:
            _note_change(ephemeral, room_id, room, over)
    if has_changed:
        ephemeral.wake_room(room_id)
        for user_id in over:
            ephemeral.send_typing(room_id, user_id, is_typing=False)
