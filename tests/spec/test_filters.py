from __future__ import annotations

import copy
import itertools
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import filters
from homebody.spec.events import Json
from homebody.spec.filters import EVERYTHING, RoomEventFilter
from tests.spec import pdus

BOB = "@bob:example.org"
CAROL = "@carol:example.org"
ROOM = "!room:example.org"
OTHER = "!other:example.org"
HASHED = "!" + "a" * 43


def room_events(**json: Any) -> RoomEventFilter:
    return filters.parse_room_event_filter(json)


def admits(
    it: filters.EventFilter,
    event_type: str = "m.room.message",
    sender: str | None = BOB,
    room_id: str = ROOM,
    content: object = None,
) -> bool:
    return filters.matches(it, event_type, sender, room_id, content)


# Parsing


def test_an_empty_filter_is_the_one_that_asks_for_everything() -> None:
    assert filters.parse({}) == EVERYTHING
    assert EVERYTHING.event_format == "client"
    assert not EVERYTHING.room.include_leave
    assert admits(EVERYTHING.room.timeline)
    assert filters.admits_room(EVERYTHING.room, ROOM)


def test_every_key_of_the_spec_is_read() -> None:
    of_events = {
        "limit": 10,
        "types": ["m.a"],
        "not_types": ["m.b"],
        "senders": [BOB],
        "not_senders": [CAROL],
    }
    of_room_events = of_events | {
        "rooms": [ROOM, HASHED],
        "not_rooms": [OTHER],
        "contains_url": False,
        "lazy_load_members": True,
        "include_redundant_members": True,
        "unread_thread_notifications": True,
        "related_by_rel_types": ["m.thread"],
        "related_by_senders": [BOB],
    }

    it = filters.parse(
        {
            "event_fields": ["content.body"],
            "event_format": "federation",
            "presence": of_events,
            "account_data": of_events,
            "room": {
                "rooms": [ROOM],
                "not_rooms": [OTHER],
                "include_leave": True,
                "timeline": of_room_events,
                "state": of_room_events,
                "ephemeral": of_room_events,
                "account_data": of_room_events,
            },
        }
    )

    assert (it.event_format, it.room.include_leave) == ("federation", True)
    assert (it.room.rooms, it.room.not_rooms) == (frozenset({ROOM}), frozenset({OTHER}))
    room = it.room
    for part in (it.presence, it.account_data, room.timeline, room.state, room.ephemeral):
        assert part.limit == 10
        assert part.types is not None
        assert part.types.exact == {"m.a"}
        assert part.not_types is not None
        assert part.not_types.exact == {"m.b"}
        assert (part.senders, part.not_senders) == (frozenset({BOB}), frozenset({CAROL}))
    for of_room in (room.timeline, room.state, room.ephemeral, room.account_data):
        assert (of_room.rooms, of_room.not_rooms) == (frozenset({ROOM, HASHED}), frozenset({OTHER}))
        assert of_room.contains_url is False
        assert of_room.lazy_load_members
        assert of_room.include_redundant_members
        assert of_room.unread_thread_notifications
        assert of_room.related_by_rel_types == frozenset({"m.thread"})
        assert of_room.related_by_senders == frozenset({BOB})


def test_keys_that_nobody_knows_are_ignored() -> None:
    it = filters.parse({"org.example.x": 1, "room": {"y": [], "timeline": {"z": None, "limit": 3}}})

    assert it.room.timeline == RoomEventFilter(limit=3)


@pytest.mark.parametrize(
    ("json", "key"),
    [
        ([], "Expected `object`"),
        ("{}", "Expected `object`"),
        (None, "Expected `object`"),
        ({"event_fields": "content"}, "$.event_fields"),
        ({"event_fields": [1]}, "$.event_fields"),
        ({"event_fields": ["x" * 256]}, "$.event_fields"),
        ({"event_format": "xml"}, "$.event_format"),
        ({"event_format": 1}, "$.event_format"),
        ({"presence": []}, "$.presence"),
        ({"presence": {"limit": -1}}, "$.presence.limit"),
        ({"presence": {"limit": True}}, "$.presence.limit"),
        ({"presence": {"limit": "1"}}, "$.presence.limit"),
        ({"presence": {"limit": 1.0}}, "$.presence.limit"),
        ({"account_data": {"types": "m.x"}}, "$.account_data.types"),
        ({"account_data": {"not_types": [None]}}, "$.account_data.not_types"),
        ({"account_data": {"not_types": ["x"] * 1001}}, "$.account_data.not_types"),
        ({"account_data": {"senders": ["bob"]}}, "$.account_data.senders"),
        ({"account_data": {"senders": [ROOM]}}, "$.account_data.senders"),
        ({"account_data": {"not_senders": [7]}}, "$.account_data.not_senders"),
        ({"room": None}, "$.room"),
        ({"room": {"rooms": "x"}}, "$.room.rooms"),
        ({"room": {"not_rooms": [BOB]}}, "$.room.not_rooms"),
        ({"room": {"include_leave": 1}}, "$.room.include_leave"),
        ({"room": {"timeline": {"rooms": ["x"]}}}, "$.room.timeline.rooms"),
        ({"room": {"timeline": {"rooms": [ROOM] * 10_001}}}, "$.room.timeline.rooms"),
        ({"room": {"state": {"lazy_load_members": "yes"}}}, "$.room.state.lazy_load_members"),
        ({"room": {"state": {"contains_url": 0}}}, "$.room.state.contains_url"),
        (
            {"room": {"ephemeral": {"related_by_rel_types": [1]}}},
            "$.room.ephemeral.related_by_rel_types",
        ),
    ],
)
def test_a_wrong_filter_is_refused_by_the_name_of_the_key(json: object, key: str) -> None:
    with pytest.raises(ValueError, match=key.replace("$", r"\$")):
        filters.parse(json)


def test_the_filter_of_messages_is_a_bare_one_for_room_events() -> None:
    assert room_events(limit=5, lazy_load_members=True).limit == 5
    with pytest.raises(ValueError, match="limit"):
        room_events(limit=-5)
    with pytest.raises(ValueError, match="object"):
        filters.parse_room_event_filter([])


# Matching


def test_types_admit_what_they_name() -> None:
    it = room_events(types=["m.room.member", "m.room.*.x", "org.*"])

    admitted = ["m.room.member", "m.room.a.x", "m.room..x", "org.", "org.example.y"]
    refused = ["m.room.members", "m.room.x", "organ", "M.room.member", ""]
    assert [event_type for event_type in admitted + refused if admits(it, event_type)] == admitted


def test_a_star_is_the_only_wildcard_of_types() -> None:
    it = room_events(types=["what?", "[ab]*"])

    assert admits(it, "what?")
    assert admits(it, "[ab]c")
    assert not admits(it, "whats")
    assert not admits(it, "a")


def test_an_answer_about_a_type_stays_the_same() -> None:
    it = room_events(types=["m.*"])

    for number in range(1200):  # more than are remembered
        assert admits(it, f"m.{number}")
        assert not admits(it, f"x.{number}")
    assert admits(it, "m.0")
    assert not admits(it, "x.1199")


def test_types_with_stars_anywhere_are_matched_together() -> None:
    wanted = room_events(types=["m.room.*", "*.end", "org.*.poll*", "m.exact"])

    admitted = ["m.room.", "m.room.x.y", ".end", "x.end", "org.matrix.poll.start", "m.exact"]
    refused = ["m.roo", "m.rooms", "end", "x.ends", "org.poll", "m.exact.", ""]
    assert [it for it in admitted + refused if admits(wanted, it)] == admitted


def test_a_filter_with_many_wildcards_lets_others_go_on_between_types() -> None:
    pauses: list[float] = []
    stars = [f"*{'a*' * (100 - number % 20)}{'aa*' * (number % 20)}c*" for number in range(300)]
    asked = {"room": {"timeline": {"types": stars}}}
    wanted = filters.parse(asked, lambda: pauses.append(time.thread_time())).room.timeline
    many = [f"c{'a' * 240}{number}" for number in range(490)]

    pauses.append(time.thread_time())
    admitted = [it for it in many if filters.matches(wanted, it, "@alice:example.org")]

    assert admitted == []
    assert len(pauses) == 1 + len(many)
    assert max(b - a for a, b in itertools.pairwise(pauses)) < 0.1


def test_what_is_excluded_wins() -> None:
    it = room_events(
        types=["m.*"],
        not_types=["m.room.*"],
        senders=[BOB, CAROL],
        not_senders=[CAROL],
        rooms=[ROOM, OTHER],
        not_rooms=[OTHER],
    )

    assert admits(it, "m.reaction")
    assert not admits(it, "m.room.message")
    assert not admits(it, "m.reaction", CAROL)
    assert not admits(it, "m.reaction", BOB, OTHER)


@pytest.mark.parametrize("key", ["types", "senders", "rooms"])
def test_an_empty_list_of_what_to_include_admits_nothing(key: str) -> None:
    assert not admits(room_events(**{key: []}))
    assert admits(room_events(**{f"not_{key}": []}))


def test_lists_admit_only_what_is_in_them() -> None:
    assert admits(room_events(senders=[BOB]))
    assert not admits(room_events(senders=[CAROL]))
    assert not admits(room_events(not_senders=[BOB]))
    assert admits(room_events(rooms=[ROOM]))
    assert not admits(room_events(rooms=[OTHER]))
    assert not admits(room_events(not_rooms=[ROOM]))


def test_events_without_a_sender_are_none_of_the_named_senders() -> None:
    assert admits(EVERYTHING.presence, "m.typing", None)
    assert admits(room_events(not_senders=[BOB]), "m.typing", None)
    assert not admits(room_events(senders=[BOB]), "m.typing", None)


def test_contains_url_asks_for_the_key_only() -> None:
    with_url: list[object] = [{"url": "mxc://a/b"}, {"url": None}]
    without: list[object] = [{}, {"info": {"url": 1}}, None, ["url"], "url"]

    for content in with_url:
        assert admits(room_events(contains_url=True), content=content)
        assert not admits(room_events(contains_url=False), content=content)
        assert admits(room_events(), content=content)
    for content in without:
        assert not admits(room_events(contains_url=True), content=content)
        assert admits(room_events(contains_url=False), content=content)


def test_a_filter_of_presence_knows_no_rooms() -> None:
    it = filters.parse({"presence": {"types": ["m.presence"], "not_rooms": [ROOM]}})

    assert filters.matches(it.presence, "m.presence", BOB)
    assert not filters.matches(it.presence, "m.typing", BOB)


def test_rooms_are_admitted_by_the_filter_for_rooms() -> None:
    def admitted(**room: list[str]) -> list[str]:
        it = filters.parse({"room": room})
        return [room_id for room_id in (ROOM, OTHER) if filters.admits_room(it.room, room_id)]

    assert admitted() == [ROOM, OTHER]
    assert admitted(rooms=[ROOM]) == [ROOM]
    assert admitted(not_rooms=[ROOM]) == [OTHER]
    assert admitted(rooms=[ROOM], not_rooms=[ROOM]) == []
    assert admitted(rooms=[]) == []


# Fields

EVENT: Json = {
    "type": "m.room.message",
    "sender": BOB,
    "content": {
        "body": "hi",
        "m.relates_to": {"rel_type": "m.thread", "event_id": "$x"},
        "m": {"relates_to": "a trap"},
        "back\\slash": 1,
        "nothing": None,
    },
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["type", "sender"], {"type": "m.room.message", "sender": BOB}),
        (["content.body"], {"content": {"body": "hi"}}),
        (
            [r"content.m\.relates_to.rel_type"],
            {"content": {"m.relates_to": {"rel_type": "m.thread"}}},
        ),
        (["content.m.relates_to"], {"content": {"m": {"relates_to": "a trap"}}}),
        ([r"content.back\\slash"], {"content": {"back\\slash": 1}}),
        (["content.nothing", "unsigned"], {"content": {"nothing": None}}),
        (["content.body.x", "type.x"], {"content": {}}),
        (["content.body", "content"], {"content": EVENT["content"]}),
        (["content", "content.body"], {"content": EVENT["content"]}),
        ([], {}),
    ],
)
def test_only_the_named_fields_are_picked(fields: list[str], expected: Json) -> None:
    before = copy.deepcopy(EVENT)

    picked = filters.pick(EVENT, filters.parse({"event_fields": fields}).event_fields)

    assert picked == expected
    assert before == EVENT


def test_without_event_fields_the_event_is_whole() -> None:
    assert filters.pick(EVENT, EVERYTHING.event_fields) is EVENT


# Properties

any_json = pdus.json_values(pdus.numbers_of_old_rooms)
KEYS = ["types", "senders", "not_rooms", "limit", "contains_url", "timeline", "state", "rooms"]
objects = st.dictionaries(
    st.sampled_from(KEYS),
    any_json | st.lists(st.sampled_from([BOB, ROOM, "m.*"])) | st.just({"types": ["m.*"]}),
)


@given(st.dictionaries(st.sampled_from(["room", "presence", "event_fields"]), any_json | objects))
def test_any_json_is_a_filter_or_a_value_error(json: Json) -> None:
    try:
        timeline = filters.parse(json).room.timeline
    except ValueError:
        timeline = RoomEventFilter(types=filters.Types([]))

    assert admits(timeline, "m.x") in {True, False}


@given(pdus.json_values(), st.lists(pdus.texts))
def test_what_is_picked_was_in_the_event(content: object, names: list[str]) -> None:
    event = {"type": "x", "content": content}
    fields = filters.parse({"event_fields": [f"content.{name}" for name in names]}).event_fields

    def is_part(part: object, whole: object) -> bool:
        if isinstance(part, dict) and isinstance(whole, dict):
            return all(key in whole and is_part(part[key], whole[key]) for key in part)
        return part == whole

    assert is_part(filters.pick(event, fields), event)


def test_the_error_is_the_one_of_the_library_for_typed_decoding() -> None:
    # Views turn it into M_BAD_JSON like that of any other body.
    with pytest.raises(msgspec.ValidationError):
        filters.parse({"room": {"timeline": {"senders": ["bob"]}}})
