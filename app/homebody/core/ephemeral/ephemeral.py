"""What is true for moments only, and kept in memory: who is typing, who is online.

These changes have a counter of their own, the second part of a sync token. It starts at the time of
the start in milliseconds, so that tokens from before a restart are older than anything after it.

This is the data; `typing` and `presence` are the two modules that work on it, and they hold `lock`
while they do. Who is woken is told by rooms: the people in them may see both.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from homebody.core.appservices import transactions
from homebody.core.ephemeral.timers import Clock, Timers, monotonic_ms
from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.database import Database, Wake


@dataclass(slots=True)
class TypingRoom:
    """Who is typing in a room."""

    position: int = 0
    """Of the last change."""
    until_ms: dict[str, int] = field(default_factory=dict)
    """When each of them will be taken to have stopped."""
    looked_at_ms: int | None = None
    """When a timer will look whether somebody has."""
    changed_at: dict[str, int] = field(default_factory=dict)
    """The position at which each of them last began or stopped."""
    device_ids: dict[str, str] = field(default_factory=dict)
    """On which device each of them typed last."""


@dataclass(slots=True)
class PresentDevice:
    """What a session says of its user."""

    presence: str
    syncs: int = 0
    """How many requests for news it has open."""
    seen_ms: int = 0
    """When it last had one, or spoke up."""


@dataclass(slots=True)
class UserPresence:
    """A user's presence."""

    position: int = 0
    """Of the last change that others were told of."""
    presence: str = "offline"
    """As others were told."""
    status_msg: str | None = None
    active_ms: int | None = None
    """When the user last did something."""
    devices: dict[str, PresentDevice] = field(default_factory=dict)
    looked_at_ms: set[int] = field(default_factory=set)
    """When timers will look whether the user has become idle or gone."""


def _nothing() -> None:
    """Where nothing is kept for the next start."""


class Ephemeral:
    """The counter, and what changed when. Of all this only presence outlives a restart."""

    def __init__(self, db: Database, wake: Wake, now_ms: Clock = monotonic_ms) -> None:
        self.position = self._began = time.time_ns() // 1_000_000
        self.has_presence = db.server.config.presence
        self.timers = Timers(now_ms)
        self.lock = threading.RLock()
        # Both with the last changed at the end, so that what is new is found without a search
        self.typing: OrderedDict[str, TypingRoom] = OrderedDict()
        self.presences: OrderedDict[str, UserPresence] = OrderedDict()
        self.unsaved: set[str] = set()
        """Users whose presence is not yet in the database as others were shown it."""
        self.save: Callable[[], None] = _nothing
        self.saved_after_ms = 0
        """Both set by shown_presence.py."""
        self._is_save_due = False
        self._db = db
        self._wake = wake

    @property
    def now_ms(self) -> int:
        """The time of the clock that all in here is measured by; not the time of day."""
        return self.timers.now_ms()

    def next_position(self) -> int:
        """The next number, for a change that /sync shows."""
        self.position += 1
        return self.position

    def seen(self, since: int) -> int:
        """Up to where the client of a token has seen, by the token's second part.

        A number that was not given out yet is of an earlier run, when the clock was ahead of ours.
        """
        return since if since <= self.position else self._began

    def is_of_earlier_run(self, since: int) -> bool:
        """Whether a token is from before the server's start, when this knew other things."""
        return since != 0 and not self._began <= since <= self.position

    def note_unsaved(self, user_id: str) -> None:
        """Have a user's presence written soon, together with that of others."""
        self.unsaved.add(user_id)
        if not self._is_save_due and self.saved_after_ms:
            self._is_save_due = True
            self.timers.call_at(self.now_ms + self.saved_after_ms, self._save)

    def _save(self) -> None:
        self._is_save_due = False
        self.save()

    def wake_room(self, room_id: str, *, may_write: bool = True) -> None:
        """Let the requests of the room's members look again, as somebody types or has stopped.

        Application services hear of it by a write, and where none may be made, a little later.
        """
        with self._db.read() as tx:
            self._wake([state.joined_users(tx, room_id)])
        if may_write:
            self._note_typing(room_id)
        elif self._db.server.appservices.wants_ephemeral:
            self.timers.call_at(self.now_ms, lambda: self._note_typing(room_id))

    def _note_typing(self, room_id: str) -> None:
        room = self.typing.get(room_id)
        transactions.note_typing(self._db, room_id, [*room.until_ms] if room else [])

    def wake_contacts(self, user_id: str, content: Json) -> None:
        """Let the requests of the user, and of who shares a room with them, look again.

        `content` is how the user is now, as m.presence tells it.
        """
        with self._db.read() as tx:
            rooms: Iterable[str] = state.joined_rooms(tx, user_id)
            self._wake([(user_id,), *(state.joined_users(tx, room_id) for room_id in rooms)])
        transactions.note_presence(self._db, user_id, content)

    def close(self) -> None:
        """Let no timer run any more, and write what is to outlive the process."""
        self.timers.close()
        self.save()
