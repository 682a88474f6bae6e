"""The history of a remote room from before a user of this server joined it."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.events import past_state
from homebody.core.events.past_state import Interval, Seen
from homebody.models.base import NOW_AND_LATER, EventNumber
from homebody.spec.room_versions import VERSIONS
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.gaps import gaps, ids, page, pages
from tests.helpers.remote import Remote, Remotes
from tests.helpers.remote_room import RemoteRoom

Json = dict[str, Any]


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def alice(b: Remote, login: Login) -> Person:
    return login("alice")


def join(person: Person, room: RemoteRoom) -> None:
    response = person.post(f"join/{quote(room.id)}?via=b.test")
    assert response.status_code == 200, response.get_json()


@pytest.mark.parametrize("version", VERSIONS)
def test_all_of_a_room_of_each_version_is_read(
    app: Application, b: Remote, alice: Person, version: str
) -> None:
    room = b.room(version)
    for number in range(150):
        room.message(f"{number}")
    before = list(room.events)
    join(alice, room)

    found = pages(alice, room.id, 100)

    assert found[:-1] == before
    assert gaps(app) == {}


def test_the_timeline_of_a_join_leads_to_what_was_before(b: Remote, alice: Person) -> None:
    room = b.room()
    said = room.message("before")
    join(alice, room)

    timeline = alice.sync()["rooms"]["join"][room.id]["timeline"]
    found = page(alice, room.id, limit=1, **{"from": timeline["prev_batch"]})

    assert timeline["limited"] is True
    assert ids(found) == [said.event_id]


def test_a_new_user_sees_no_more_than_the_visibility_of_each_time_allows(
    b: Remote, alice: Person
) -> None:
    room = b.room()
    first = room.message("shared")
    room.set_state("m.room.history_visibility", {"history_visibility": "joined"})
    second = room.message("joined")
    room.set_state("m.room.history_visibility", {"history_visibility": "world_readable"})
    third = room.message("world readable")
    room.set_state("m.room.history_visibility", {"history_visibility": "invited"})
    fourth = room.message("invited")
    join(alice, room)

    found = set(ids(page(alice, room.id)))

    sent = [first, second, third, fourth]
    assert [it.event_id in found for it in sent] == [True, False, True, False]


def test_names_and_topics_are_those_of_the_time(b: Remote, alice: Person) -> None:
    room = b.room()
    room.member("dave", "join", content={"displayname": "Dave"})
    said = room.message("hello", sender="dave")
    room.member("dave", "join", content={"displayname": "David"})
    later = room.message("hello again", sender="dave")
    room.member("dave", "leave")
    join(alice, room)
    lazy = '{"lazy_load_members": true}'
    page(alice, room.id)

    def name_at(event_id: str) -> str:
        path = f"rooms/{quote(room.id)}/context/{quote(event_id)}"
        state = alice.get(path, query_string={"limit": 0, "filter": lazy}).get_json()["state"]
        (name,) = [it["content"]["displayname"] for it in state if it["type"] == "m.room.member"]
        return str(name)

    assert name_at(said.event_id) == "Dave"
    assert name_at(later.event_id) == "David"


def test_a_server_gets_no_more_of_old_history_than_its_users_may_have_seen(
    app: Application, remote: Remotes, b: Remote, alice: Person
) -> None:
    room = b.room()
    room.set_state("m.room.history_visibility", {"history_visibility": "joined"})
    said = room.message("secret")
    c = remote("c.test")
    dora = room.member("dora", "join", by=c)
    after = room.message("known to c.test")
    join(alice, room)
    page(alice, room.id)

    def content(event_id: str) -> Json:
        found: Json = c.get("v1", "event", event_id).json["pdus"][0]["content"]
        return found

    assert dora.sender == "@dora:c.test"
    assert content(after.event_id) != {}
    assert content(said.event_id) == {}


def test_history_after_a_rejoin_is_read_up_to_what_is_known(
    app: Application, b: Remote, alice: Person
) -> None:
    app.homeserver.sender.start()
    room = b.room()
    join(alice, room)
    b.send(room.message("known"))
    alice.post(f"rooms/{quote(room.id)}/leave")
    b.wait_until(lambda: room.membership(alice.user_id) == "leave")
    app.homeserver.sender.stop()
    missed = [room.message(f"{number}") for number in range(20)]
    room.set_state("m.room.history_visibility", {"history_visibility": "joined"})
    hidden = room.message("hidden")
    room.set_state("m.room.history_visibility", {"history_visibility": "shared"})
    join(alice, room)

    found = pages(alice, room.id, 10)

    known = list(room.events)
    assert [it for it in found if it in known] == [it for it in known if it in found]
    assert {it.event_id for it in missed} <= set(found)
    assert hidden.event_id not in found
    assert len(found) == len(set(found))


def test_a_thousand_events_are_read_in_a_second(app: Application, b: Remote, alice: Person) -> None:
    room = b.room()
    for number in range(1000):
        room.message(f"{number}")
    join(alice, room)

    began = time.thread_time()
    found = ids(page(alice, room.id, limit=1000))
    seconds = time.thread_time() - began

    assert len(found) == 1000
    assert seconds < 1


def test_history_is_found_by_a_search_and_leads_from_sliding_sync(b: Remote, alice: Person) -> None:
    room = b.room()
    said = room.message("needle in the hay")
    join(alice, room)
    path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    wanted = {"ranges": [[0, 9]], "timeline_limit": 5, "required_state": []}
    shown = alice.post(path, json={"lists": {"all": wanted}}).get_json()["rooms"][room.id]

    before = ids(page(alice, room.id, limit=1, **{"from": shown["prev_batch"]}))
    body = {"search_categories": {"room_events": {"search_term": "needle"}}}
    found = alice.post("search", json=body).get_json()["search_categories"]["room_events"]

    assert shown["limited"] is True
    assert before == [said.event_id]
    assert [it["result"]["event_id"] for it in found["results"]] == [said.event_id]


KEY = ("m.room.topic", "")
"""An entry, whose events are numbered by the positions at which they became the state."""


def known(*intervals: tuple[int, int, int]) -> list[Interval]:
    return [Interval(*it[:2], EventNumber(it[2]), None) for it in intervals]


@pytest.mark.parametrize(
    ("before", "seen", "after"),
    [
        # nothing was known; then the same, and an older one
        ([], [(8, 8)], [(8, 10, 8)]),
        ([(0, NOW_AND_LATER, 8)], [(8, 8)], [(0, NOW_AND_LATER, 8)]),
        ([(0, NOW_AND_LATER, 8)], [(8, 8), (5, 5)], [(0, 8, 5), (8, NOW_AND_LATER, 8)]),
        (
            [(0, NOW_AND_LATER, 8)],
            [(8, 8), (5, 5), (2, 2)],
            [(0, 5, 2), (5, 8, 5), (8, NOW_AND_LATER, 8)],
        ),
        # the one that was the state at the join is not among the events
        ([(0, NOW_AND_LATER, 7)], [(5, 5)], [(0, 6, 5), (6, NOW_AND_LATER, 7)]),
        # it ended after the join
        (
            [(0, 20, 8), (20, NOW_AND_LATER, 20)],
            [(5, 5)],
            [(0, 6, 5), (6, 20, 8), (20, NOW_AND_LATER, 20)],
        ),
        # the room had none at the join
        ([(12, NOW_AND_LATER, 12)], [(5, 5)], [(5, 10, 5), (12, NOW_AND_LATER, 12)]),
    ],
)
def test_older_events_end_where_later_ones_begin(
    before: list[tuple[int, int, int]],
    seen: list[tuple[int, int]],
    after: list[tuple[int, int, int]],
) -> None:
    intervals = known(*before)
    positions = {EventNumber(number): at for at, number in seen}

    for at, number in seen:
        entry = Seen(at, KEY, EventNumber(number), None, is_event=True)
        past_state.add(intervals, entry, 0, 10, positions)

    assert intervals == known(*after)


@pytest.mark.parametrize(
    ("before", "seen", "after"),
    [
        # between two events: what was before, and what came after, stay
        ([(1, NOW_AND_LATER, 1)], [(8, 8)], [(1, 8, 1), (8, 10, 8), (10, NOW_AND_LATER, 1)]),
        (
            [(1, 10, 1), (10, NOW_AND_LATER, 8)],
            [(8, 8), (6, 6)],
            [(1, 6, 1), (6, 8, 6), (8, NOW_AND_LATER, 8)],
        ),
        # after a rejoin: when the later one began was not known
        (
            [(1, 5, 1), (5, NOW_AND_LATER, 8)],
            [(8, 8), (7, 7)],
            [(1, 7, 1), (7, 8, 7), (8, NOW_AND_LATER, 8)],
        ),
    ],
)
def test_events_between_others_change_what_was_between(
    before: list[tuple[int, int, int]],
    seen: list[tuple[int, int]],
    after: list[tuple[int, int, int]],
) -> None:
    intervals = known(*before)
    positions = {EventNumber(number): at for at, number in seen}

    for at, number in seen:
        entry = Seen(at, KEY, EventNumber(number), None, is_event=True)
        past_state.add(intervals, entry, 4, 10, positions)

    assert intervals == known(*after)
