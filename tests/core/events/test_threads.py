"""The list of a room's threads, and where a thread may begin."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import Login, Person
from tests.helpers.rooms import Json, ids, refusal

Room = Callable[..., str]

V1 = "/_matrix/client/v1/rooms"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def reply(person: Person, room_id: str, root: str) -> str:
    """The id of a new message in a thread."""
    relation = {"rel_type": "m.thread", "event_id": root}
    return person.send(room_id, "in thread", **{"m.relates_to": relation})


def threads(person: Person, room_id: str, **query: object) -> Json:
    answer = person.get(f"{V1}/{room_id}/threads", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def test_threads_come_in_the_order_of_their_last_replies(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    first, second, third = (alice.send(room_id) for _ in range(3))
    alice.send(room_id, "in no thread")
    for root in (third, first, second, first):
        last = reply(bob, room_id, root)

    page = threads(alice, room_id)

    assert ids(page) == [first, second, third]
    assert "next_batch" not in page
    told = page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]
    assert (told["count"], told["latest_event"]["event_id"]) == (2, last)


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_hold_every_thread_once(alice: Person, room: Room, limit: int) -> None:
    room_id = room(alice)
    roots = [alice.send(room_id) for _ in range(5)]
    for root in roots + roots[::-1]:  # each is met twice on the way back
        reply(alice, room_id, root)

    page = threads(alice, room_id, limit=limit)
    found = ids(page)
    while "next_batch" in page:
        page = threads(alice, room_id, limit=limit, **{"from": page["next_batch"]})
        found += ids(page)

    assert found == roots


def test_one_may_ask_for_the_threads_in_which_one_takes_part(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    mine, answered, neither = alice.send(room_id), bob.send(room_id), bob.send(room_id)
    reply(bob, room_id, mine)
    reply(alice, room_id, answered)
    reply(bob, room_id, neither)

    assert ids(threads(alice, room_id, include="participated")) == [answered, mine]
    assert ids(threads(alice, room_id, include="all")) == [neither, answered, mine]


def test_a_thread_without_replies_is_none(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root, other = alice.send(room_id), alice.send(room_id)
    gone = reply(alice, room_id, root)
    reply(alice, room_id, other)

    alice.put(f"rooms/{room_id}/redact/{gone}/1", json={})

    assert ids(threads(alice, room_id)) == [other]


def test_replies_of_ignored_users_do_not_count_and_their_roots_are_redacted(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    theirs, mine, silent = bob.send(room_id), alice.send(room_id), alice.send(room_id)
    reply(alice, room_id, theirs)
    reply(alice, room_id, mine)
    reply(bob, room_id, theirs)
    reply(bob, room_id, silent)
    path = f"user/{alice.user_id}/account_data/m.ignored_user_list"
    alice.put(path, json={"ignored_users": {bob.user_id: {}}})

    page = threads(alice, room_id)

    assert ids(page) == [mine, theirs]
    shown = page["chunk"][1]
    assert shown["content"] == {}
    assert shown["unsigned"]["m.relations"]["m.thread"]["count"] == 1


def test_who_has_left_sees_the_threads_as_they_were(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    before, after = alice.send(room_id), alice.send(room_id)
    reply(alice, room_id, before)
    bob.post(f"rooms/{room_id}/leave")
    reply(alice, room_id, after)

    assert ids(threads(bob, room_id)) == [before]


def test_no_reply_that_the_reader_may_not_see_takes_a_thread_from_the_pages(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    elsewhere, here, unseen = roots = [alice.send(room_id) for _ in range(3)]
    for root in roots:
        reply(alice, room_id, root)
    bob.post(f"rooms/{room_id}/leave")
    reply(alice, room_id, unseen)
    bob.post(f"rooms/{room_id}/join")
    reply(alice, room_id, here)
    reply(bob, room(bob), elsewhere)

    pages = [threads(bob, room_id, limit=1)]
    while token := pages[-1].get("next_batch"):
        pages.append(threads(bob, room_id, limit=1, **{"from": token}))

    assert [root for page in pages for root in ids(page)] == [here, unseen, elsewhere]


def test_strangers_are_told_of_no_threads(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice)
    reply(alice, room_id, alice.send(room_id))

    answers = [bob.get(f"{V1}/{room}/threads") for room in (room_id, "!nowhere:localhost")]

    assert [refusal(answer) for answer in answers] == [(403, "M_FORBIDDEN")] * 2


@pytest.mark.parametrize("query", [{"include": "x"}, {"limit": "0"}, {"from": "x"}])
def test_parameters_that_make_no_sense_are_refused(alice: Person, room: Room, query: Json) -> None:
    room_id = room(alice)

    answer = alice.get(f"{V1}/{room_id}/threads", query_string=query)

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_no_thread_begins_at_an_event_that_is_related_itself(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    child = reply(alice, room_id, root)
    relation = {"rel_type": "m.thread", "event_id": child}

    answer = alice.put(f"rooms/{room_id}/send/m.room.message/1", json={"m.relates_to": relation})

    assert refusal(answer) == (400, "M_UNKNOWN")


def test_nobody_learns_how_an_event_of_another_room_is_related(
    alice: Person, bob: Person, room: Room
) -> None:
    hidden = room(alice)
    child = reply(alice, hidden, alice.send(hidden))
    room_id = room(bob)
    relation = {"rel_type": "m.thread", "event_id": child}

    answer = bob.put(f"rooms/{room_id}/send/m.room.message/1", json={"m.relates_to": relation})

    assert answer.status_code == 200  # as with an event that nobody knows


def test_a_thread_may_begin_at_a_reply(alice: Person, room: Room) -> None:
    room_id = room(alice)
    to = {"m.in_reply_to": {"event_id": alice.send(room_id)}}
    root = alice.send(room_id, "re", **{"m.relates_to": to})

    reply(alice, room_id, root)

    assert ids(threads(alice, room_id)) == [root]
