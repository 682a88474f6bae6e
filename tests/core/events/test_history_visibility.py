"""The table of the specification: each setting, each course of a membership, each way to read.

test_visibility.py asks the one function that decides; this asks all who have to ask it.
Spec: client-server-api#room-history-visibility
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import Login, Person
from tests.helpers.rooms import act
from tests.helpers.sliding import ask, window

BOB = "@bob:localhost"
SETTING = "m.room.history_visibility"
STAGES = ("before", "invited", "joined", "left")
"""When something is said: before Bob's invite, after it, after his join, after his leave."""

WORLD, SHARED = frozenset(STAGES), frozenset({"before", "invited", "joined"})
SEEN = {
    # who never came: how far Bob got, then what he sees under each setting
    ("never", "world_readable"): WORLD,
    ("never", "shared"): frozenset(),
    ("never", "invited"): frozenset(),
    ("never", "joined"): frozenset(),
    ("invited", "world_readable"): WORLD,
    ("invited", "shared"): frozenset(),
    ("invited", "invited"): frozenset({"invited", "joined", "left"}),
    ("invited", "joined"): frozenset(),
    ("joined", "world_readable"): WORLD,
    ("joined", "shared"): WORLD,
    ("joined", "invited"): frozenset({"invited", "joined", "left"}),
    ("joined", "joined"): frozenset({"joined", "left"}),
    ("left", "world_readable"): WORLD,
    ("left", "shared"): SHARED,
    ("left", "invited"): frozenset({"invited", "joined"}),
    ("left", "joined"): frozenset({"joined"}),
    ("banned", "world_readable"): WORLD,
    ("banned", "shared"): SHARED,
    ("banned", "invited"): frozenset({"invited", "joined"}),
    ("banned", "joined"): frozenset({"joined"}),
    ("forgotten", "world_readable"): WORLD,
    ("forgotten", "shared"): frozenset(),
    ("forgotten", "invited"): frozenset(),
    ("forgotten", "joined"): frozenset(),
}
IN_PAGES = {key: seen for key, seen in SEEN.items() if key != ("invited", "invited")}
"""Users who are only invited may not page through the room, whatever events they may see."""


class Story:
    """A room of Alice's, in which something is said at each stage of Bob's way through it."""

    def __init__(self, alice: Person, bob: Person, course: str, setting: str) -> None:
        self.bob = bob
        state = [{"type": SETTING, "content": {"history_visibility": setting}}]
        self.room_id = alice.create_room(initial_state=state)
        self.said: dict[str, str] = {}
        for stage in STAGES:
            self._step(alice, stage, course)
            self.said[stage] = alice.send(self.room_id, stage)
        if course == "forgotten":
            assert act(bob, self.room_id, "forget").status_code == 200

    @property
    def path(self) -> str:
        return f"rooms/{quote(self.room_id)}"

    def seen(self, event_ids: set[str]) -> set[str]:
        """At which stages these were said."""
        return {stage for stage, event_id in self.said.items() if event_id in event_ids}

    def _step(self, alice: Person, stage: str, course: str) -> None:
        if stage == "invited" and course != "never":
            act(alice, self.room_id, "invite", user_id=BOB)
        elif stage == "joined" and course not in {"never", "invited"}:
            act(self.bob, self.room_id, "join")
        elif stage == "left" and course == "banned":
            act(alice, self.room_id, "ban", user_id=BOB)
        elif stage == "left" and course in {"left", "forgotten"}:
            act(self.bob, self.room_id, "leave")


def ids(events: list[dict[str, Any]]) -> set[str]:
    return {event["event_id"] for event in events}


def by_event(story: Story) -> set[str]:
    """Each event by its id."""
    return {
        stage
        for stage, event_id in story.said.items()
        if story.bob.get(f"{story.path}/event/{event_id}").status_code == 200
    }


def by_context(story: Story) -> set[str]:
    """What stands around the events that can be asked for; nothing else may be there."""
    around: set[str] = set()
    for event_id in story.said.values():
        answer = story.bob.get(f"{story.path}/context/{event_id}?limit=50")
        if answer.status_code == 200:
            body = answer.get_json()
            around |= ids([*body["events_before"], body["event"], *body["events_after"]])
    return story.seen(around)


def by_messages(story: Story) -> set[str]:
    """Pages in both directions, which must agree."""
    backwards, forwards = (
        story.bob.get(f"{story.path}/messages?dir={direction}&limit=100")
        for direction in ("b", "f")
    )
    assert backwards.status_code == forwards.status_code
    if backwards.status_code != 200:
        assert backwards.status_code == 403
        return set()
    found = ids(backwards.get_json()["chunk"])
    assert found == ids(forwards.get_json()["chunk"])
    return story.seen(found)


def by_initial_sync(story: Story) -> set[str]:
    answer = story.bob.get(f"{story.path}/initialSync?limit=100")
    if answer.status_code != 200:
        return set()
    return story.seen(ids(answer.get_json()["messages"]["chunk"]))


def by_timestamp(story: Story) -> set[str]:
    """The last event that a search by time finds; from it on, nothing later may be seen."""
    path = f"/_matrix/client/v1/{story.path}/timestamp_to_event?dir=b&ts=9007199254740991"
    answer = story.bob.get(path)
    return story.seen({answer.get_json()["event_id"]}) if answer.status_code == 200 else set()


def by_sync(story: Story, token: str | None) -> set[str]:
    """What /sync tells of the room, which for users who have left is everything up to the leave."""
    wanted = '{"room":{"include_leave":true,"timeline":{"limit":100}}}'
    told = story.bob.sync(token, filter=wanted)["rooms"]
    rooms = told.get("join", {}) | told.get("leave", {})
    room = rooms.get(story.room_id, {"timeline": {"events": []}})
    return story.seen(ids(room["timeline"]["events"]))


def by_sliding_sync(story: Story) -> set[str]:
    """What sliding sync shows of the room, which users who have left by themselves see no more."""
    room = ask(story.bob, lists=window(9, limit=50))["rooms"].get(story.room_id, {})
    return story.seen(ids(room.get("timeline", [])))


def by_search(story: Story) -> set[str]:
    """Each event by what it says; what is not found is not counted either."""
    found: set[str] = set()
    for stage in STAGES:
        wanted = {"search_categories": {"room_events": {"search_term": stage}}}
        answer = story.bob.post("search", json=wanted).get_json()["search_categories"]
        results = answer["room_events"]["results"]
        assert answer["room_events"]["count"] == len(results)
        found |= story.seen(ids([it["result"] for it in results]))
    return found


@pytest.mark.parametrize(("course", "setting"), SEEN)
def test_all_ways_to_read_keep_to_the_table(login: Login, course: str, setting: str) -> None:
    bob = login("bob")
    token = bob.sync()["next_batch"]

    story = Story(login("alice"), bob, course, setting)

    seen = SEEN[course, setting]
    in_pages = seen if (course, setting) in IN_PAGES else frozenset()
    assert by_event(story) == seen
    assert by_context(story) == seen
    assert by_messages(story) == in_pages
    assert by_initial_sync(story) == in_pages
    assert by_timestamp(story) <= in_pages
    is_or_was_there = course in {"joined", "left", "banned"}
    upto_the_leave = seen if course == "joined" else seen & SHARED
    synced = upto_the_leave if is_or_was_there else frozenset()
    assert by_sync(story, None) == synced
    if course != "forgotten":  # a device that knew the room is still notified of the leave
        assert by_sync(story, token) == synced
    assert by_sliding_sync(story) == (synced if course in {"joined", "banned"} else frozenset())
    assert by_search(story) == (seen if is_or_was_there else frozenset())
    may_read = setting == "world_readable" or is_or_was_there
    statuses = {bob.get(f"{story.path}/{it}").status_code for it in ("state", "members")}
    assert statuses == {200 if may_read else 403}
