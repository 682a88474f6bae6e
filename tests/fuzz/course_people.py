"""Users who do all kinds of things in rooms, and checks of what their devices know."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from werkzeug.test import TestResponse

from homebody.web import Application
from tests.conftest import Person
from tests.fuzz import course_client, course_truth
from tests.fuzz.commits import Commits
from tests.fuzz.course_client import MESSAGE, Device, Habits, Known
from tests.fuzz.course_truth import MEMBER, Room

Json = dict[str, Any]
SETTINGS = ("shared", "joined", "invited", "world_readable")
RULES = ("public", "invite", "knock", "restricted")
LIMITS = (1, 2, 3, 5, None)
NAMES = ("alice", "bob", "carol")
MAX_ROOMS = 6
LOOKS = {"look", "lose", "look_for_all", "start_anew", "restart_server", "check", "peek"}
"""Steps that change nothing or make devices sync."""


@dataclass(frozen=True)
class Step:
    """One step; the numbers select user, room and parameters."""

    what: str
    who: int = 0
    room: int = 0
    value: int = 0


class World:
    """A server, its users with their devices, and a session of each user without stored data."""

    def __init__(self, app: Application, restart: Callable[[], Application]) -> None:
        self.app = app
        self._restart = restart
        self._commits = Commits(app.homeserver.database)
        self._peek_at: Step | None = None
        self.numbers = itertools.count()
        self.rooms: list[str] = []
        self.people: list[Person] = []
        self.devices: list[Device] = []
        self.viewers: dict[str, Person] = {}
        self.keys: dict[str, int] = {}
        self.sent: dict[tuple[str, str], list[str]] = {}
        """{(user, device): to-device messages}"""
        self.last_sent: tuple[Person, str, str] | None = None
        """(user, path, event ID) of the last message."""
        self.said: list[tuple[str, str]] = []
        """(room, event ID)"""
        self.dave: Person
        self.erased_at: int | None = None
        """The position at which Dave was erased."""

    def act(self, step: Step) -> None:
        """Run a step, allowed or not: the server must not fail."""
        if not step.what:
            return
        if self._peek_at is not None and step.what not in LOOKS:
            look = functools.partial(self._look, self._peek_at)
            self._commits.look_into_next(look, is_after=self._peek_at.value > 5)
            self._peek_at = None
        getattr(self, f"_{step.what}")(step)
        self._commits.finish()

    def check(self) -> None:
        """Check that every device has the right data after a sync."""
        truth = course_truth.read(self.app)
        for device in self.devices:
            self._look_with(device, None)
            for _ in self.sent.get((device.person.user_id, device.person.device_id), ()):
                if device.unacknowledged:  # an answer may not hold all of them
                    self._look_with(device, None)
            check(device, self, truth)

    # who and where

    def person(self, step: Step) -> Person:
        return self.people[step.who % len(self.people)]

    def room(self, step: Step) -> str:
        return self.rooms[step.room % len(self.rooms)]

    def path(self, step: Step) -> str:
        return f"rooms/{quote(self.room(step))}"

    def owner(self, step: Step) -> Person:
        """Return the user with the power in a room."""
        return self.people[step.room % len(self.rooms) % 2]

    def device(self, step: Step) -> Device:
        return self.devices[(step.who * 3 + step.room) % len(self.devices)]

    def sharing(self, user_id: str, truth: dict[str, Room] | None = None) -> set[str]:
        """Return the users who share a room with the user."""
        found: set[str] = set()
        for room in (truth or course_truth.read(self.app)).values():
            joined = {user for user, it in room.memberships.items() if it == "join"}
            if user_id in joined:
                found |= joined
        return found - {user_id}

    # what is said

    def _say(self, step: Step, who: Person | None = None, **content: Any) -> None:
        number = next(self.numbers)
        path = f"{self.path(step)}/send/m.room.message/{number}"
        who = who or self.person(step)
        body = {"msgtype": "m.text", "body": f"number {number}", **content}
        answer = fine(who.put(path, json=body))
        if answer:
            self.last_sent = (who, path, answer["event_id"])
            self.said.append((self.room(step), answer["event_id"]))

    def _repeat(self, _step: Step) -> None:
        if self.last_sent is not None:
            who, path, event_id = self.last_sent
            answer = fine(who.put(path, json={"msgtype": "m.text", "body": "again"}))
            assert answer is None or answer["event_id"] == event_id

    def _answer(self, step: Step) -> None:
        root = self._chosen(step)
        relation = {"rel_type": "m.thread", "event_id": root}
        self._say(step, None, **({"m.relates_to": relation} if root else {}))

    def _chosen(self, step: Step) -> str:
        """Return one of the last events of a room, or ""."""
        here = [event_id for room_id, event_id in self.said if room_id == self.room(step)]
        return here[-1 - step.value % 4 % len(here)] if here else ""

    def _redact(self, step: Step) -> None:
        if target := self._chosen(step):
            path = f"{self.path(step)}/redact/{quote(target)}/{next(self.numbers)}"
            fine(self.owner(step).put(path, json={}))

    def _redact_state(self, step: Step) -> None:
        event_type = ("m.room.name", "m.room.topic")[step.value % 2]
        self._redact_entry(step, event_type)

    def _redact_member(self, step: Step) -> None:
        self._redact_entry(step, f"{MEMBER}/{self.person(step).user_id}")

    def _redact_entry(self, step: Step, entry: str) -> None:
        """Redact an event of the room's current state that its owner can see."""
        query = {"format": "event"}
        owner = self.owner(step)
        found = owner.get(f"{self.path(step)}/state/{entry}", query_string=query)
        if fine(found):
            event_id = quote(found.get_json()["event_id"])
            fine(owner.put(f"{self.path(step)}/redact/{event_id}/{next(self.numbers)}", json={}))

    def _dave_says(self, step: Step) -> None:
        if self.erased_at is None:
            self._say(step, self.dave)

    def _erase_dave(self, _step: Step) -> None:
        if self.erased_at is None:
            body = {"erase": True, "auth": course_client.password_of(self.dave)}
            assert fine(self.dave.post("account/deactivate", json=body)) is not None
            self.erased_at = erased_position(self.app, self.dave)
            self.last_sent = None  # it may be Dave's, who repeats nothing after that

    # state

    def _set(self, step: Step, event_type: str, content: Json, state_key: str = "") -> None:
        fine(self.owner(step).set_state(self.room(step), event_type, content, state_key))

    def _topic(self, step: Step) -> None:
        self._set(step, "m.room.topic", {"topic": str(next(self.numbers))})

    def _entry(self, step: Step) -> None:
        content = {"v": next(self.numbers)}
        self._set(step, "org.example.x", content, str(step.value % 3))

    def _name(self, step: Step) -> None:
        name = f"Room {next(self.numbers)}" if step.value % 2 else ""
        self._set(step, "m.room.name", {"name": name})

    def _visibility(self, step: Step) -> None:
        setting = SETTINGS[step.value % len(SETTINGS)]
        self._set(step, "m.room.history_visibility", {"history_visibility": setting})

    def _join_rules(self, step: Step) -> None:
        rule = RULES[step.value % len(RULES)]
        allow = [{"type": "m.room_membership", "room_id": self.rooms[0]}]
        content: Json = {"join_rule": rule} | ({"allow": allow} if rule == "restricted" else {})
        self._set(step, "m.room.join_rules", content)

    def _upgrade(self, step: Step) -> None:
        if len(self.rooms) < MAX_ROOMS:
            body = {"new_version": ("10", "11", "12")[step.value % 3]}
            answer = fine(self.owner(step).post(f"{self.path(step)}/upgrade", json=body))
            if answer:
                self.rooms.append(answer["replacement_room"])

    # memberships

    def _by_owner(self, step: Step, what: str) -> None:
        body = {"user_id": self.person(step).user_id}
        fine(self.owner(step).post(f"{self.path(step)}/{what}", json=body))

    def _invite(self, step: Step) -> None:
        self._by_owner(step, "invite")

    def _kick(self, step: Step) -> None:
        self._by_owner(step, "kick")

    def _ban(self, step: Step) -> None:
        self._by_owner(step, "ban")

    def _unban(self, step: Step) -> None:
        self._by_owner(step, "unban")

    def _join(self, step: Step) -> None:
        fine(self.person(step).post(f"{self.path(step)}/join"))

    def _leave(self, step: Step) -> None:
        fine(self.person(step).post(f"{self.path(step)}/leave"))

    def _forget(self, step: Step) -> None:
        fine(self.person(step).post(f"{self.path(step)}/forget"))

    def _knock(self, step: Step) -> None:
        fine(self.person(step).post(f"knock/{quote(self.room(step))}"))

    def _displayname(self, step: Step) -> None:
        who = self.person(step)
        body = {"displayname": f"name {next(self.numbers)}"}
        fine(who.put(f"profile/{who.user_id}/displayname", json=body))

    def _nick(self, step: Step) -> None:
        who = self.person(step)
        content = {"membership": "join", "displayname": f"nick {next(self.numbers)}"}
        if fine(who.get(f"{self.path(step)}/joined_members")):
            fine(who.set_state(self.room(step), MEMBER, content, who.user_id))

    # what is not an event

    def _read(self, step: Step) -> None:
        kind = ("m.read", "m.read.private", "m.fully_read")[step.value % 3]
        if target := self._chosen(step):
            fine(self.person(step).post(f"{self.path(step)}/receipt/{kind}/{quote(target)}"))

    def _read_thread(self, step: Step) -> None:
        here = [event_id for room_id, event_id in self.said if room_id == self.room(step)]
        if target := self._chosen(step):
            root = ["main", *here][step.value % (len(here) + 1)]
            path = f"{self.path(step)}/receipt/m.read/{quote(target)}"
            fine(self.person(step).post(path, json={"thread_id": root}))

    def _account_data(self, step: Step) -> None:
        path = f"user/{self.person(step).user_id}/account_data/org.example.{step.value % 3}"
        fine(self.person(step).put(path, json={"v": next(self.numbers)}))

    def _room_data(self, step: Step) -> None:
        path = f"user/{self.person(step).user_id}/{self.path(step)}/account_data/org.example.r"
        fine(self.person(step).put(path, json={"v": next(self.numbers)}))

    def _tag(self, step: Step) -> None:
        who = self.person(step)
        path = f"user/{who.user_id}/{self.path(step)}/tags/u.{step.value % 2}"
        fine(who.put(path, json={"order": 0.5}) if step.value % 3 else who.delete(path))

    def _mute(self, step: Step) -> None:
        path = f"pushrules/global/room/{quote(self.room(step), safe='')}"
        fine(self.person(step).put(path, json={"actions": []}))

    def _to_device(self, step: Step) -> None:
        target = self.device(step).person
        everybody = step.value % 3 == 0
        number = str(next(self.numbers))
        address = "*" if everybody else target.device_id
        body = {"messages": {target.user_id: {address: {"n": number}}}}
        fine(self.person(step).put(f"sendToDevice/org.example.ping/{number}", json=body))
        for device in self.devices:
            it = device.person
            if it is target or (everybody and it.user_id == target.user_id):
                self.sent.setdefault((it.user_id, it.device_id), []).append(number)

    def _upload_keys(self, step: Step) -> None:
        who = self.device(step).person
        number = next(self.numbers)
        keys = {
            "user_id": who.user_id,
            "device_id": who.device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"ed25519:{who.device_id}": f"{number:043}"},
            "signatures": {who.user_id: {f"ed25519:{who.device_id}": "x"}},
        }
        self.keys[who.user_id] = number + 1  # before: another device may look as it is written
        assert fine(who.post("keys/upload", json={"device_keys": keys})) is not None

    # devices

    def _look(self, step: Step) -> None:
        self._look_with(self.device(step), LIMITS[step.value % len(LIMITS)])

    def _look_with(self, device: Device, limit: int | None, *, is_full: bool = False) -> None:
        answer = device.ask(limit, is_full=is_full)
        user_id = device.person.user_id
        device.take(answer, self.keys, self.sharing(user_id))

    def _peek(self, step: Step) -> None:
        """Have a device sync during the COMMIT of the next change."""
        self._peek_at = step

    def _lose(self, step: Step) -> None:
        """Lose a response: the device will use its old token again."""
        self.device(step).ask(LIMITS[step.value % len(LIMITS)], is_full=step.value > 9)

    def _look_for_all(self, step: Step) -> None:
        self._look_with(self.device(step), LIMITS[step.value % len(LIMITS)], is_full=True)

    def _start_anew(self, step: Step) -> None:
        self.device(step).start_anew()
        self._look(step)

    def _restart_server(self, _step: Step) -> None:
        self.app = self._restart()
        self._commits = Commits(self.app.homeserver.database)
        devices = (device.person for device in self.devices)
        for person in (*self.people, self.dave, *self.viewers.values(), *devices):
            person.client = self.app.test_client()

    def _forget_caches(self, _step: Step) -> None:
        database = self.app.homeserver.database
        with database.write():
            database.caches.clear(database.writer.last_position)

    def _check(self, _step: Step) -> None:
        self.check()


def fine(answer: TestResponse) -> Json | None:
    """Return the JSON, or None for an error response."""
    assert answer.status_code < 500, answer.get_json()
    assert answer.status_code not in {400, 401, 404, 405, 413} or answer.get_json()["errcode"] in {
        "M_NOT_FOUND",
        "M_UNKNOWN",
        "M_INVALID_PARAM",
    }, answer.get_json()
    body: Json | None = answer.get_json() if answer.status_code == 200 else None
    return body


def check(device: Device, world: World, truth: dict[str, Room]) -> None:
    """Check that a device that has just synced has the right data, and nothing else."""
    user_id = device.person.user_id
    everything: Json = {"room": {"include_leave": True, "timeline": {"limit": 100}}}
    if device.habits.by_thread:
        everything["room"]["timeline"]["unread_thread_notifications"] = True
    fresh = world.viewers[user_id].sync(filter=json.dumps(everything))
    address = (user_id, device.person.device_id)
    assert device.messages == world.sent.get(address, [])
    assert device.account_data == contents(fresh["account_data"])
    assert device.keys == {user: world.keys[user] for user in device.keys}
    assert device.keys.keys() - {user_id} == world.sharing(user_id, truth)
    assert device.not_room not in device.rooms
    for room_id, room in truth.items():
        if room_id != device.not_room:
            check_room(device, room_id, room, fresh["rooms"])
        if room_id in device.rooms and world.erased_at is not None:
            check_erased(device, room_id, room, world)


def check_room(device: Device, room_id: str, room: Room, fresh: Json) -> None:
    """Check the data of one room."""
    user_id = device.person.user_id
    known = device.rooms.get(room_id)
    membership = room.memberships.get(user_id)
    section = known.section if known else None
    told = device.ever_seen.get(room_id, set())
    own = {it.event_id for it in room.events if it.is_state and it.key == (MEMBER, user_id)}
    visible = room.visible(user_id)
    assert told <= own | {it.event_id for it in visible}, "told what it may not see"
    allowed = room.may_know_state(user_id) | own | {it.event_id for it in visible}
    assert device.state_told.get(room_id, set()) <= allowed, "told state that it may not know"
    if membership in {"join", "invite", "knock"}:
        assert section == membership
        assert room_id in fresh[membership]
    else:
        assert section in {"leave", None}
    if known is not None and section == "join":
        check_events(device, room_id, room)
        check_state(device.habits, known, room.state_at(10**9))
        check_rest(known, fresh["join"][room_id])
        check_contents(room, fresh["join"][room_id])
    elif known is not None and section == "leave" and room_id in fresh["leave"]:
        check_left(device, room_id, room)


def check_events(device: Device, room_id: str, room: Room) -> None:
    """Check that the timeline is complete."""
    user_id, wanted = device.person.user_id, device.habits.wants_only
    known = device.rooms[room_id]
    visible = [it for it in room.visible(user_id) if wanted in {"", it.pdu["type"]}]
    assert device.complete(room_id) == [it.event_id for it in visible]
    answer = device.person.get(
        f"rooms/{quote(room_id)}/messages", query_string={"dir": "b", "limit": 1000}
    ).get_json()
    there = [it for it in reversed(answer["chunk"]) if wanted in {"", it["type"]}]
    assert [it["event_id"] for it in there] == [it.event_id for it in visible]
    if not wanted:
        redacted = {it["event_id"] for it in there if "redacted_because" in it["unsigned"]}
        assert known.redacted() == redacted & set(known.ids)


def check_erased(device: Device, room_id: str, room: Room, world: World) -> None:
    """Check that Dave's messages are readable only by members from before his erasure."""
    user_id, upto = device.person.user_id, world.erased_at or 0
    answer = device.person.get(
        f"rooms/{quote(room_id)}/messages", query_string={"dir": "b", "limit": 1000}
    )
    chunk = answer.get_json()["chunk"] if answer.status_code == 200 else []
    shown = {event["event_id"]: event for event in chunk if event["type"] == MESSAGE}
    for event in room.events:
        told = shown.get(event.event_id)
        if told is None or told["sender"] != world.dave.user_id or not event.pdu["content"]:
            continue
        later = [it for it in room.events if event.position <= it.position < upto]
        was_there = any(it.memberships.get(user_id) == "join" for it in later)
        assert told["content"] == (event.pdu["content"] if was_there else {})


def check_contents(room: Room, fresh: Json) -> None:
    """Check that state has its current content, redacted if it was redacted."""
    for event in (*fresh["state"]["events"], *fresh["timeline"]["events"]):
        if "state_key" in event:
            stored = next(it for it in room.events if it.event_id == event["event_id"])
            assert event["content"] == stored.pdu["content"]


def check_state(habits: Habits, known: Known, state: dict[tuple[str, str], str]) -> None:
    """Check the state; with lazy-loading, members may be missing but not wrong."""
    found = {key: event["event_id"] for key, event in known.state.items()}
    if habits.is_lazy:
        state = {key: it for key, it in state.items() if key in found or key[0] != MEMBER}
    assert found == state


def check_rest(known: Known, fresh: Json) -> None:
    """Check everything that is not an event."""
    receipts = [it for it in fresh["ephemeral"]["events"] if it["type"] == "m.receipt"]
    there = dict(course_client.receipts(receipts[0])) if receipts else {}
    for (user_id, kind, thread), event_id in known.receipts.items():
        # m.receipt has one place for a user's receipts of one event, whatever their threads
        shown = {
            it for (user, of_kind, _), it in there.items() if (user, of_kind) == (user_id, kind)
        }
        assert event_id in shown
        assert there.setdefault((user_id, kind, thread), event_id) == event_id
    assert known.receipts.keys() == there.keys()
    assert known.account_data == contents(fresh["account_data"])
    assert known.counts == course_client.counts(fresh)
    summary = dict(known.summary)
    if "m.heroes" not in fresh["summary"]:
        summary.pop("m.heroes", None)
    assert summary == fresh["summary"]


def check_left(device: Device, room_id: str, room: Room) -> None:
    """Check that the device of a user who left has everything up to the leave."""
    user_id, wanted = device.person.user_id, device.habits.wants_only
    known = device.rooms[room_id]
    until = room.joined_until(user_id)
    own = (MEMBER, user_id)
    # also of an unban, or of a ban after the leave
    last = room.state[own].event_id
    assert known.state[own]["event_id"] == last, "does not know what the user is in the room"
    if not until:  # never was there
        return
    before = {it.event_id for it in room.visible(user_id) if it.position <= until}
    there = [
        it.event_id
        for it in room.events
        if it.event_id in before and wanted in {"", it.pdu["type"]}
    ]
    assert [
        it for it in device.complete(room_id) if it in there or (it in before and not wanted)
    ] == there
    state = room.state_at(until) | {own: last}
    if known.is_partial:
        state = {key: event_id for key, event_id in state.items() if key in known.state}
    check_state(device.habits, known, state)


def erased_position(app: Application, person: Person) -> int:
    """Return the position at which a user was erased."""
    with app.homeserver.database.read() as tx:
        query = "SELECT erased_position FROM accounts WHERE user_id = ?"
        return int(tx.sql.raw.execute(query, (person.user_id,)).fetchone()[0])


def contents(section: Json) -> Json:
    """Return {type: content} of account data."""
    return {event["type"]: event["content"] for event in section["events"]}
