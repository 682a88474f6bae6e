"""Events and rooms for tests of the spec: valid except for signatures, with short, fake ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from homebody.spec import event_auth
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_state import StateMap
from homebody.spec.room_versions import RoomVersion
from tests.spec import resolution

ALICE = "@alice:one.example"
BOB = "@bob:two.example"
CAROL = "@carol:three.example"
DAVE = "@dave:four.example"


def room_id(version: RoomVersion) -> str:
    return "!create" if version.has_privileged_creators else "!room:one.example"


def event(
    version: RoomVersion,
    event_type: str,
    sender: str,
    content: Json | None = None,
    state_key: str | None = None,
    *,
    event_id: str = "$event",
    prev: Sequence[str] = ("$before",),
    auth: Sequence[str] = (),
    depth: int = 10,
    ts: int = 1000,
    **other_keys: object,
) -> Event:
    """Return an event with these parts; ids in the tests have no server unless needed."""
    given = version.event_ids == "given"
    pdu: Json = {
        "type": event_type,
        "sender": sender,
        "content": {} if content is None else content,
        "depth": depth,
        "origin_server_ts": ts,
        "prev_events": [[id_, {}] for id_ in prev] if given else list(prev),
        "auth_events": [[id_, {}] for id_ in auth] if given else list(auth),
        "room_id": room_id(version),
        **other_keys,
    }
    if state_key is not None:
        pdu["state_key"] = state_key
    if version.has_privileged_creators and event_type == "m.room.create":
        del pdu["room_id"]
    return Event(event_id, pdu, version)


def create(version: RoomVersion, sender: str = ALICE, content: Json | None = None) -> Event:
    """Return a create event with this content and whatever the version requires."""
    least = {"room_version": version.name}
    if not version.has_creator_in_sender:
        least["creator"] = sender
    whole = least | (content or {})
    return event(version, "m.room.create", sender, whole, "", event_id="$create", prev=())


def member(
    version: RoomVersion,
    user_id: str,
    membership: str,
    sender: str | None = None,
    prev: Sequence[str] = ("$before",),
    **content: object,
) -> Event:
    """Return a change of membership, sent by the user unless `sender` is given."""
    content = {"membership": membership, **content}
    id_ = f"${membership} {user_id}"
    by = sender or user_id
    return event(version, "m.room.member", by, content, user_id, event_id=id_, prev=prev)


def state_of(*entries: Event) -> dict[StateKey, Event]:
    return {(entry.type, entry.state_key or ""): entry for entry in entries}


def room(
    version: RoomVersion,
    members: Mapping[str, str] | None = None,
    *,
    levels: Json | None = None,
    join_rule: str | None = "invite",
    created_with: Json | None = None,
) -> dict[StateKey, Event]:
    """Return the state of a room of Alice with these members, power levels and join rule."""
    entries = [create(version, content=created_with)]
    entries += [
        member(version, user_id, membership)
        for user_id, membership in {ALICE: "join", **(members or {})}.items()
    ]
    if levels is not None:
        entries.append(event(version, "m.room.power_levels", ALICE, levels, ""))
    if join_rule is not None:
        entries.append(event(version, "m.room.join_rules", ALICE, {"join_rule": join_rule}, ""))
    return state_of(*entries)


def allows(state: StateMap, event: Event) -> bool:
    """Return whether the event is allowed in that state."""
    try:
        event_auth.check(event, state)
    except AuthError:
        return False
    return True


@dataclass
class Room:
    """A room that grows event by event, with forks where `after` says so.

    Every event references auth events from the resolved state before it, which must allow it.
    """

    version: RoomVersion
    events: dict[str, Event] = field(default_factory=dict)
    states: dict[str, dict[StateKey, str]] = field(default_factory=dict)
    """After each event."""
    asked: int = 0
    """How often events were loaded."""

    def start(
        self, levels: Json | None = None, join_rule: str = "public", creator: str = ALICE
    ) -> Event:
        """Send the create event, the creator's join, power levels and join rule."""
        content: Json = {"room_version": self.version.name, "creator": creator}
        if self.version.has_creator_in_sender:
            del content["creator"]
        self.send(creator, "m.room.create", content, "", after=[])
        self.member(creator, "join")
        if levels is not None:
            self.send(creator, "m.room.power_levels", levels, "")
        return self.send(creator, "m.room.join_rules", {"join_rule": join_rule}, "")

    def send(
        self,
        sender: str,
        event_type: str,
        content: Json,
        state_key: str | None = None,
        *,
        after: Sequence[Event] | None = None,
        ts: int | None = None,
    ) -> Event:
        """Add an event after the last one or `after`. Raises AuthError."""
        new = self.intended(sender, event_type, content, state_key, after=after, ts=ts)
        before = self.state_after(*(self.events[id_] for id_ in new.prev_event_ids))
        event_auth.check(new, self.as_events(before))
        self.events[new.event_id] = new
        own = {} if state_key is None else {(event_type, state_key): new.event_id}
        self.states[new.event_id] = {**before, **own}
        return new

    def intended(
        self,
        sender: str,
        event_type: str,
        content: Json,
        state_key: str | None = None,
        *,
        after: Sequence[Event] | None = None,
        ts: int | None = None,
    ) -> Event:
        """Return the event that `send` would check and add."""
        number = len(self.events)
        prev = [list(self.events.values())[-1]] if after is None else after
        before = self.state_after(*prev)
        keys = event_auth.auth_types(self.version, event_type, state_key, sender, content)
        return event(
            self.version,
            event_type,
            sender,
            content,
            state_key,
            event_id=self._event_id(number, event_type, sender),
            prev=[e.event_id for e in prev],
            auth=[before[key] for key in keys if key in before],
            depth=1 + max((e.depth for e in prev), default=0),
            ts=1000 + number if ts is None else ts,
        )

    def member(
        self,
        sender: str,
        membership: str,
        target: str | None = None,
        after: Sequence[Event] | None = None,
        ts: int | None = None,
    ) -> Event:
        content = {"membership": membership}
        return self.send(sender, "m.room.member", content, target or sender, after=after, ts=ts)

    def levels(
        self,
        sender: str,
        users: Mapping[str, int],
        after: Sequence[Event] | None = None,
        ts: int | None = None,
        **named: object,
    ) -> Event:
        content = {"users": dict(users), **named}
        return self.send(sender, "m.room.power_levels", content, "", after=after, ts=ts)

    def topic(
        self, sender: str, text: str, after: Sequence[Event] | None = None, ts: int | None = None
    ) -> Event:
        return self.send(sender, "m.room.topic", {"topic": text}, "", after=after, ts=ts)

    def join_rule(self, sender: str, rule: str, after: Sequence[Event] | None = None) -> Event:
        return self.send(sender, "m.room.join_rules", {"join_rule": rule}, "", after=after)

    def state_after(self, *heads: Event, by: RoomVersion | None = None) -> dict[StateKey, str]:
        """Return the resolved state after these events, optionally by another version's
        algorithm."""
        states = [self.states[head.event_id] for head in heads]
        return self.resolve(states, by=by) if states else {}

    def resolve(
        self,
        states: Sequence[Mapping[StateKey, str]],
        *,
        by: RoomVersion | None = None,
        rejected: Collection[str] = (),
    ) -> dict[StateKey, str]:
        return resolution.resolve(by or self.version, states, self.events, rejected, load=self.load)

    def load(self, event_ids: Collection[str]) -> dict[str, Event]:
        self.asked += 1
        return {id_: self.events[id_] for id_ in event_ids if id_ in self.events}

    def as_events(self, state: Mapping[StateKey, str]) -> StateMap:
        return {key: self.events[id_] for key, id_ in state.items()}

    def _event_id(self, number: int, event_type: str, sender: str) -> str:
        if self.version.has_privileged_creators and event_type == "m.room.create":
            return "$create"
        server = sender.partition(":")[2]
        return f"${number:03} {event_type}" + (
            f":{server}" if self.version.event_ids == "given" else ""
        )
