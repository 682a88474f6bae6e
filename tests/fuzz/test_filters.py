"""Filters compared with a simple model that follows the sentences of the specification."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from homebody.spec import filters, identifiers
from homebody.spec.events import Json
from tests.fuzz import examples
from tests.fuzz.test_canonical_json import decoded_values

USERS = ["@alice:example.org", "@bob:example.org", "@:example.org", "@A b:[::1]"]
ROOMS = ["!a:example.org", "!" + "R" * 43]
TYPES = [
    "m.room.message",
    "m.room.member",
    "m",
    "",
    "*",
    "a*c",
    "m.room.*",
    "*.*e",
    "**",
    "?",
    "m?",
]

wrong = decoded_values | st.sampled_from(
    [2**63, -1, 0.0, math.nan, math.inf, "\ud800", [["x"]], {"a": []}, [None], "true", b"bytes"]
)


def lists_of(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), max_size=3)


types = st.sampled_from(TYPES) | st.text("am.*?", max_size=5)
event_filter: dict[str, st.SearchStrategy[Any]] = {
    "limit": st.integers(0, 2**70),
    "types": st.lists(types, max_size=3),
    "not_types": st.lists(types, max_size=2),
    "senders": lists_of(USERS),
    "not_senders": lists_of(USERS),
}
room_event_filter = event_filter | {
    "rooms": lists_of(ROOMS),
    "not_rooms": lists_of(ROOMS),
    "contains_url": st.booleans(),
    "lazy_load_members": st.booleans(),
    "include_redundant_members": st.booleans(),
    "unread_thread_notifications": st.booleans(),
    "related_by_rel_types": st.lists(types, max_size=2),
    "related_by_senders": lists_of(USERS),
}
room_events = st.fixed_dictionaries({}, optional=room_event_filter)
room_filter: dict[str, st.SearchStrategy[Any]] = {
    "rooms": lists_of(ROOMS),
    "not_rooms": lists_of(ROOMS),
    "include_leave": st.booleans(),
    "timeline": room_events,
    "state": room_events,
    "ephemeral": room_events,
    "account_data": room_events,
}
whole_filter: dict[str, st.SearchStrategy[Any]] = {
    "event_fields": st.lists(st.text("ab.\\", max_size=5), max_size=4),
    "event_format": st.sampled_from(["client", "federation"]),
    "presence": st.fixed_dictionaries({}, optional=event_filter),
    "account_data": st.fixed_dictionaries({}, optional=event_filter),
    "room": st.fixed_dictionaries({}, optional=room_filter),
}
good_filters = st.fixed_dictionaries({}, optional=whole_filter)


def nearly(parts: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    """Return objects with these keys, whose values are sometimes of another type."""
    return st.fixed_dictionaries(
        {}, optional={key: st.one_of(part, part, part, wrong) for key, part in parts.items()}
    )


near_filters = nearly(
    whole_filter
    | {
        "presence": nearly(event_filter),
        "room": nearly(room_filter | {"timeline": nearly(room_event_filter)}),
        "unknown": wrong,
    }
)
event_types = st.sampled_from(TYPES) | st.text("am.*?c", max_size=6)
contents = st.sampled_from([{}, {"url": None}, {"url": "mxc://a/b"}, {"info": {"url": 1}}]) | wrong
senders = st.sampled_from([*USERS, None])


def fits(pattern: str, text: str) -> bool:
    """Return whether a pattern matches; `*` is its only wildcard."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
    return text[:1] == pattern[0] and fits(pattern[1:], text[1:])


def is_admitted(it: Json, event_type: str, sender: str | None, room_id: str, content: Any) -> bool:
    """Apply the sentences of client-server-api#filtering one by one."""
    has_url = isinstance(content, dict) and "url" in content
    return all(
        [
            "types" not in it or any(fits(pattern, event_type) for pattern in it["types"]),
            not any(fits(pattern, event_type) for pattern in it.get("not_types", [])),
            "senders" not in it or sender in it["senders"],
            sender not in it.get("not_senders", []),
            "rooms" not in it or room_id in it["rooms"],
            room_id not in it.get("not_rooms", []),
            "contains_url" not in it or it["contains_url"] == has_url,
        ]
    )


@examples(120)
@given(room_events, event_types, senders, st.sampled_from(ROOMS), contents)
@example({"types": ["*"], "not_types": ["*"]}, "m", None, ROOMS[0], {})
@example({"types": []}, "m", None, ROOMS[0], {})
@example({"senders": []}, "m", None, ROOMS[0], {})
def test_a_filter_admits_what_its_sentences_say(
    json: Json, event_type: str, sender: str | None, room_id: str, content: Any
) -> None:
    it = filters.parse_room_event_filter(json)

    admitted = filters.matches(it, event_type, sender, room_id, content)

    assert admitted == is_admitted(json, event_type, sender, room_id, content)
    # again, as results for types are cached
    assert filters.matches(it, event_type, sender, room_id, content) == admitted
    assert it.limit == json.get("limit")


@examples(40)
@given(good_filters, event_types, senders, st.sampled_from(ROOMS))
def test_every_part_of_a_filter_says_what_it_says_alone(
    json: Json, event_type: str, sender: str | None, room_id: str
) -> None:
    it = filters.parse(json)
    room = json.get("room", {})

    for part, told in [
        *((getattr(it.room, name), room.get(name, {})) for name in ("timeline", "state")),
        *((getattr(it.room, name), room.get(name, {})) for name in ("ephemeral", "account_data")),
        *((getattr(it, name), json.get(name, {})) for name in ("presence", "account_data")),
    ]:
        expected = is_admitted(told, event_type, sender, room_id, {})
        assert filters.matches(part, event_type, sender, room_id, {}) == expected
    of_rooms = {key: room[key] for key in ("rooms", "not_rooms") if key in room}
    assert filters.admits_room(it.room, room_id) == is_admitted(of_rooms, "", None, room_id, {})


@examples(120)
@given(near_filters | wrong, event_types, senders, wrong, contents)
@example({"room": {"timeline": {"limit": 2**63}}}, "m", None, "!", {})
@example({"room": {"timeline": {"limit": math.nan}}}, "m", None, "!", {})
@example({"presence": {"types": ["\ud800*"]}}, "\ud800", None, "!", {})
@example({"room": {"rooms": [["!a:b"]]}}, "m", None, "!", {})
@example({"event_fields": ["\\", "a\\.b", ".", "..", ""]}, "m", None, "!", {})
def test_any_json_is_a_filter_that_can_be_asked_or_a_value_error(
    json: Any, event_type: str, sender: str | None, room_id: Any, content: Any
) -> None:
    room_id = room_id if isinstance(room_id, str) else "!a:example.org"
    try:
        it = filters.parse(json)
    except ValueError:
        return

    parts = (it.presence, it.account_data, it.room.timeline, it.room.state, it.room.ephemeral)
    for part in parts:
        assert type(filters.matches(part, event_type, sender, room_id, content)) is bool
        assert part.limit is None or part.limit >= 0
        assert all(identifiers.is_user_id(user_id) for user_id in part.senders or ())
    assert type(filters.admits_room(it.room, room_id)) is bool
    picked = filters.pick({"type": event_type, "content": content, "": {"": 1}}, it.event_fields)
    assert picked.keys() <= {"type", "content", ""}


def picked_by_hand(event: Any, paths: list[list[str]]) -> Any:
    """Return an object reduced to these paths."""
    left = {}
    for name, value in event.items():
        below = [path[1:] for path in paths if path[0] == name]
        if [] in below:
            left[name] = value
        elif below and isinstance(value, dict):
            left[name] = picked_by_hand(value, below)
    return left


names = st.text("ab.\\", max_size=3)
objects = st.recursive(
    st.integers(0, 3), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8
).filter(lambda value: isinstance(value, dict))


@examples(80)
@given(objects, st.lists(st.lists(names, min_size=1, max_size=3), max_size=4))
@example({"a": {"b": 1}}, [["a"], ["a", "b"]])
@example({"": {"": 1}}, [["", ""]])
@example({"a\\": {".": 1}}, [["a\\", "."]])
def test_event_fields_pick_what_their_paths_name(event: Json, paths: list[list[str]]) -> None:
    escaped = [
        ".".join(name.replace("\\", "\\\\").replace(".", "\\.") for name in path) for path in paths
    ]

    it = filters.parse({"event_fields": escaped})

    assert filters.pick(event, it.event_fields) == picked_by_hand(event, paths)


@pytest.mark.parametrize("pattern", ["*a" * 120, "*" * 255, "*a" * 60 + "b", "a*" * 127])
def test_no_pattern_takes_long(pattern: str) -> None:
    it = filters.parse_room_event_filter({"types": [pattern] * 1000, "not_types": [pattern[::-1]]})

    started = time.thread_time()
    for number in range(100):
        filters.matches(it, "a" * 254 + str(number % 10), None, ROOMS[0])

    assert time.thread_time() - started < 1
