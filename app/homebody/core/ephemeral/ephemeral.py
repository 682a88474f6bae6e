"""Ephemeral data, which is kept in memory: typing and presence.

These changes have their own counter, the second part of a sync token. It starts at the time of the
start in milliseconds, so that tokens from before a restart are older than any change after it.

This module has the data; `typing` and `presence` work on it while they hold `lock`. Changes wake
the members of rooms, who may see both.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from homebody.core.appservices import transactions
from homebody.core.ephemeral.timers import Clock, Timers
from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.database import Database
from homebody.storage.writer import Wake


@dataclass(slots=True)
class TypingRoom:
    """The users who are typing in a room."""

    position: int = 0
    """Position of the last change."""
    until_ms: dict[str, int] = field(default_factory=dict)
    """{user_id: when their typing times out}."""
    timer_ms: int | None = None
    """When a timer will check for timeouts."""
    changed_at: dict[str, int] = field(default_factory=dict)
    """{user_id: position at which they last began or stopped}."""
    device_ids: dict[str, str] = field(default_factory=dict)
    """{user_id: the device on which they typed last}."""
    sent_ms: dict[str, int] = field(default_factory=dict)
    """{local user: when other servers were last notified that they are typing}."""


@dataclass(slots=True)
class PresentDevice:
    """The presence that a device has set for its user."""

    presence: str
    syncs: int = 0
    """Number of open /sync requests."""
    seen_ms: int = 0
    """When it last had an open request, or set its presence."""


@dataclass(slots=True)
class UserPresence:
    """A user's presence."""

    position: int = 0
    """Position of the last change that was sent to others."""
    presence: str = "offline"
    """As last sent to others."""
    status_msg: str | None = None
    active_ms: int | None = None
    """When the user was last active."""
    devices: dict[str, PresentDevice] = field(default_factory=dict)
    timers_ms: set[int] = field(default_factory=set)
    """When timers will check whether the user has become idle or offline."""
    heard_ms: int | None = None
    """Of a user of another server: when it last sent their presence; None if it hasn't yet."""


def _nothing(*_args: object) -> None:
    """Do nothing: the default of Ephemeral.save and send_presence."""


def monotonic_ms() -> int:
    """Return the time of the monotonic clock in milliseconds."""
    return time.monotonic_ns() // 1_000_000


class Ephemeral:
    """Typing and presence with their counter. Only presence is kept over a restart."""

    def __init__(self, db: Database, wake: Wake, now_ms: Clock = monotonic_ms) -> None:
        self.position = self._began = time.time_ns() // 1_000_000
        self.has_presence = db.server.config.presence
        self.timers = Timers(now_ms)
        self.lock = threading.RLock()
        # Both ordered by their last change, so that recent changes are found without a search
        self.typing: OrderedDict[str, TypingRoom] = OrderedDict()
        self.typed_in: set[str] = set()
        """The rooms in which somebody types."""
        self.presences: OrderedDict[str, UserPresence] = OrderedDict()
        self.unsaved: set[str] = set()
        """Users whose presence was sent to others, but not saved yet."""
        self.save: Callable[[], None] = _nothing
        self.saved_after_ms = 0
        """Both set by shown_presence.py."""
        self.send_presence: Callable[[str, Json], None] = _nothing
        """Set by remote_presence.py: called with (user_id, content of m.presence) of changes of
        local users."""
        self._is_save_due = False
        self._db = db
        self._wake = wake

    @property
    def now_ms(self) -> int:
        """The time of the monotonic clock that all times in here refer to, not the time of day."""
        return self.timers.now_ms()

    def next_position(self) -> int:
        """Return the next position, for a change that /sync returns."""
        self.position += 1
        return self.position

    def seen(self, since: int) -> int:
        """Return the position that a token's second part stands for.

        A number that was not assigned yet is from an earlier run, when the clock was ahead.
        """
        return since if since <= self.position else self._began

    def is_of_earlier_run(self, since: int) -> bool:
        """Return whether a token is from before the server's start."""
        return since != 0 and not self._began <= since <= self.position

    def note_unsaved(self, user_id: str) -> None:
        """Schedule a user's presence to be saved soon, together with that of others."""
        self.unsaved.add(user_id)
        if not self._is_save_due and self.saved_after_ms:
            self._is_save_due = True
            self.timers.call_at(self.now_ms + self.saved_after_ms, self._save)

    def _save(self) -> None:
        self._is_save_due = False
        self.save()

    def wake_room(self, room_id: str, *, may_write: bool = True) -> None:
        """Wake the requests of the room's members after a change of typing.

        Application services are notified by a write, and by a timer unless `may_write`.
        """
        with self._db.read() as tx:
            self._wake([state.joined(tx, room_id).local])
        if may_write:
            self._note_typing(room_id)
        elif self._db.server.appservices.wants_ephemeral:
            self.timers.call_at(self.now_ms, lambda: self._note_typing(room_id))

    def _note_typing(self, room_id: str) -> None:
        room = self.typing.get(room_id)
        transactions.note_typing(self._db, room_id, [*room.until_ms] if room else [])

    def wake_contacts(self, user_id: str, content: Json) -> None:
        """Wake the requests of the user, and of users who share a room with them.

        `content` is the content of m.presence.
        """
        with self._db.read() as tx:
            rooms: Iterable[str] = state.joined_rooms(tx, user_id)
            self._wake([(user_id,), *(state.joined(tx, room_id).local for room_id in rooms)])
        transactions.note_presence(self._db, user_id, content)
        if self._db.server.is_local(user_id):
            self.send_presence(user_id, content)

    def send_typing(self, room_id: str, user_id: str, *, is_typing: bool) -> None:
        """Notify the other servers in the room that a local user is typing, or not any more."""
        if not self._db.server.is_local(user_id) or not self._db.server.config.federation:
            return
        with self._db.read() as tx:
            servers = state.joined(tx, room_id).servers.keys() - {tx.server.name}
        content = {"room_id": room_id, "user_id": user_id, "typing": is_typing}
        self._db.send_edu(servers, "m.typing", (room_id, user_id), content)

    def close(self) -> None:
        """Stop the timers, and save presence for the next start."""
        self.timers.close()
        self.save()
