"""Pages of a room's history, single events and their context, as each kind of person sees them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from homebody.core.events import paging
from tests.conftest import Login, Person
from tests.helpers.rooms import act, ids, refusal

Json = dict[str, Any]
Room = Callable[..., str]

V1 = "/_matrix/client/v1/"


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(login: Login) -> Person:
    return login("bob")


def messages(person: Person, room_id: str, direction: str = "b", **query: Any) -> Json:
    """The answer of /messages."""
    query = {"dir": direction, **query}
    if isinstance(query.get("filter"), dict):
        query["filter"] = orjson.dumps(query["filter"]).decode()
    answer = person.get(f"rooms/{room_id}/messages", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def pages(person: Person, room_id: str, direction: str, limit: int) -> Iterator[list[str]]:
    """The ids of the events of each page, until the server says that there are no more."""
    query: Json = {"limit": limit}
    while True:
        page = messages(person, room_id, direction, **query)
        yield ids(page)
        if "end" not in page:
            return
        query["from"] = page["end"]


def bodies(page: Json) -> list[str]:
    """What was said in a page."""
    return [event["content"]["body"] for event in page["chunk"] if "body" in event["content"]]


def inline(**event_filter: Any) -> Json:
    return {"filter": orjson.dumps(event_filter).decode()}


# --- paging


def test_backwards_the_newest_event_comes_first(alice: Person, room: Room) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(3)]

    page = messages(alice, room_id)

    assert ids(page)[:3] == sent[::-1]
    assert page["chunk"][-1]["type"] == "m.room.create"
    assert "end" not in page


def test_forwards_the_creation_comes_first(alice: Person, room: Room) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(3)]

    page = messages(alice, room_id, "f", limit=100)

    assert page["chunk"][0]["type"] == "m.room.create"
    assert ids(page)[-3:] == sent
    assert "end" not in page


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_in_both_directions_hold_every_event_once(
    alice: Person, room: Room, limit: int
) -> None:
    room_id = room(alice)
    for number in range(5):
        alice.send(room_id, str(number))

    forwards = [it for page in pages(alice, room_id, "f", limit) for it in page]
    backwards = [it for page in pages(alice, room_id, "b", limit) for it in page]

    assert forwards == backwards[::-1]
    assert len(forwards) == len(set(forwards)) >= 10


def test_without_a_direction_it_goes_forwards(alice: Person, room: Room) -> None:
    room_id = room(alice)
    alice.send(room_id, "hello")

    pages_of = [alice.get(f"rooms/{room_id}/messages{query}") for query in ("", "?dir=f")]

    assert ids(pages_of[0].get_json()) == ids(pages_of[1].get_json()) != []


def test_a_forgotten_room_is_closed_also_without_a_direction(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    bob.post(f"rooms/{room_id}/leave")
    bob.post(f"rooms/{room_id}/forget")

    assert refusal(bob.get(f"rooms/{room_id}/messages")) == (403, "M_FORBIDDEN")


def test_the_last_page_has_no_end_even_when_it_is_full(alice: Person, room: Room) -> None:
    room_id = room(alice)
    count = len(messages(alice, room_id, limit=100)["chunk"])

    assert "end" in messages(alice, room_id, limit=count - 1)
    assert "end" not in messages(alice, room_id, limit=count)


def test_the_start_is_the_token_that_was_given(alice: Person, room: Room) -> None:
    room_id = room(alice)
    token = messages(alice, room_id, limit=2)["end"]

    page = messages(alice, room_id, **{"from": token + "_77"})

    assert page["start"] == token + "_77"
    assert ids(page) == ids(messages(alice, room_id, **{"from": token}))


def test_a_page_goes_no_further_than_its_to(alice: Person, room: Room) -> None:
    room_id = room(alice)
    alice.send(room_id, "one")
    until = messages(alice, room_id, limit=0)["start"]
    later = [alice.send(room_id, "two"), alice.send(room_id, "three")]

    page = messages(alice, room_id, to=until)

    assert ids(page) == later[::-1]
    assert "end" not in page
    assert bodies(messages(alice, room_id, "f", to=until, limit=100)) == ["one"]


def test_a_limit_of_zero_is_an_empty_page_with_a_way_on(alice: Person, room: Room) -> None:
    page = messages(alice, room(alice), limit=0)

    assert page["chunk"] == []
    assert page["end"] == page["start"]


def test_new_events_do_not_move_pages_that_go_back(alice: Person, room: Room) -> None:
    room_id = room(alice)
    alice.send(room_id, "old")
    token = messages(alice, room_id, limit=1)["start"]
    alice.send(room_id, "new")

    assert bodies(messages(alice, room_id, **{"from": token})) == ["old"]
    assert bodies(messages(alice, room_id, "f", **{"from": token})) == ["new"]


def test_events_of_other_rooms_are_in_no_page(alice: Person, room: Room) -> None:
    one, other = room(alice), room(alice)
    alice.send(one, "here")
    alice.send(other, "there")
    alice.send(one, "here too")

    assert bodies(messages(alice, one)) == ["here too", "here"]


def test_a_limit_far_too_large_is_capped(
    alice: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "MAX_LIMIT", 3)

    page = messages(alice, room(alice), limit=10**12)

    assert len(page["chunk"]) == 3


def test_only_the_sending_device_sees_the_transaction_id(
    alice: Person, login: Login, room: Room
) -> None:
    room_id = room(alice)
    alice.put(f"rooms/{room_id}/send/m.room.message/txn1", json={"body": "x"})

    mine = messages(alice, room_id, limit=1)["chunk"][0]
    others = messages(login("alice"), room_id, limit=1)["chunk"][0]

    assert mine["unsigned"]["transaction_id"] == "txn1"
    assert "transaction_id" not in others["unsigned"]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({"dir": "x"}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "nonsense"}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "s" + "9" * 31}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "s99999999"}, "M_INVALID_PARAM"),
        ({"dir": "b", "to": "s-1"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "-1"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "ten"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "9" * 31}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": "{"}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": "[]"}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": '{"types": 3}'}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": '{"types": ["\\ud800"]}'}, "M_INVALID_PARAM"),
        ({"dir": "b", "filter": '{"limit": 1e999}'}, "M_INVALID_PARAM"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(
    alice: Person, room: Room, query: Json, errcode: str
) -> None:
    answer = alice.get(f"rooms/{room(alice)}/messages", query_string=query)

    assert refusal(answer) == (400, errcode)


# --- filters


def test_a_filter_by_type_admits_these_types_only(alice: Person, room: Room) -> None:
    room_id = room(alice)
    alice.send(room_id, "hello")

    page = messages(alice, room_id, filter={"types": ["m.room.mess*"]})

    assert [event["type"] for event in page["chunk"]] == ["m.room.message"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"contains_url": True},
        {"types": ["m.room.message"]},
        {"not_types": ["m.room.message"]},
        {"senders": ["@alice:localhost"]},
    ],
)
def test_a_filtered_page_backwards_has_an_end_until_one_is_empty(
    alice: Person, room: Room, wanted: Json
) -> None:
    room_id = room(alice)
    alice.send(room_id, "hello")
    alice.send(room_id, "plan", url="mxc://localhost/plan")

    page = messages(alice, room_id, limit=100, filter=wanted)
    last = messages(alice, room_id, limit=100, filter=wanted, **{"from": page["end"]})

    assert page["chunk"]
    assert last["chunk"] == []
    assert "end" not in last


def test_a_filter_that_leaves_nothing_out_is_no_reason_for_another_page(
    alice: Person, room: Room
) -> None:
    room_id = room(alice)

    page = messages(alice, room_id, limit=100, filter={"lazy_load_members": True, "limit": 50})

    assert page["chunk"][-1]["type"] == "m.room.create"
    assert "end" not in page


def test_a_filter_by_sender_admits_what_they_sent(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "from Alice")
    bob.send(room_id, "from Bob")

    assert bodies(messages(alice, room_id, filter={"senders": [bob.user_id]})) == ["from Bob"]
    assert bodies(messages(alice, room_id, filter={"not_senders": [bob.user_id]}, limit=50)) == [
        "from Alice"
    ]


@pytest.mark.parametrize(("contains_url", "wanted"), [(True, ["picture"]), (False, ["words"])])
def test_a_filter_by_url_looks_into_the_content(
    alice: Person, room: Room, contains_url: bool, wanted: list[str]
) -> None:
    room_id = room(alice)
    alice.send(room_id, "picture", url="mxc://localhost/x")
    alice.send(room_id, "words")

    found = messages(alice, room_id, filter={"contains_url": contains_url})

    assert bodies(found) == wanted


def test_a_filter_by_relations_admits_what_others_relate_to(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    root, other = alice.send(room_id, "root"), alice.send(room_id, "other")
    bob.send(room_id, "reply", **{"m.relates_to": {"rel_type": "m.thread", "event_id": root}})
    alice.send(room_id, "note", **{"m.relates_to": {"rel_type": "m.reference", "event_id": other}})

    by_type = messages(alice, room_id, filter={"related_by_rel_types": ["m.thread"]})
    by_sender = messages(alice, room_id, filter={"related_by_senders": [bob.user_id]})
    by_both = {"related_by_rel_types": ["m.thread"], "related_by_senders": [alice.user_id]}

    assert ids(by_type) == ids(by_sender) == [root]
    assert ids(messages(alice, room_id, filter=by_both)) == []


@pytest.mark.parametrize(
    "wanted",
    [
        {"related_by_rel_types": ["m.reference"]},
        {"related_by_senders": ["@alice:localhost"]},
        {"related_by_rel_types": ["m.reference"], "related_by_senders": ["@alice:localhost"]},
    ],
)
def test_a_filter_by_relations_tells_nothing_of_events_that_the_reader_may_not_see(
    alice: Person, bob: Person, room: Room, wanted: Json
) -> None:
    room_id = room(alice, bob)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    seen, unseen = alice.send(room_id, "seen"), alice.send(room_id, "unseen")
    for event_id in (seen, unseen):
        if event_id == unseen:
            act(bob, room_id, "leave")
        relation = {"rel_type": "m.reference", "event_id": event_id}
        alice.send(room_id, "note", **{"m.relates_to": relation})

    gone = messages(bob, room_id, filter=wanted)
    act(bob, room_id, "join")

    assert ids(gone) == ids(messages(bob, room_id, filter=wanted)) == [seen]
    assert ids(messages(alice, room_id, filter=wanted)) == [unseen, seen]


def test_the_limit_of_the_filter_counts_where_it_is_lower(alice: Person, room: Room) -> None:
    room_id = room(alice)

    assert len(messages(alice, room_id, limit=5, filter={"limit": 2})["chunk"]) == 2
    assert len(messages(alice, room_id, limit=2, filter={"limit": 5})["chunk"]) == 2


def test_a_filter_for_other_rooms_admits_nothing(alice: Person, room: Room) -> None:
    room_id = room(alice)

    assert messages(alice, room_id, filter={"not_rooms": [room_id]})["chunk"] == []
    assert messages(alice, room_id, filter={"rooms": ["!other:localhost"]})["chunk"] == []


def test_a_search_for_what_is_rare_stops_and_tells_where_to_go_on(
    alice: Person, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = room(alice)
    needle = alice.send(room_id, "needle", url="mxc://localhost/x")
    for number in range(12):
        alice.send(room_id, str(number))
    monkeypatch.setattr(paging, "LOADED_EVENTS", 4)
    monkeypatch.setattr(paging, "_BATCH", 4)

    query: Json = {"filter": {"contains_url": True}, "limit": 1}
    answers = [messages(alice, room_id, **query)]
    while not answers[-1]["chunk"]:
        answers.append(messages(alice, room_id, **query, **{"from": answers[-1]["end"]}))

    assert ids(answers[-1]) == [needle]
    assert len(answers) > 2


def test_lazy_loading_adds_the_members_who_sent_the_page(
    alice: Person, bob: Person, login: Login, room: Room
) -> None:
    room_id = room(alice, bob, login("carol"))
    bob.send(room_id, "hello")

    page = messages(alice, room_id, limit=1, filter={"lazy_load_members": True})

    assert [event["state_key"] for event in page["state"]] == [bob.user_id]
    assert page["state"][0]["type"] == "m.room.member"
    assert "state" not in messages(alice, room_id, limit=1)


def test_lazily_loaded_members_are_as_they_were_then(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob)
    bob.send(room_id, "hello")
    then = messages(alice, room_id, limit=0)["start"]
    content = {"membership": "join", "displayname": "Another name"}
    bob.set_state(room_id, "m.room.member", content, bob.user_id)

    query = {"limit": 1, "filter": {"lazy_load_members": True}, "from": then}
    page = messages(alice, room_id, **query)

    assert page["state"][0]["content"].get("displayname") != "Another name"


# --- who may


def test_a_stranger_and_an_invited_user_may_not_page(
    alice: Person, bob: Person, login: Login
) -> None:
    room_id = alice.create_room(preset="private_chat", invite=[bob.user_id])

    for person in (bob, login("carol")):
        answer = person.get(f"rooms/{room_id}/messages", query_string={"dir": "b"})
        assert refusal(answer) == (403, "M_FORBIDDEN")


def test_a_room_that_does_not_exist_is_answered_like_a_closed_one(alice: Person) -> None:
    answer = alice.get("rooms/!none:localhost/messages", query_string={"dir": "b"})

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_a_stranger_may_page_through_what_is_world_readable(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    alice.send(room_id, "before")
    content = {"history_visibility": "world_readable"}
    alice.set_state(room_id, "m.room.history_visibility", content)
    alice.send(room_id, "after")

    page = messages(bob, room_id, limit=100)

    assert bodies(page) == ["after"]
    assert "end" not in page


@pytest.mark.parametrize("way", ["leave", "kick", "ban"])
def test_who_left_pages_up_to_the_leave_in_both_directions(
    alice: Person, bob: Person, room: Room, way: str
) -> None:
    room_id = room(alice, bob)
    alice.send(room_id, "before")
    if way == "leave":
        bob.post(f"rooms/{room_id}/leave")
    else:
        alice.post(f"rooms/{room_id}/{way}", json={"user_id": bob.user_id})
    alice.send(room_id, "after")

    back, forth = messages(bob, room_id, limit=100), messages(bob, room_id, "f", limit=100)

    assert bodies(back) == bodies(forth) == ["before"]
    assert back["chunk"][0]["state_key"] == bob.user_id
    assert ids(back) == ids(forth)[::-1]
    assert "end" not in forth


def test_a_token_from_after_the_leave_shows_no_more(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    bob.post(f"rooms/{room_id}/leave")
    alice.send(room_id, "after")
    token = messages(alice, room_id, limit=1)["start"]

    assert bodies(messages(bob, room_id, **{"from": token})) == []
    assert messages(bob, room_id, "f", **{"from": token})["chunk"] == []


def test_a_forgotten_room_is_closed(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice, bob)
    said = alice.send(room_id, "hello")
    bob.post(f"rooms/{room_id}/leave")
    bob.post(f"rooms/{room_id}/forget")

    answer = bob.get(f"rooms/{room_id}/messages", query_string={"dir": "b"})

    assert refusal(answer) == (403, "M_FORBIDDEN")
    assert refusal(bob.get(f"rooms/{room_id}/event/{said}")) == (404, "M_NOT_FOUND")


def test_who_joins_late_sees_what_the_setting_gives(
    alice: Person, bob: Person, login: Login, room: Room
) -> None:
    carol = login("carol")
    shared, joined = room(alice), room(alice)
    content = {"history_visibility": "joined"}
    alice.set_state(joined, "m.room.history_visibility", content)
    for room_id in (shared, joined):
        alice.send(room_id, "early")
        for person in (bob, carol):
            person.post(f"rooms/{room_id}/join")
        alice.send(room_id, "late")

    assert bodies(messages(bob, shared, limit=100)) == ["late", "early"]
    assert bodies(messages(bob, joined, limit=100)) == ["late"]


# --- single events


def test_an_event_comes_with_its_room_and_its_age(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id, "hello")

    event = alice.get(f"rooms/{room_id}/event/{event_id}").get_json()

    assert (event["event_id"], event["room_id"]) == (event_id, room_id)
    assert event["content"] == {"msgtype": "m.text", "body": "hello"}
    assert event["unsigned"]["age"] >= 0
    by_id_alone = alice.get(f"events/{event_id}").get_json()
    assert by_id_alone["event_id"] == event_id


@pytest.mark.parametrize("standing", ["stranger", "invited", "left", "banned"])
@pytest.mark.parametrize("path", ["rooms/{}/event/{}", "rooms/{}/context/{}", "events/{1}"])
def test_an_event_that_one_may_not_see_is_not_found(
    alice: Person, bob: Person, room: Room, standing: str, path: str
) -> None:
    room_id = room(alice, *([bob] if standing in {"left", "banned"} else []))
    if standing == "invited":
        alice.post(f"rooms/{room_id}/invite", json={"user_id": bob.user_id})
    elif standing == "left":
        bob.post(f"rooms/{room_id}/leave")
    elif standing == "banned":
        alice.post(f"rooms/{room_id}/ban", json={"user_id": bob.user_id})
    event_id = alice.send(room_id, "secret")

    answer = bob.get(path.format(room_id, event_id))

    assert refusal(answer) == (404, "M_NOT_FOUND")


def test_an_event_is_not_found_in_another_room(alice: Person, room: Room) -> None:
    one, other = room(alice), room(alice)
    event_id = alice.send(one)

    assert refusal(alice.get(f"rooms/{other}/event/{event_id}")) == (404, "M_NOT_FOUND")
    assert refusal(alice.get(f"rooms/{other}/context/{event_id}")) == (404, "M_NOT_FOUND")
    assert refusal(alice.get(f"rooms/{one}/event/$none")) == (404, "M_NOT_FOUND")


def test_a_redacted_event_is_empty_and_says_why(alice: Person, room: Room) -> None:
    room_id = room(alice)
    event_id = alice.send(room_id, "oops")
    assert messages(alice, room_id, limit=1)["chunk"][0]["content"] != {}
    alice.put(f"rooms/{room_id}/redact/{event_id}/1", json={"reason": "typo"})

    event = alice.get(f"rooms/{room_id}/event/{event_id}").get_json()

    assert event["content"] == {}
    assert event["unsigned"]["redacted_because"]["content"]["reason"] == "typo"


# --- context


def context(person: Person, room_id: str, event_id: str, **query: Any) -> Json:
    answer = person.get(f"rooms/{room_id}/context/{event_id}", query_string=query)
    assert answer.status_code == 200, answer.get_json()
    body: Json = answer.get_json()
    return body


def test_the_context_is_split_around_the_event(alice: Person, room: Room) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(9)]

    found = context(alice, room_id, sent[4], limit=4)

    assert found["event"]["event_id"] == sent[4]
    assert [event["event_id"] for event in found["events_before"]] == [sent[3], sent[2]]
    assert [event["event_id"] for event in found["events_after"]] == [sent[5], sent[6]]


def test_the_tokens_of_a_context_go_on_where_it_ends(alice: Person, room: Room) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(9)]

    found = context(alice, room_id, sent[4], limit=4)
    back = messages(alice, room_id, limit=2, **{"from": found["start"]})
    forth = messages(alice, room_id, "f", limit=2, **{"from": found["end"]})

    assert ids(back) == [sent[1], sent[0]]
    assert ids(forth) == [sent[7], sent[8]]


def test_a_context_of_nothing_is_the_event_alone(alice: Person, room: Room) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(3)]

    found = context(alice, room_id, sent[1], limit=0)

    assert found["events_before"] == found["events_after"] == []
    assert ids(messages(alice, room_id, limit=1, **{"from": found["start"]})) == [sent[0]]
    assert ids(messages(alice, room_id, "f", limit=1, **{"from": found["end"]})) == [sent[2]]


def test_the_state_of_a_context_is_that_at_its_last_event(alice: Person, room: Room) -> None:
    room_id = room(alice, name="Old name")
    event_id = alice.send(room_id, "hello")
    alice.send(room_id, "more")
    alice.set_state(room_id, "m.room.name", {"name": "New name"})

    found = context(alice, room_id, event_id, limit=1)

    names = [it["content"] for it in found["state"] if it["type"] == "m.room.name"]
    assert names == [{"name": "Old name"}]


def test_a_filter_holds_for_what_stands_around_and_the_state_but_not_for_the_event(
    alice: Person, room: Room
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, str(number)) for number in range(3)]

    found = context(alice, room_id, sent[1], **inline(types=["m.room.create"]))

    assert found["event"]["event_id"] == sent[1]
    assert [it["type"] for it in found["events_before"]] == ["m.room.create"]
    assert found["events_after"] == []
    assert [it["type"] for it in found["state"]] == ["m.room.create"]


def test_the_state_of_a_context_may_be_loaded_lazily(
    alice: Person, bob: Person, login: Login, room: Room
) -> None:
    room_id = room(alice, bob, login("carol"))
    event_id = bob.send(room_id, "hello")

    found = context(alice, room_id, event_id, limit=0, **inline(lazy_load_members=True))

    members = [it["state_key"] for it in found["state"] if it["type"] == "m.room.member"]
    assert members == [bob.user_id]
    assert any(it["type"] == "m.room.create" for it in found["state"])


def test_the_context_for_who_left_ends_with_the_leave(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob, name="Old name")
    event_id = alice.send(room_id, "hello")
    bob.post(f"rooms/{room_id}/leave")
    alice.set_state(room_id, "m.room.name", {"name": "New name"})
    alice.send(room_id, "secret")

    found = context(bob, room_id, event_id, limit=20)

    assert [it["state_key"] for it in found["events_after"]] == [bob.user_id]
    names = [it["content"] for it in found["state"] if it["type"] == "m.room.name"]
    assert names == [{"name": "Old name"}]


# --- by time


def by_time(person: Person, room_id: str, ts: Any, direction: str) -> Any:
    query = {"ts": ts, "dir": direction}
    return person.get(f"{V1}rooms/{room_id}/timestamp_to_event", query_string=query)


def test_the_event_nearest_to_a_time_is_found_in_both_directions(alice: Person, room: Room) -> None:
    room_id = room(alice)
    time.sleep(0.002)  # the clock counts milliseconds
    first = alice.send(room_id, "first")
    at = alice.get(f"rooms/{room_id}/event/{first}").get_json()["origin_server_ts"]
    time.sleep(0.002)
    second = alice.send(room_id, "second")

    answers = [by_time(alice, room_id, at + 1, direction).get_json() for direction in "bf"]

    assert [answer["event_id"] for answer in answers] == [first, second]
    assert answers[0]["origin_server_ts"] == at
    assert by_time(alice, room_id, at, "f").get_json()["event_id"] == first


def test_without_a_direction_the_event_after_a_time_is_found(alice: Person, room: Room) -> None:
    room_id = room(alice)
    path = f"{V1}rooms/{room_id}/timestamp_to_event"

    found = alice.get(path, query_string={"ts": 0}).get_json()

    assert found == by_time(alice, room_id, 0, "f").get_json()


def test_where_there_is_no_event_in_a_direction_none_is_found(alice: Person, room: Room) -> None:
    room_id = room(alice)

    assert refusal(by_time(alice, room_id, 0, "b")) == (404, "M_NOT_FOUND")
    assert refusal(by_time(alice, room_id, 2**53 - 1, "f")) == (404, "M_NOT_FOUND")


def test_hidden_events_are_not_found_by_their_time(alice: Person, bob: Person, room: Room) -> None:
    room_id = room(alice)
    alice.set_state(room_id, "m.room.history_visibility", {"history_visibility": "joined"})
    time.sleep(0.002)
    hidden = [alice.send(room_id, str(number)) for number in range(12)]
    at = alice.get(f"rooms/{room_id}/event/{hidden[0]}").get_json()["origin_server_ts"]
    bob.post(f"rooms/{room_id}/join")

    found = by_time(bob, room_id, at, "f").get_json()["event_id"]

    event = bob.get(f"rooms/{room_id}/event/{found}").get_json()
    assert (event["type"], event["state_key"]) == ("m.room.member", bob.user_id)
    assert by_time(alice, room_id, at, "f").get_json()["event_id"] == hidden[0]


def test_a_stranger_finds_no_event_by_time(alice: Person, bob: Person, room: Room) -> None:
    assert refusal(by_time(bob, room(alice), 0, "f")) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(("ts", "direction"), [("x", "f"), ("1" * 31, "f"), (-1, "b"), (1, "u")])
def test_a_time_or_direction_that_makes_no_sense_is_refused(
    alice: Person, room: Room, ts: Any, direction: str
) -> None:
    assert refusal(by_time(alice, room(alice), ts, direction)) == (400, "M_INVALID_PARAM")


# --- initialSync of a room


def test_a_preview_shows_the_state_and_the_last_events_in_their_order(
    alice: Person, room: Room
) -> None:
    room_id = room(alice, name="The name", visibility="public")
    sent = [alice.send(room_id, str(number)) for number in range(3)]

    found = alice.get(f"rooms/{room_id}/initialSync", query_string={"limit": 2}).get_json()

    assert ids(found["messages"]) == sent[1:]
    older = messages(alice, room_id, limit=1, **{"from": found["messages"]["start"]})
    assert ids(older) == sent[:1]
    assert (found["membership"], found["visibility"]) == ("join", "public")
    assert "m.room.name" in {it["type"] for it in found["state"]}
    assert found["account_data"] == []


def test_a_preview_for_who_left_shows_the_room_as_it_was_then(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice, bob, name="Old name")
    bob.post(f"rooms/{room_id}/leave")
    alice.set_state(room_id, "m.room.name", {"name": "New name"})

    found = bob.get(f"rooms/{room_id}/initialSync").get_json()

    assert found["membership"] == "leave"
    assert [it["content"] for it in found["state"] if it["type"] == "m.room.name"] == [
        {"name": "Old name"}
    ]
    assert found["messages"]["chunk"][-1]["state_key"] == bob.user_id


def test_a_stranger_gets_a_preview_of_a_world_readable_room_only(
    alice: Person, bob: Person, room: Room
) -> None:
    room_id = room(alice)
    assert refusal(bob.get(f"rooms/{room_id}/initialSync")) == (403, "M_FORBIDDEN")
    content = {"history_visibility": "world_readable"}
    alice.set_state(room_id, "m.room.history_visibility", content)

    found = bob.get(f"rooms/{room_id}/initialSync").get_json()

    assert "membership" not in found
    assert found["messages"]["chunk"][-1]["content"] == content
