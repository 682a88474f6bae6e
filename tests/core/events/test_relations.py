"""The events that relate to another, page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import ids

Json = dict[str, Any]
Room = Callable[..., str]

V1 = "/_matrix/client/v1/rooms"
MANY_CHILDREN = """
    WITH RECURSIVE numbers(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)
    INSERT INTO events (number, event_id, room_id, position, standing, type, state_key, sender,
        origin_server_ts, pdu, relates_to, rel_type)
    SELECT (SELECT max(number) FROM events) + n, '$extra' || n, room_id,
        (SELECT max(position) FROM events) + n, standing, type, state_key, sender,
        origin_server_ts, pdu, :root, rel_type
    FROM numbers JOIN events ON event_id = :like
"""


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def reply(person: Person, room_id: str, parent: str, rel_type: str = "m.thread") -> str:
    """The id of a new message that relates to another event."""
    relation = {"rel_type": rel_type, "event_id": parent}
    return person.send(room_id, "related", **{"m.relates_to": relation})


def react(person: Person, room_id: str, parent: str, key: str) -> str:
    content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": parent, "key": key}}
    answer = person.put(f"rooms/{room_id}/send/m.reaction/{parent}{key}", json=content)
    return str(answer.get_json()["event_id"])


def related(person: Person, room_id: str, parent: str, kind: str = "", **query: Any) -> Json:
    answer = person.get(f"{V1}/{room_id}/relations/{parent}{kind}", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def test_the_children_of_an_event_come_newest_first_or_in_their_order(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root, other = alice.send(room_id), alice.send(room_id)
    children = [reply(person, room_id, root) for person in (alice, bob, alice)]
    reply(alice, room_id, other)

    assert ids(related(bob, room_id, root)) == children[::-1]
    assert ids(related(bob, room_id, root, dir="f")) == children


def test_children_may_be_chosen_by_how_they_relate_and_by_their_type(
    alice: Person, room: Room
) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    threaded, reaction = reply(alice, room_id, root), react(alice, room_id, root, "x")
    note = reply(alice, room_id, root, "m.annotation")

    assert ids(related(alice, room_id, root, "/m.thread")) == [threaded]
    assert ids(related(alice, room_id, root, "/m.annotation")) == [note, reaction]
    assert ids(related(alice, room_id, root, "/m.annotation/m.reaction")) == [reaction]
    assert ids(related(alice, room_id, root, "/m.reference")) == []


@pytest.mark.parametrize("direction", ["b", "f"])
@pytest.mark.parametrize("limit", [1, 2, 5])
def test_pages_hold_every_child_once(alice: Person, room: Room, direction: str, limit: int) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    children = [reply(alice, room_id, root) for _ in range(5)]

    query: Json = {"dir": direction, "limit": limit}
    page = related(alice, room_id, root, **query)
    found = ids(page)
    while "next_batch" in page:
        query["from"] = page["next_batch"]
        page = related(alice, room_id, root, **query)
        assert page["prev_batch"] == query["from"]
        found += ids(page)

    assert found == (children if direction == "f" else children[::-1])


def test_a_page_goes_no_further_than_its_to(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    first = reply(alice, room_id, root)
    until = related(alice, room_id, root, limit=1, dir="f")
    assert "next_batch" not in until
    token = alice.get(f"rooms/{room_id}/messages?dir=b&limit=0").get_json()["start"]
    second = reply(alice, room_id, root)

    assert ids(related(alice, room_id, root, to=token)) == [second]
    assert ids(related(alice, room_id, root, to=token, dir="f")) == [first]
    assert ids(related(alice, room_id, root, **{"from": token})) == [first]


def test_recursion_finds_children_of_children(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    child = reply(alice, room_id, root)
    reaction = react(alice, room_id, child, "x")
    below = reply(alice, room_id, reaction, "m.reference")
    reply(alice, room_id, below, "m.reference")

    found = related(alice, room_id, root, recurse="true")

    assert ids(found) == [below, reaction, child]
    assert found["recursion_depth"] == 3
    assert ids(related(alice, room_id, root)) == [child]
    assert ids(related(alice, room_id, root, "/m.annotation", recurse="true")) == []


@pytest.mark.parametrize("direction", ["b", "f"])
def test_recursion_follows_every_child_however_many_there_are(
    app: Application, alice: Person, room: Room, direction: str
) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    children = [reply(alice, room_id, root, "m.reference") for _ in range(4)]
    below = [reply(alice, room_id, child, "m.reference") for child in (children[0], children[-1])]
    with app.homeserver.database.write() as tx:  # more children than anybody would send here
        tx.sql.raw.execute(MANY_CHILDREN, {"root": root, "like": children[1]})
        tx.skip_positions(2000)

    query: Json = {"recurse": "true", "limit": 1000, "dir": direction}
    page = related(alice, room_id, root, **query)
    found = ids(page)
    while "next_batch" in page:
        page = related(alice, room_id, root, **query, **{"from": page["next_batch"]})
        found += ids(page)

    assert len(found) == len(set(found)) == 2006
    assert {*children, *below} <= set(found)


def test_recursion_stays_in_the_room_and_leaves_out_what_was_redacted(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id, other = room(alice), room(bob)
    root = alice.send(room_id)
    elsewhere = reply(bob, other, root, "m.reference")
    reply(alice, room_id, elsewhere, "m.reference")
    gone = reply(alice, room_id, root, "m.reference")
    reply(alice, room_id, gone, "m.reference")
    kept = reply(alice, room_id, root, "m.reference")
    alice.put(f"rooms/{room_id}/redact/{gone}/1", json={})

    assert ids(related(alice, room_id, root, recurse="true")) == [kept]


def test_a_redacted_child_is_related_no_more(alice: Person, room: Room) -> None:
    room_id = room(alice)
    root = alice.send(room_id)
    kept, gone = reply(alice, room_id, root), reply(alice, room_id, root)
    alice.put(f"rooms/{room_id}/redact/{gone}/1", json={})

    assert ids(related(alice, room_id, root)) == [kept]


def test_an_event_of_another_room_is_no_child(alice: Person, bob: Person, room: Room) -> None:
    room_id, other = room(alice), room(bob)
    root = alice.send(room_id)
    reply(bob, other, root)

    assert ids(related(alice, room_id, root)) == []


@pytest.mark.parametrize("standing", ["stranger", "invited", "left"])
def test_relations_of_what_one_may_not_see_are_not_found(
    alice: Person, bob: Person, room: Room, standing: str
) -> None:
    room_id = room(alice, *([bob] if standing == "left" else []))
    if standing == "invited":
        alice.post(f"rooms/{room_id}/invite", json={"user_id": bob.user_id})
    elif standing == "left":
        bob.post(f"rooms/{room_id}/leave")
    root = alice.send(room_id)
    reply(alice, room_id, root)

    answer = bob.get(f"{V1}/{room_id}/relations/{root}")

    assert (answer.status_code, answer.get_json()["errcode"]) == (404, "M_NOT_FOUND")


def test_who_left_sees_the_children_from_before_the_leave(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root = alice.send(room_id)
    before = reply(alice, room_id, root)
    bob.post(f"rooms/{room_id}/leave")
    after = reply(alice, room_id, root)

    assert ids(related(bob, room_id, root)) == [before]
    assert ids(related(alice, room_id, root)) == [after, before]


@pytest.mark.parametrize(
    "query", [{"dir": "x"}, {"from": "x"}, {"to": "s" + "9" * 18}, {"limit": "-1"}, {"recurse": 1}]
)
def test_parameters_that_make_no_sense_are_refused(alice: Person, room: Room, query: Json) -> None:
    room_id = room(alice)
    root = alice.send(room_id)

    answer = alice.get(f"{V1}/{room_id}/relations/{root}", query_string=query)

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_INVALID_PARAM")
