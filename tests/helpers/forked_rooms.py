"""Rooms of tests/spec/dag.py in a real database, compared with whole states after each event."""

from __future__ import annotations

from homebody.core.events import state
from homebody.core.timeline import forks, receiving, store
from homebody.models.events import ACCEPTED, SOFT_FAILED
from homebody.spec import canonical_json, event_auth
from homebody.spec.event_auth import AuthError
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Database
from tests.spec.dag import Room, room_id


class Copy:
    """A room in the database, which gets its events one by one, and what it should be."""

    def __init__(self, database: Database, room: Room) -> None:
        self.database = database
        self.room = room
        self.room_id = room_id(room.version)
        self.ends: list[str] = []
        self.standings: dict[str, str] = {}
        with database.write() as tx:
            store.add_room(tx, self.room_id, state.RoomHead(room.version.name, [], 0))

    def receive(self, event: Event) -> str:
        """Give an event to the server, and say what should become of it."""
        standing = self.store(event)
        expected = ACCEPTED if self.is_allowed_now(event) else SOFT_FAILED
        assert standing == expected, event
        self.standings[event.event_id] = standing
        if standing == ACCEPTED:
            cited = event.prev_event_ids
            self.ends = [it for it in self.ends if it not in cited] + [event.event_id]
        return standing

    def store(self, event: Event) -> str:
        with self.database.write() as tx:
            return receiving.receive(tx, event, canonical_json.encode(event.pdu))

    def is_allowed_now(self, event: Event) -> bool:
        if not self.ends:
            return True
        try:
            event_auth.check(event, self.room.as_events(self.state_now()))
        except AuthError:
            return False
        return True

    def state_now(self) -> dict[StateKey, str]:
        return self.room.state_after(*(self.room.events[it] for it in self.ends))

    def stored_state(self, after: str | None = None) -> dict[StateKey, str]:
        """Return what the server has as the current state, or as the state after an event."""
        with self.database.read() as tx:
            point = forks.current(tx)
            if after is not None:
                point = forks.after_events(tx, [after])[after]
            numbers = forks.whole(tx, self.room_id, point)
            ids = forks.ids(tx, self.room_id, numbers.values())
            return {key: ids[number] for key, number in numbers.items()}

    def check(self) -> None:
        assert self.stored_state() == self.state_now()
        with self.database.read() as tx:
            assert sorted(state.head(tx, self.room_id).forward_extremities) == sorted(self.ends)
            keys = list(self.room.states[next(iter(reversed(self.room.states)))])
            cached = state.current_many(tx, self.room_id, keys)
        now = self.state_now()
        assert {key: it.event_id for key, it in cached.items()} == {
            key: now[key] for key in keys if key in now
        }
