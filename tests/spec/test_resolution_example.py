"""The example of state resolution in ARCHITECTURE.md has the outcome that is described there."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from homebody.spec.events import Event, StateKey
from homebody.spec.room_versions import V2, V11, V12, RoomVersion
from tests.spec.dag import ALICE, BOB, CAROL, Room

DOCUMENT = Path(__file__).parents[2] / "ARCHITECTURE.md"
DRAWING = """
                     topic "tea"  by Alice
                    /            \\
      Alice bans Bob              topic "cats"  by Bob
                    \\                          |
                     \\                    Carol joins
                      \\                  /
                       message  by Alice        ← which state is before it?
"""
TOPIC: StateKey = ("m.room.topic", "")
BOBS: StateKey = ("m.room.member", BOB)
CAROLS: StateKey = ("m.room.member", CAROL)
CONFLICTS = """
| topic | "tea" | "cats" |
| Bob's membership | ban | join |
| Carol's membership | none | join |
"""
always = pytest.mark.parametrize("version", [V2, V11, V12], ids=["v2", "v11", "v12"])


class Example:
    """The room of the drawing, without the message."""

    def __init__(self, version: RoomVersion) -> None:
        self.room = room = Room(version)
        alice = {} if version.has_privileged_creators else {ALICE: 100}
        room.start({"users": {**alice, BOB: 50}})
        self.joined = room.member(BOB, "join")
        self.tea = room.topic(ALICE, "tea")
        self.ban = room.member(ALICE, "ban", BOB, [self.tea])
        self.cats = room.topic(BOB, "cats", [self.tea])
        self.carol = room.member(CAROL, "join", after=[self.cats])
        self.ends = [self.ban, self.carol]

    def of_branch(self, end: Event, key: StateKey) -> Event | None:
        event_id = self.room.states[end.event_id].get(key)
        return None if event_id is None else self.room.events[event_id]


def test_the_document_shows_this_room() -> None:
    text = DOCUMENT.read_text("utf-8")

    assert DRAWING in text
    assert CONFLICTS in text


@always
def test_its_branches_differ_in_three_keys(version: RoomVersion) -> None:
    room = Example(version)
    left, right = (room.room.states[end.event_id] for end in room.ends)

    differing = {key for key in left.keys() | right.keys() if left.get(key) != right.get(key)}

    assert differing == {TOPIC, BOBS, CAROLS}
    assert [room.of_branch(room.ban, key) for key in (TOPIC, BOBS, CAROLS)] == [
        *(room.tea, room.ban, None)
    ]
    assert [room.of_branch(room.carol, key) for key in (TOPIC, BOBS, CAROLS)] == [
        *(room.cats, room.joined, room.carol)
    ]


@always
def test_the_ban_counts_and_what_bob_did_meanwhile_does_not(version: RoomVersion) -> None:
    room = Example(version)
    for ends in itertools.permutations(room.ends):
        resolved = room.room.state_after(*ends)

        assert resolved[TOPIC] == room.tea.event_id
        assert resolved[BOBS] == room.ban.event_id
        assert resolved[CAROLS] == room.carol.event_id


@always
def test_the_message_is_allowed_in_that_state(version: RoomVersion) -> None:
    room = Example(version)

    message = room.room.send(ALICE, "m.room.message", {"body": "Tea?"}, after=room.ends)

    assert room.room.states[message.event_id][BOBS] == room.ban.event_id
