"""A client that follows the specification: it stores what /sync returns and pages through gaps.

Spec: client-server-api#syncing, client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.conftest import PASSWORD, Person

Json = dict[str, Any]
Key = tuple[str, str]
MEMBER = "m.room.member"
MESSAGE = "m.room.message"
EMPTY: Json = {"events": []}


@dataclass(frozen=True)
class Habits:
    """How a client makes its requests."""

    is_lazy: bool = False
    has_state_after: bool = False
    by_thread: bool = False
    wants_only: str = ""
    """The only type of event that it wants in timelines; "": all of them."""
    not_room: int | None = None
    """A room that its filter excludes."""
    include_leave: bool = False


@dataclass
class Known:
    """The client's data about one room."""

    section: str
    timeline: list[Json] = field(default_factory=list)
    """Events without a gap between them."""
    earlier: str | None = None
    """The token for paging to earlier events."""
    state: dict[Key, Json] = field(default_factory=dict)
    receipts: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """{(user, type, thread): event ID}"""
    account_data: dict[str, Json] = field(default_factory=dict)
    counts: Json = field(default_factory=dict)
    summary: Json = field(default_factory=dict)
    is_partial: bool = False
    """The room only appeared because of a change of the user's membership after the leave."""

    @property
    def ids(self) -> list[str]:
        return [event["event_id"] for event in self.timeline]

    def redacted(self) -> set[str]:
        """Ids of the events of the timeline that are redacted."""
        ids = set(self.ids)
        found = {
            target
            for event in self.timeline
            if event["type"] == "m.room.redaction"
            and (target := event["content"].get("redacts", event.get("redacts"))) in ids
        }
        marked = (it for it in self.timeline if "redacted_because" in it.get("unsigned", {}))
        return found | {event["event_id"] for event in marked}


class Device:
    """One device of a person, with its data."""

    def __init__(self, person: Person, habits: Habits) -> None:
        self.person = person
        self.habits = habits
        self.not_room = ""
        self.token: str | None = None
        self.rooms: dict[str, Known] = {}
        self.account_data: dict[str, Json] = {}
        self.messages: list[str] = []
        """Received to-device messages."""
        self.unacknowledged: list[str] = []
        self.keys: dict[str, int] = {}
        """{user: the version of their keys that the client has}"""
        self.state_told: dict[str, set[str]] = {}
        """{room: ids of all state events that ever came outside of a timeline}"""
        self.ever_seen: dict[str, set[str]] = {}
        """{room: ids of all events that ever came in a timeline}"""

    def start_anew(self) -> None:
        """Delete all data, as after "clear cache and reload"."""
        self.token = None
        self.rooms, self.account_data, self.keys = {}, {}, {}
        gone = len(self.messages) - len(self.unacknowledged)
        self.messages, self.unacknowledged = self.messages[:gone], []

    def ask(self, limit: int | None = None, *, is_full: bool = False) -> Json:
        """Request /sync and return the response."""
        query: Json = {"filter": json.dumps(self._filter(limit))}
        if self.token is not None:  # the token acknowledges them, even if the response is lost
            self.unacknowledged = []
        if is_full:
            query["full_state"] = "true"
        if self.habits.has_state_after:
            query["use_state_after"] = "true"
        return self.person.sync(self.token, **query)

    def take(self, answer: Json, keys: dict[str, int], sharing: set[str]) -> None:
        """Store a response. `keys` are those that /keys/query would return now."""
        is_first = self.token is None
        rooms = answer["rooms"]
        sections = [set(rooms[name]) for name in ("join", "invite", "knock", "leave")]
        assert sum(map(len, sections)) == len(set().union(*sections))
        for room_id, entry in rooms["join"].items():
            self._take_room(room_id, entry, "join")
        for room_id, entry in rooms["leave"].items():
            self._take_room(room_id, entry, "leave")
        for name in ("invite", "knock"):
            for room_id, entry in rooms[name].items():
                self.rooms[room_id] = known = Known(name)
                for event in entry[f"{name}_state"]["events"]:
                    known.state[event["type"], event["state_key"]] = event
        self.account_data |= {
            event["type"]: event["content"] for event in answer["account_data"]["events"]
        }
        self.unacknowledged = [it["content"]["n"] for it in answer["to_device"]["events"]]
        self.messages += self.unacknowledged
        self._take_keys(answer["device_lists"], keys, sharing, is_first=is_first)
        self.token = answer["next_batch"]

    def complete(self, room_id: str) -> list[str]:
        """Return the ids of all events of the room that this client can read."""
        known = self.rooms[room_id]
        if known.earlier is None:
            return known.ids
        found, _ = self._page_back(room_id, known.earlier, set())
        return [event["event_id"] for event in found] + known.ids

    def _filter(self, limit: int | None) -> Json:
        timeline: Json = {}
        if limit is not None:
            timeline["limit"] = limit
        if self.habits.by_thread:
            timeline["unread_thread_notifications"] = True
        if self.habits.wants_only:
            timeline["types"] = [self.habits.wants_only]
        room: Json = {"timeline": timeline, "state": {"lazy_load_members": self.habits.is_lazy}}
        if self.habits.include_leave:
            room["include_leave"] = True
        if self.not_room:
            room["not_rooms"] = [self.not_room]
        return {"room": room}

    def _take_room(self, room_id: str, entry: Json, section: str) -> None:
        known = self.rooms.get(room_id)
        is_other = known is None or known.section not in {"join", "leave"}
        if known is None or is_other or (known.section, section) == ("leave", "join"):
            is_partial = section == "leave" and not entry["timeline"]["limited"]
            known = self.rooms[room_id] = Known(section)
            known.is_partial = is_partial and self.token is not None
        known.section = section
        self._take_events(room_id, known, entry)
        for event in entry.get("ephemeral", EMPTY)["events"]:
            if event["type"] == "m.receipt":
                known.receipts |= dict(receipts(event))
        known.account_data |= {
            event["type"]: event["content"] for event in entry.get("account_data", EMPTY)["events"]
        }
        if section == "join":
            known.counts = counts(entry)
            known.summary |= entry["summary"]
            if self.habits.is_lazy:
                self._must_know_who(known, entry)

    def _take_events(self, room_id: str, known: Known, entry: Json) -> None:
        timeline = entry["timeline"]["events"]
        is_after = self.habits.has_state_after
        assert ("state" in entry) != is_after
        section = entry["state_after" if is_after else "state"]["events"]
        self.state_told.setdefault(room_id, set()).update(it["event_id"] for it in section)
        self.ever_seen.setdefault(room_id, set()).update(it["event_id"] for it in timeline)
        for event in [*section, *([] if is_after else timeline)]:
            if "state_key" in event:
                known.state[event["type"], event["state_key"]] = event
        is_start = not known.timeline and known.earlier is None
        if entry["timeline"]["limited"] and not is_start:
            gap, is_closed = self._page_back(room_id, entry["timeline"]["prev_batch"], {*known.ids})
            overlaps = {event["event_id"] for event in timeline} & {*known.ids}
            if is_closed and not overlaps:
                known.timeline += gap
            else:
                known.timeline, known.earlier = [], entry["timeline"]["prev_batch"]
        elif is_start:
            known.earlier = entry["timeline"]["prev_batch"]
        new = [event["event_id"] for event in timeline]
        assert len(set(new)) == len(new)
        assert not set(new) & set(known.ids), "told twice"
        known.timeline += timeline

    def _page_back(self, room_id: str, start: str, until: set[str]) -> tuple[list[Json], bool]:
        """Return (events before a token back to a known one, oldest first; whether one was
        found)."""
        found: list[Json] = []
        token: str | None = start
        query: Json = {"dir": "b", "limit": 4}
        if self.habits.wants_only:
            query["filter"] = json.dumps({"types": [self.habits.wants_only]})
        while token is not None:
            answer = self.person.get(
                f"rooms/{quote(room_id)}/messages", query_string=query | {"from": token}
            )
            if answer.status_code == 403:
                break
            page = answer.get_json()
            for event in page["chunk"]:
                if event["event_id"] in until:
                    return found[::-1], True
                found.append(event)
            token = page.get("end")
        return found[::-1], False

    def _must_know_who(self, known: Known, entry: Json) -> None:
        """Check that senders, heroes and the user's own membership are known."""
        for event in entry["timeline"]["events"]:
            assert (MEMBER, event["sender"]) in known.state, "a sender whom nobody knows"
        assert (MEMBER, self.person.user_id) in known.state
        for hero in known.summary.get("m.heroes", ()):
            assert (MEMBER, hero) in known.state, "a hero whom nobody knows"

    def _take_keys(
        self, told: Json, keys: dict[str, int], sharing: set[str], *, is_first: bool
    ) -> None:
        if is_first:
            self.keys = {user_id: keys[user_id] for user_id in sharing}
        for user_id in told["changed"]:
            self.keys[user_id] = keys[user_id]
        for user_id in told["left"]:
            self.keys.pop(user_id, None)


def receipts(event: Json) -> list[tuple[tuple[str, str, str], str]]:
    """Return ((user, type, thread), event ID) of all receipts in an m.receipt."""
    return [
        ((user_id, kind, receipt.get("thread_id", "")), event_id)
        for event_id, kinds in event["content"].items()
        for kind, users in kinds.items()
        for user_id, receipt in users.items()
    ]


def counts(entry: Json) -> Json:
    """Return the unread counts of a room in a response."""
    names = ("unread_notifications", "unread_thread_notifications")
    return {name: entry[name] for name in names if name in entry}


def password_of(person: Person) -> Json:
    """Return the `auth` by which a person proves their password."""
    identifier = {"type": "m.id.user", "user": person.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
