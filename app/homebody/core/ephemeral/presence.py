"""Who is online. Kept in memory (ephemeral.py), and for the next start in shown_presence.py.

Each device says of its user `online` or `unavailable`, by /sync or by hand, and counts while it has
a request for news open and for OFFLINE_AFTER_MS after. The user is online if one of the devices
says so and the user did something within IDLE_AFTER_MS, else unavailable, without devices offline.

Nothing of this is looked at in intervals: a change is worked out when a device says something, and
by a timer at the next moment at which silence would change it. Thousands of parked requests need no
timer at all, and a device that comes back for more news changes nothing, so nobody is woken.
`currently_active` is true as long as a user is online: what ends both is the idle timeout.

Presence is shown to who shares a room with the user.
Spec: client-server-api#presence
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from contextlib import contextmanager

from homebody import errors
from homebody.core.ephemeral.ephemeral import Ephemeral, Person, PresentDevice
from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.database import Reader

OFFLINE_AFTER_MS = 30_000
"""After the last request of the last device."""
IDLE_AFTER_MS = 300_000
"""After the user last did something."""
STATES = ("online", "unavailable", "offline")
MAX_STATUS_LENGTH = 1000
MAX_PEOPLE = 20_000
"""Of whom something is known, about 20 MB. Beyond it, who was offline for longest is forgotten."""
_BEFORE = "devices before the restart" * 10
"""Stands for them until one of them comes back; too long to be the id of a device."""


@contextmanager
def syncing(
    ephemeral: Ephemeral, user_id: str, device_id: str, set_presence: str = "online"
) -> Iterator[None]:
    """Count the device as present while the block runs, which answers its request for news.

    With `set_presence` "offline" the request says nothing about its user.
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
    """Let sessions that have ended count no longer, a little later: called inside a COMMIT."""
    if user_id in ephemeral.people:
        ephemeral.timers.call_at(ephemeral.now_ms, lambda: _drop(ephemeral, user_id, device_ids))


def _drop(ephemeral: Ephemeral, user_id: str, device_ids: Collection[str]) -> None:
    with ephemeral.lock:
        person = ephemeral.people.get(user_id)
        if person is None:
            return
        for device_id in device_ids:
            person.devices.pop(device_id, None)
        is_news = _settle(ephemeral, user_id, person)
    if is_news:
        ephemeral.wake_contacts(user_id, _content(ephemeral, person))


def set_status(
    ephemeral: Ephemeral, user_id: str, device_id: str, presence: str, status_msg: str | None
) -> None:
    """Let a device say how its user is, from now until it says otherwise.

    Raises M_INVALID_PARAM for an unknown state and a status that is too long.
    """
    if presence not in STATES:
        raise errors.invalid_param(f"presence must be one of {', '.join(STATES)}")
    if status_msg is not None and len(status_msg) > MAX_STATUS_LENGTH:
        raise errors.invalid_param(f"status_msg is longer than {MAX_STATUS_LENGTH} characters")
    if not ephemeral.has_presence:
        return
    with ephemeral.lock:
        person, device = _device(ephemeral, user_id, device_id)
        device.presence = presence
        device.seen_ms = person.active_ms = ephemeral.now_ms
        is_new_status = person.status_msg != status_msg
        person.status_msg = status_msg
        is_news = _settle(ephemeral, user_id, person, is_news=is_new_status)
    if is_news:
        ephemeral.wake_contacts(user_id, _content(ephemeral, person))


def note_activity(ephemeral: Ephemeral, user_id: str, device_id: str) -> None:
    """Note that a user has just done something; brings who was idle online again.

    Who is offline stays so: the user may have chosen that.
    """
    if user_id not in ephemeral.people:
        return
    with ephemeral.lock:
        person = ephemeral.people[user_id]
        if person.presence == "offline":
            return
        person.active_ms = ephemeral.now_ms
        device = person.devices.get(device_id)
        if device is not None and device.presence == "unavailable":
            device.presence = "online"
        is_news = _settle(ephemeral, user_id, person)
    if is_news:
        ephemeral.wake_contacts(user_id, _content(ephemeral, person))


def restore(
    ephemeral: Ephemeral, user_id: str, presence: str, status_msg: str | None, ago_ms: int | None
) -> None:
    """Take a user up again as others were shown them before a restart, for as long as usual.

    `ago_ms` is how long ago the user did something.
    """
    now_ms = ephemeral.now_ms
    with ephemeral.lock:
        person = Person(ephemeral.position, presence, status_msg)
        person.active_ms = None if ago_ms is None else now_ms - ago_ms
        person.devices[_BEFORE] = PresentDevice(presence, seen_ms=now_ms)
        ephemeral.people[user_id] = person
        _look_later(ephemeral, user_id, person)


def get(tx: Reader, ephemeral: Ephemeral, asker_id: str, user_id: str) -> Json:
    """How a user is, as GET shows it. Raises M_FORBIDDEN unless the two share a room."""
    if user_id != asker_id and not _share_a_room(tx, asker_id, user_id):
        raise errors.forbidden("You share no room with this user")
    with ephemeral.lock:
        return _content(ephemeral, ephemeral.people.get(user_id, Person()))


def since(
    tx: Reader,
    ephemeral: Ephemeral,
    user_id: str,
    since: int,
    came: Set[str] = frozenset(),
) -> list[Json]:
    """Return m.presence of the user and of everybody who shares a room with them, where it changed.

    Also of `came`, with whom the user has only now come to share a room, unless they are offline:
    their presence has not changed, but is new to this client. Since 0: of all who aren't offline.
    """
    since = ephemeral.seen(since)
    with ephemeral.lock:
        changed = _changed_since(ephemeral, since)
        wanted = [it for it in changed if it == user_id or _share_a_room(tx, user_id, it)]
        if since and came:
            people = ephemeral.people
            there = came & people.keys()
            new = (it for it in there.difference(wanted) if people[it].presence != "offline")
            wanted += sorted(new)
        return [_event(ephemeral, it) for it in wanted]


def _changed_since(ephemeral: Ephemeral, since: int) -> list[str]:
    changed: list[str] = []
    for user_id, person in reversed(ephemeral.people.items()):
        if person.position <= since:
            break
        if since or person.presence != "offline":
            changed.append(user_id)
    return changed


def _share_a_room(tx: Reader, one: str, other: str) -> bool:
    return not state.joined_rooms(tx, one).isdisjoint(state.joined_rooms(tx, other))


def _event(ephemeral: Ephemeral, user_id: str) -> Json:
    content = _content(ephemeral, ephemeral.people[user_id])
    return {"type": "m.presence", "sender": user_id, "content": content}


def _content(ephemeral: Ephemeral, person: Person) -> Json:
    content: Json = {"presence": person.presence}
    if person.active_ms is not None:
        content["last_active_ago"] = ephemeral.now_ms - person.active_ms
    if person.presence == "online":
        content["currently_active"] = True
    if person.status_msg is not None:
        content["status_msg"] = person.status_msg
    return content


def _begin_sync(ephemeral: Ephemeral, user_id: str, device_id: str, presence: str) -> PresentDevice:
    with ephemeral.lock:
        person, device = _device(ephemeral, user_id, device_id)
        if presence == "online" and not (
            device.presence == "online" and _counts(ephemeral, device)
        ):
            person.active_ms = ephemeral.now_ms  # "changing presence state to online"
        device.presence = presence
        device.syncs += 1
        is_news = _settle(ephemeral, user_id, person)
    if is_news:
        ephemeral.wake_contacts(user_id, _content(ephemeral, person))
    return device


def _end_sync(ephemeral: Ephemeral, user_id: str, device: PresentDevice) -> None:
    """Takes the device itself: its session may have ended meanwhile, and the name be another's."""
    with ephemeral.lock:
        device.syncs -= 1
        device.seen_ms = ephemeral.now_ms
        person = ephemeral.people.get(user_id)
        if person is not None:
            _look_later(ephemeral, user_id, person)


def _device(ephemeral: Ephemeral, user_id: str, device_id: str) -> tuple[Person, PresentDevice]:
    person = ephemeral.people.get(user_id)
    if person is None:
        _make_room(ephemeral)
        person = ephemeral.people[user_id] = Person()
        ephemeral.people.move_to_end(user_id, last=False)  # it has changed nothing yet
    person.devices.pop(_BEFORE, None)
    return person, person.devices.setdefault(device_id, PresentDevice("offline"))


def _make_room(ephemeral: Ephemeral) -> None:
    """Guests come and go, and each would stay."""
    if len(ephemeral.people) < MAX_PEOPLE:
        return
    for user_id, person in ephemeral.people.items():
        if person.presence == "offline" and not any(it.syncs for it in person.devices.values()):
            del ephemeral.people[user_id]
            return


def _counts(ephemeral: Ephemeral, device: PresentDevice) -> bool:
    return device.syncs > 0 or ephemeral.now_ms - device.seen_ms < OFFLINE_AFTER_MS


def _presence_now(ephemeral: Ephemeral, person: Person) -> str:
    said = {it.presence for it in person.devices.values() if _counts(ephemeral, it)}
    if "online" in said:
        is_idle = ephemeral.now_ms - (person.active_ms or 0) >= IDLE_AFTER_MS
        return "unavailable" if is_idle else "online"
    return "unavailable" if "unavailable" in said else "offline"


def _settle(ephemeral: Ephemeral, user_id: str, person: Person, *, is_news: bool = False) -> bool:
    """Whether there is something to tell others, after what may have changed."""
    presence = _presence_now(ephemeral, person)
    is_news = is_news or presence != person.presence
    if is_news:
        person.presence = presence
        person.position = ephemeral.next_position()
        ephemeral.note_unsaved(user_id)
        ephemeral.people.move_to_end(user_id)
    _look_later(ephemeral, user_id, person)
    return is_news


def _look_later(ephemeral: Ephemeral, user_id: str, person: Person) -> None:
    """Have a timer look when silence would next change something."""
    silent = [it for it in person.devices.values() if not it.syncs and it.presence != "offline"]
    due = [it.seen_ms + OFFLINE_AFTER_MS for it in silent if _counts(ephemeral, it)]
    if person.presence == "online":
        due.append((person.active_ms or 0) + IDLE_AFTER_MS)
    if not due or any(looked_at <= min(due) for looked_at in person.looked_at_ms):
        return
    due_ms = min(due)
    person.looked_at_ms.add(due_ms)
    ephemeral.timers.call_at(due_ms, lambda: _look(ephemeral, user_id, person, due_ms))


def _look(ephemeral: Ephemeral, user_id: str, person: Person, due_ms: int) -> None:
    with ephemeral.lock:
        person.looked_at_ms.discard(due_ms)
        devices = person.devices
        person.devices = {name: it for name, it in devices.items() if _counts(ephemeral, it)}
        is_news = _settle(ephemeral, user_id, person)
    if is_news:
        ephemeral.wake_contacts(user_id, _content(ephemeral, person))
