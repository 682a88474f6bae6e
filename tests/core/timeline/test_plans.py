"""Events stored by plans, in the real tables, against whole states."""

from __future__ import annotations

import random

import pytest

from homebody.core.federation import resolver
from homebody.core.federation.pdus import Received
from homebody.core.federation.resolver import Resolver
from homebody.core.timeline import forks, plans
from homebody.runtime.locks import Locks
from homebody.spec import canonical_json
from homebody.spec.events import Event
from homebody.spec.room_versions import RoomVersion
from homebody.storage.database import Database
from tests.core.timeline.test_receiving import always, in_some_order, script
from tests.helpers.forked_rooms import Copy
from tests.spec.test_state_resolution_properties import play


class Planned(Copy):
    """A room in which no state is resolved in a write."""

    def store(self, event: Event) -> str:
        received = Received(event, canonical_json.encode(event.pdu))
        return Resolver(self.database, Locks()).receive(received)


@always
@pytest.mark.parametrize("seed", range(6))
def test_each_state_is_that_of_whole_states_whatever_the_order_of_arrival(
    database: Database, version: RoomVersion, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "SECONDS_IN_WRITE", -1.0)
    monkeypatch.setattr(forks, "MAX_KEYS", 0)
    monkeypatch.setattr(plans, "CHANGES_AT_ONCE", 1)
    chance = random.Random(100 + seed)  # noqa: S311 - no secret
    room = play(version, script(chance, 40))
    copy = Planned(database, room)

    for event in in_some_order(room, chance):
        copy.receive(event)
        assert copy.stored_state(event.event_id) == room.states[event.event_id], event
        copy.check()
