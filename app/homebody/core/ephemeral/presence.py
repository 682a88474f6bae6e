"""Presence, kept in memory (ephemeral.py) and saved for the next start (shown_presence.py).

Each device sets `online` or `unavailable` for its user, by /sync or explicitly, and counts while it
has an open request and for OFFLINE_AFTER_MS after. The user is online if one of the devices is and
the user was active within IDLE_AFTER_MS, else unavailable; without devices they are offline.

Nothing is polled: presence is computed when a device sets it, and by a timer when inactivity would
next change it. Thousands of waiting requests need no timer at all, and a device that repeats its
/sync changes nothing, so no request is woken. `currently_active` is true while a user is online, as
the idle timeout ends both.

Presence is sent to users who share a room with the user.
Spec: client-server-api#presence
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from contextlib import contextmanager

from homebody import errors
from homebody.core.ephemeral.ephemeral import Ephemeral, PresentDevice, UserPresence
from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.database import Reader

OFFLINE_AFTER_MS = 30_000
"""Since the last request of the last device."""
IDLE_AFTER_MS = 300_000
"""Since the user was last active."""
STATES = ("online", "unavailable", "offline")
MAX_STATUS_LENGTH = 1000
MAX_USERS = 20_000
"""In memory, about 20 MB. Beyond it, the user who was offline for longest is removed."""
_BEFORE = "devices before the restart" * 10
"""Stands for them until one of them returns; too long for a device ID."""


@contextmanager
def syncing(
    ephemeral: Ephemeral, user_id: str, device_id: str, set_presence: str = "online"
) -> Iterator[None]:
    """Count the device as present while the block runs, which answers its /sync.

    With `set_presence` "offline" the request does not affect presence.
    """
    if set_presence == "offline" or not ephemeral.has_presence:
        yield
        return
    device = _begin_sync(ephemeral, user_id, device_id, set_presence)
    try:
        yield
    finally:
        _end_sync(ephemeral, user_id, device)


def log_out(ephemeral: Ephemeral, user_id: str, device_ids: Collection[str]) -> None:
    """Remove devices that have logged out, by a timer, as this is called during a COMMIT."""
    if user_id in ephemeral.presences:
        ephemeral.timers.call_at(ephemeral.now_ms, lambda: _log_out(ephemeral, user_id, device_ids))


def _log_out(ephemeral: Ephemeral, user_id: str, device_ids: Collection[str]) -> None:
    with ephemeral.lock:
        entry = ephemeral.presences.get(user_id)
        if entry is None:
            return
        for device_id in device_ids:
            entry.devices.pop(device_id, None)
        has_changed = _update(ephemeral, user_id, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content(ephemeral, entry))


def set_status(
    ephemeral: Ephemeral, user_id: str, device_id: str, presence: str, status_msg: str | None
) -> None:
    """Set the presence and status message of a user on one device.

    Raises M_INVALID_PARAM for an unknown state and a status that is too long.
    """
    if presence not in STATES:
        raise errors.invalid_param(f"presence must be one of {', '.join(STATES)}")
    if status_msg is not None and len(status_msg) > MAX_STATUS_LENGTH:
        raise errors.invalid_param(f"status_msg is longer than {MAX_STATUS_LENGTH} characters")
    if not ephemeral.has_presence:
        return
    with ephemeral.lock:
        entry, device = _device(ephemeral, user_id, device_id)
        device.presence = presence
        device.seen_ms = entry.active_ms = ephemeral.now_ms
        is_new_status = entry.status_msg != status_msg
        entry.status_msg = status_msg
        has_changed = _update(ephemeral, user_id, entry, has_changed=is_new_status)
    if has_changed:
        ephemeral.wake_contacts(user_id, content(ephemeral, entry))


def note_activity(ephemeral: Ephemeral, user_id: str, device_id: str) -> None:
    """Record that a user was active; a user who was idle becomes online.

    An offline user stays offline, as they may have chosen it.
    """
    if user_id not in ephemeral.presences:
        return
    with ephemeral.lock:
        entry = ephemeral.presences[user_id]
        if entry.presence == "offline":
            return
        entry.active_ms = ephemeral.now_ms
        device = entry.devices.get(device_id)
        if device is not None and device.presence == "unavailable":
            device.presence = "online"
        has_changed = _update(ephemeral, user_id, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content(ephemeral, entry))


def restore(
    ephemeral: Ephemeral, user_id: str, presence: str, status_msg: str | None, ago_ms: int | None
) -> None:
    """Restore the presence of a user after a restart, with the usual timeouts.

    `ago_ms` is how long ago the user was active.
    """
    now_ms = ephemeral.now_ms
    with ephemeral.lock:
        entry = UserPresence(ephemeral.position, presence, status_msg)
        entry.active_ms = None if ago_ms is None else now_ms - ago_ms
        entry.devices[_BEFORE] = PresentDevice(presence, seen_ms=now_ms)
        ephemeral.presences[user_id] = entry
        _schedule(ephemeral, user_id, entry)


def get(tx: Reader, ephemeral: Ephemeral, requester_id: str, user_id: str) -> Json:
    """Return the presence of a user. Raises M_FORBIDDEN unless the two users share a room."""
    if user_id != requester_id and not _share_a_room(tx, requester_id, user_id):
        raise errors.forbidden("You share no room with this user")
    with ephemeral.lock:
        return content(ephemeral, ephemeral.presences.get(user_id, UserPresence()))


def since(
    tx: Reader,
    ephemeral: Ephemeral,
    user_id: str,
    since: int,
    new_contacts: Set[str] = frozenset(),
) -> list[Json]:
    """Return changed m.presence events of the user and of users who share a room with them.

    Also of `new_contacts`, who share a room with the user only since then, unless they are offline:
    their presence has not changed, but is new to this client. Since 0: of all who are not offline.
    """
    since = ephemeral.seen(since)
    with ephemeral.lock:
        changed = _changed_since(ephemeral, since)
        wanted = [it for it in changed if it == user_id or _share_a_room(tx, user_id, it)]
        if since and new_contacts:
            presences = ephemeral.presences
            there = new_contacts & presences.keys()
            new = (it for it in there.difference(wanted) if presences[it].presence != "offline")
            wanted += sorted(new)
        return [_event(ephemeral, it) for it in wanted]


def entry_of(ephemeral: Ephemeral, user_id: str) -> UserPresence | None:
    """Return the entry of a user of another server; None if MAX_USERS are online already."""
    entry = ephemeral.presences.get(user_id)
    if entry is None:
        _evict(ephemeral)
        if len(ephemeral.presences) < MAX_USERS:
            return _new_entry(ephemeral, user_id)
    return entry


def note_change(ephemeral: Ephemeral, user_id: str, entry: UserPresence, presence: str) -> None:
    """Set a presence that is new for others; also called for users of other servers."""
    entry.presence = presence
    entry.position = ephemeral.next_position()
    ephemeral.note_unsaved(user_id)
    ephemeral.presences.move_to_end(user_id)


def _changed_since(ephemeral: Ephemeral, since: int) -> list[str]:
    changed: list[str] = []
    for user_id, entry in reversed(ephemeral.presences.items()):
        if entry.position <= since:
            break
        if since or entry.presence != "offline":
            changed.append(user_id)
    return changed


def _share_a_room(tx: Reader, one: str, other: str) -> bool:
    return not state.joined_rooms(tx, one).isdisjoint(state.joined_rooms(tx, other))


def _event(ephemeral: Ephemeral, user_id: str) -> Json:
    shown = content(ephemeral, ephemeral.presences[user_id])
    return {"type": "m.presence", "sender": user_id, "content": shown}


def content(ephemeral: Ephemeral, entry: UserPresence) -> Json:
    """Return the content of m.presence."""
    shown: Json = {"presence": entry.presence}
    if entry.active_ms is not None:
        shown["last_active_ago"] = ephemeral.now_ms - entry.active_ms
    if entry.presence == "online":
        shown["currently_active"] = True
    if entry.status_msg is not None:
        shown["status_msg"] = entry.status_msg
    return shown


def _begin_sync(ephemeral: Ephemeral, user_id: str, device_id: str, presence: str) -> PresentDevice:
    with ephemeral.lock:
        entry, device = _device(ephemeral, user_id, device_id)
        if presence == "online" and not (
            device.presence == "online" and _counts(ephemeral, device)
        ):
            entry.active_ms = ephemeral.now_ms  # "changing presence state to online"
        device.presence = presence
        device.syncs += 1
        has_changed = _update(ephemeral, user_id, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content(ephemeral, entry))
    return device


def _end_sync(ephemeral: Ephemeral, user_id: str, device: PresentDevice) -> None:
    """End a request of a device, whose id may belong to another session by now."""
    with ephemeral.lock:
        device.syncs -= 1
        device.seen_ms = ephemeral.now_ms
        entry = ephemeral.presences.get(user_id)
        if entry is not None:
            _schedule(ephemeral, user_id, entry)


def _device(
    ephemeral: Ephemeral, user_id: str, device_id: str
) -> tuple[UserPresence, PresentDevice]:
    entry = ephemeral.presences.get(user_id)
    if entry is None:
        _evict(ephemeral)
        entry = _new_entry(ephemeral, user_id)
    entry.devices.pop(_BEFORE, None)
    return entry, entry.devices.setdefault(device_id, PresentDevice("offline"))


def _new_entry(ephemeral: Ephemeral, user_id: str) -> UserPresence:
    entry = ephemeral.presences[user_id] = UserPresence()
    ephemeral.presences.move_to_end(user_id, last=False)  # it has changed nothing yet
    return entry


def _evict(ephemeral: Ephemeral) -> None:
    """Remove the user who is offline for longest if there are too many, such as guests."""
    if len(ephemeral.presences) < MAX_USERS:
        return
    for user_id, entry in ephemeral.presences.items():
        if entry.presence == "offline" and not any(it.syncs for it in entry.devices.values()):
            del ephemeral.presences[user_id]
            return


def _counts(ephemeral: Ephemeral, device: PresentDevice) -> bool:
    return device.syncs > 0 or ephemeral.now_ms - device.seen_ms < OFFLINE_AFTER_MS


def _presence_now(ephemeral: Ephemeral, entry: UserPresence) -> str:
    said = {it.presence for it in entry.devices.values() if _counts(ephemeral, it)}
    if "online" in said:
        is_idle = ephemeral.now_ms - (entry.active_ms or 0) >= IDLE_AFTER_MS
        return "unavailable" if is_idle else "online"
    return "unavailable" if "unavailable" in said else "offline"


def _update(
    ephemeral: Ephemeral, user_id: str, entry: UserPresence, *, has_changed: bool = False
) -> bool:
    """Recompute the presence, and return whether it changed for others."""
    presence = _presence_now(ephemeral, entry)
    has_changed = has_changed or presence != entry.presence
    if has_changed:
        note_change(ephemeral, user_id, entry, presence)
    _schedule(ephemeral, user_id, entry)
    return has_changed


def _schedule(ephemeral: Ephemeral, user_id: str, entry: UserPresence) -> None:
    """Schedule a timer for the time when inactivity would next change the presence."""
    silent = [it for it in entry.devices.values() if not it.syncs and it.presence != "offline"]
    due = [it.seen_ms + OFFLINE_AFTER_MS for it in silent if _counts(ephemeral, it)]
    if entry.presence == "online":
        due.append((entry.active_ms or 0) + IDLE_AFTER_MS)
    if not due or any(timer_ms <= min(due) for timer_ms in entry.timers_ms):
        return
    due_ms = min(due)
    entry.timers_ms.add(due_ms)
    ephemeral.timers.call_at(due_ms, lambda: _check_due(ephemeral, user_id, entry, due_ms))


def _check_due(ephemeral: Ephemeral, user_id: str, entry: UserPresence, due_ms: int) -> None:
    with ephemeral.lock:
        entry.timers_ms.discard(due_ms)
        if entry.heard_ms is not None:  # restored, and then sent by the user's server
            return
        devices = entry.devices
        entry.devices = {name: it for name, it in devices.items() if _counts(ephemeral, it)}
        has_changed = _update(ephemeral, user_id, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content(ephemeral, entry))
