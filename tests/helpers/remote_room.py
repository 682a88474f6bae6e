"""A room as a scripted remote server knows it: its events, and the state after each of them.

Events are built and signed with homebody's own `spec/`, whose results are compared with published
vectors and with other implementations elsewhere. Nothing here decides whether an event is allowed,
so that tests can make events that are not; build those with `add=False`, or the remote takes them
for part of the room:

    room.message(depth=2**53, add=False)
    room.message(prev=["$" + "x" * 43] * 21, add=False)
    room.message(auth_events=[], room_id="!other:b.test", add=False)
    room.message(sender="@alice:localhost", add=False)      # signed by the remote
    room.event("m.room.message", {"n": 1.5}, add=False)
    with_wrong_hash(event, body="…"), with_wrong_signature(event, "b.test")

What no JSON library would write is sent as bytes, `b.put("v1", "send", "t1", body=b"…1e999…")`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from homebody.spec import event_auth, events, signing
from homebody.spec.events import Event, StateKey
from homebody.spec.room_versions import VERSIONS, RoomVersion
from tests.spec import full_state_resolution

if TYPE_CHECKING:
    from tests.helpers.remote import Remote

Json = dict[str, Any]
State = dict[StateKey, Event]
CREATE = ("m.room.create", "")


class RemoteRoom:
    """A room that a remote server has made, or joined."""

    _numbers = itertools.count(1)

    def __init__(self, remote: Remote, version: str, creator: str, room_id: str = "") -> None:
        self.remote = remote
        self.version: RoomVersion = VERSIONS[version]
        self.creator = creator
        self.id = room_id
        self.events: dict[str, Event] = {}
        self.heads: list[str] = []
        """The forward extremities."""
        self.hidden: set[str] = set()
        """Ids of events that the remote pretends not to have."""
        self._states: dict[str, State] = {}

    # building events

    def event(
        self,
        event_type: str,
        content: Json | None = None,
        state_key: str | None = None,
        *,
        sender: str = "",
        prev: Iterable[Event | str] | None = None,
        by: Remote | None = None,
        add: bool = True,
        **changes: Any,
    ) -> Event:
        """Build, sign and add an event, and return it. Nothing is sent.

        `sender`: a user ID or a localpart of the remote; by default the room's creator.
        `prev`: the events to follow, by default all extremities. An older one makes a fork, and the
        next event merges. `by`: the remote that signs. `add=False`: the room goes on without it.
        `changes`: keys of the PDU to set before it is hashed and signed, such as `depth=2**53`.
        """
        with self.remote.lock:  # an event may be received meanwhile
            pdu = self.unsigned_event(
                event_type, content, state_key, sender=sender, prev=prev, by=by, **changes
            )
            return self.sign(pdu, by=by, add=add)

    def unsigned_event(
        self,
        event_type: str,
        content: Json | None = None,
        state_key: str | None = None,
        *,
        sender: str = "",
        prev: Iterable[Event | str] | None = None,
        by: Remote | None = None,
        **changes: Any,
    ) -> Json:
        """Build an event without hashes and signatures, as make_join returns it."""
        content = {} if content is None else content
        sender = (by or self.remote).user_id(sender) if sender else self.creator
        ids = self.heads if prev is None else [_id(it) for it in prev]
        state = self.state_after(ids)
        keys = event_auth.auth_types(self.version, event_type, state_key, sender, content)
        is_create = event_type == "m.room.create"
        pdu = events.build(
            self.version,
            room_id=None if is_create and self.version.has_privileged_creators else self.id,
            sender=sender,
            event_type=event_type,
            content=content,
            state_key=state_key,
            auth_events=self._references(state[key].event_id for key in keys if key in state),
            prev_events=self._references(ids),
            depth=1 + max((self.events[it].depth for it in ids if it in self.events), default=0),
            origin_server_ts=int(time.time() * 1000),
            event_id=self._given_id(by or self.remote),
        )
        return {**pdu, **changes}

    def sign(self, pdu: Json, *, by: Remote | None = None, add: bool = True) -> Event:
        """Hash and sign an event, and add it unless the test says otherwise."""
        signer = by or self.remote
        event_id, signed = signing.add_hashes_and_signatures(
            pdu, self.version, signer.name, signer.key
        )
        event = Event(event_id, signed, self.version)
        if add:
            self.add(event)
        return event

    def message(self, body: str = "hello", **options: Any) -> Event:
        """Build a text message."""
        return self.event("m.room.message", {"msgtype": "m.text", "body": body}, **options)

    def member(self, user: str, membership: str, **options: Any) -> Event:
        """Build a change of membership, by the user unless there is a `sender`."""
        user_id = (options.get("by") or self.remote).user_id(user)
        options.setdefault("sender", user_id)
        content = {"membership": membership, **options.pop("content", {})}
        return self.event("m.room.member", content, user_id, **options)

    def crowd(self, count: int) -> list[str]:
        """Have many users join, 10,000 in a second or two, and return their user IDs.

        The states between their joins are not kept, so the remote can't serve those.
        """
        (last,), state = self.heads, dict(self.state)
        user_ids: list[str] = []
        for number in range(count):
            event = self.member(f"user{number}", "join", add=False)
            self._states.pop(last if user_ids else "", None)
            last, state[_key(event)] = event.event_id, event
            self.events[last], self._states[last], self.heads = event, state, [last]
            user_ids.append(event.sender)
        return user_ids

    def set_state(self, event_type: str, content: Json, **options: Any) -> Event:
        """Build a state event with an empty state key."""
        return self.event(event_type, content, "", **options)

    def _given_id(self, remote: Remote) -> str | None:
        if self.version.event_ids != "given":
            return None
        return f"${next(self._numbers)}:{remote.name}"

    def _references(self, ids: Iterable[str]) -> list[Any]:
        if self.version.event_ids != "given":
            return list(ids)
        return [
            signing.reference(self.events[it].pdu, self.version)
            if it in self.events
            else [it, {"sha256": "A" * 43}]
            for it in ids
        ]

    # what the room has

    def add(self, event: Event) -> None:
        """Make an event part of the room, as its newest."""
        self.events[event.event_id] = event
        before = self.state_after(event.prev_event_ids)
        is_state = event.state_key is not None
        self._states[event.event_id] = {**before, _key(event): event} if is_state else before
        followed = set(event.prev_event_ids)
        self.heads = [it for it in self.heads if it not in followed] + [event.event_id]

    def receive(self, pdu: Json) -> Event:
        """Add an event from another server, unless it is there already."""
        event = Event(signing.event_id_of(pdu, self.version), pdu, self.version)
        if event.event_id not in self.events:
            self.add(event)
        return event

    def load(self, state: Iterable[Json], auth_chain: Iterable[Json], joined: Json) -> None:
        """Begin with the response of send_join, and the join as the only extremity."""
        for pdu in (*auth_chain, *state):
            event = Event(signing.event_id_of(pdu, self.version), pdu, self.version)
            self.events[event.event_id] = event
        ids = [signing.event_id_of(pdu, self.version) for pdu in state]
        before = {_key(self.events[it]): self.events[it] for it in ids}
        event = Event(signing.event_id_of(joined, self.version), joined, self.version)
        self.events[event.event_id] = event
        self._states[event.event_id] = {**before, _key(event): event}
        self.heads = [event.event_id]

    def state_after(self, ids: Sequence[str]) -> State:
        """Return the state after these events, resolved if they are on different branches."""
        known = [self._states[it] for it in ids if it in self._states]
        if len(known) < 2 or all(state is known[0] for state in known):
            return known[0] if known else {}
        states = [{key: event.event_id for key, event in state.items()} for state in known]
        merged = full_state_resolution.resolve(self.version, states, self._load)
        return {key: self.events[event_id] for key, event_id in merged.items()}

    def _load(self, ids: Collection[str]) -> dict[str, Event]:
        return {event_id: self.events[event_id] for event_id in ids if event_id in self.events}

    @property
    def state(self) -> State:
        """The current state."""
        return self.state_after(self.heads)

    def content(self, event_type: str, state_key: str = "") -> Json | None:
        """Return the content of an entry of the current state."""
        entry = self.state.get((event_type, state_key))
        return None if entry is None else entry.content

    def membership(self, user: str) -> str:
        """Return the membership of a user, "leave" if there is none."""
        content = self.content("m.room.member", self.remote.user_id(user)) or {}
        return str(content.get("membership", "leave"))

    def servers(self) -> set[str]:
        """Return the servers with joined users."""
        return {
            key[1].split(":", 1)[1]
            for key, event in self.state.items()
            if key[0] == "m.room.member" and event.content.get("membership") == "join"
        }

    def auth_chain(self, of: Iterable[Event]) -> list[Event]:
        """Return the auth events of these events, and theirs, oldest first."""
        found: dict[str, Event] = {}
        waiting = [it for event in of for it in event.auth_event_ids]
        while waiting:
            event_id = waiting.pop()
            if event_id in self.events and event_id not in found:
                found[event_id] = self.events[event_id]
                waiting += self.events[event_id].auth_event_ids
        return sorted(found.values(), key=lambda event: event.depth)

    def before(self, ids: Iterable[str], limit: int, without: Collection[str] = ()) -> list[Event]:
        """Return these events and those before them, newest first; hidden ones are left out."""
        found: dict[str, Event] = {}
        waiting = list(ids)
        while waiting and len(found) < limit:
            event_id = waiting.pop(0)
            gone = event_id in found or event_id in without or event_id in self.hidden
            if gone or event_id not in self.events:
                continue
            found[event_id] = self.events[event_id]
            waiting += found[event_id].prev_event_ids
        return list(found.values())


def make(
    remote: Remote,
    version: str,
    creator: str,
    *,
    join_rule: str = "public",
    create: Json | None = None,
    power_levels: Json | None = None,
    state: Sequence[tuple[str, str, Json]] = (),
) -> RemoteRoom:
    """Make a room with its creator in it; `state` is added as (type, state_key, content)."""
    rules = VERSIONS[version]
    creator = remote.user_id(creator)
    room = RemoteRoom(remote, version, creator)
    if not rules.has_privileged_creators:
        room.id = f"!{next(RemoteRoom._numbers)}:{remote.name}"  # noqa: SLF001 - of this module
    content = {} if rules.has_creator_in_sender else {"creator": creator}
    first = room.set_state("m.room.create", {"room_version": version, **content, **(create or {})})
    room.id = first.room_id
    room.member(creator, "join")
    users = {} if rules.has_privileged_creators else {creator: 100}
    room.set_state("m.room.power_levels", {"users": users, **(power_levels or {})})
    room.set_state("m.room.join_rules", {"join_rule": join_rule})
    room.set_state("m.room.history_visibility", {"history_visibility": "shared"})
    for event_type, state_key, entry in state:
        room.event(event_type, entry, state_key)
    return room


def with_wrong_signature(event: Event, server: str) -> Json:
    """Return the PDU with a signature of this server that is not valid."""
    (key_id,) = event.pdu["signatures"][server]
    signatures = {**event.pdu["signatures"], server: {key_id: "A" * 86}}
    return {**event.pdu, "signatures": signatures}


def with_wrong_hash(event: Event, **content: Any) -> Json:
    """Return the PDU with another content, so that its hash does not match but its signature does.

    Only keys that a redaction removes may be changed.
    """
    return {**event.pdu, "content": {**event.content, **content}}


def without_signatures(event: Event) -> Json:
    """Return the PDU without signatures."""
    return {**event.pdu, "signatures": {}}


def _id(event: Event | str) -> str:
    return event if isinstance(event, str) else event.event_id


def _key(event: Event) -> StateKey:
    return event.type, event.state_key or ""
