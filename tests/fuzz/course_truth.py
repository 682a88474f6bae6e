"""The expected state of rooms, derived from the list of their events according to the spec.

The events of one server have a total order, so the state after an event is what the events up to it
have set. Nothing but the table of events is used.
Spec: client-server-api#room-history-visibility
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from homebody.web import Application

Json = dict[str, Any]
Key = tuple[str, str]
MEMBER = "m.room.member"
VISIBILITY: Key = ("m.room.history_visibility", "")


@dataclass
class Event:
    """One event, and the state just after it."""

    position: int
    event_id: str
    pdu: Json
    setting: str
    """The history visibility."""
    setting_before: str
    memberships: dict[str, str]
    """After it."""
    memberships_before: dict[str, str]

    @property
    def is_state(self) -> bool:
        return "state_key" in self.pdu

    @property
    def key(self) -> Key:
        return self.pdu["type"], self.pdu["state_key"]


@dataclass
class Room:
    """All events of a room, oldest first."""

    events: list[Event] = field(default_factory=list)
    state: dict[Key, Event] = field(default_factory=dict)

    @property
    def memberships(self) -> dict[str, str]:
        return self.events[-1].memberships if self.events else {}

    def add(self, position: int, event_id: str, pdu: Json) -> None:
        before = self.events[-1] if self.events else None
        setting = before.setting if before else "shared"
        memberships = before.memberships if before else {}
        event = Event(position, event_id, pdu, setting, setting, memberships, memberships)
        if event.is_state:
            self.state = {**self.state, event.key: event}
            if event.key == VISIBILITY:
                event.setting = pdu["content"].get("history_visibility", "shared")
            if event.key[0] == MEMBER:
                event.memberships = {**memberships, event.key[1]: pdu["content"]["membership"]}
        self.events.append(event)

    def joined_until(self, user_id: str) -> int:
        """Return the position of the user's last leave; 0: never joined, very large: still
        joined."""
        until = 0
        for event in self.events:
            was = event.memberships_before.get(user_id) == "join"
            if was:
                until = event.position
        return 10**9 if self.memberships.get(user_id) == "join" else until

    def visible(self, user_id: str) -> list[Event]:
        """Return the events visible to the user, oldest first."""
        until = self.joined_until(user_id)
        return [event for event in self.events if _is_visible(event, user_id, until)]

    def state_at(self, position: int) -> dict[Key, str]:
        """Return {key: event ID} after this position."""
        return {
            it.key: it.event_id for it in self.events if it.is_state and it.position <= position
        }

    def may_know_state(self, user_id: str) -> set[str]:
        """Return the ids of state events that were current while the user was in the room."""
        until = self.joined_until(user_id)
        return {it.event_id for it in self.events if it.is_state and it.position <= until}


def _is_visible(event: Event, user_id: str, joined_until: int) -> bool:
    pairs = [(event.setting, event.memberships.get(user_id))]
    if event.is_state and event.key == VISIBILITY:
        pairs.append((event.setting_before, event.memberships.get(user_id)))
    if event.is_state and event.key == (MEMBER, user_id):
        pairs.append((event.setting, event.memberships_before.get(user_id)))
    return any(
        setting == "world_readable"
        or membership == "join"
        or (setting == "shared" and event.position < joined_until)
        or (setting == "invited" and membership == "invite")
        for setting, membership in pairs
    )


def read(app: Application) -> dict[str, Room]:
    """Return all rooms of a server."""
    rooms: dict[str, Room] = {}
    with app.homeserver.database.read() as tx:
        query = "SELECT position, event_id, room_id, pdu FROM events ORDER BY position"
        for position, event_id, room_id, pdu in tx.sql.raw.execute(query).fetchall():
            rooms.setdefault(room_id, Room()).add(position, event_id, json.loads(pdu))
    return rooms
