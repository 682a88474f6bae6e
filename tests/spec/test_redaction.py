from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import events, room_versions
from homebody.spec.events import Json
from homebody.spec.room_versions import V1, V10, V11, V12, RoomVersion
from tests.spec import pdus, versions

VERSIONS = [room_versions.VERSIONS[str(number)] for number in range(1, 13)]
TYPES = [
    "m.room.member",
    "m.room.create",
    "m.room.join_rules",
    "m.room.power_levels",
    "m.room.aliases",
    "m.room.history_visibility",
    "m.room.redaction",
    "m.room.message",
    "m.room.name",
    "m.room.third_party_invite",
    "m.room.server_acl",
]


def page(version: RoomVersion) -> str:
    """Return the specification of redactions in this room version."""
    return (pdus.VECTORS / "redactions" / f"v{version.name}.md").read_text()


def kept_keys(text: str) -> set[str]:
    """Return the keys in the page's first list."""
    return set(re.findall(r"^-   `(\w+)`$", text, re.MULTILINE))


def kept_content_keys(text: str) -> dict[str, set[str] | None]:
    """Return {event type: keys of content in the page's second list, or None for all}."""
    found: dict[str, set[str] | None] = {}
    for item in re.split(r"^-   ", text, flags=re.MULTILINE):
        rule = re.match(r"\[?`(m\.[a-z_.]+)`[^`]*\sallows\s+(all keys|keys?)([^.]*)", item)
        if rule:
            keys = set(re.findall(r"`(\w+)`", rule[3]))
            found[rule[1]] = None if rule[2] == "all keys" else keys
    return found


ALL_KEYS = set().union(*(kept_keys(page(version)) for version in VERSIONS))
ALL_CONTENT_KEYS: set[str] = set().union(
    *(keys or set() for version in VERSIONS for keys in kept_content_keys(page(version)).values())
)


def full_event(event_type: str) -> Json:
    """Return an event with every key of any version, and some unknown ones."""
    names = ALL_KEYS | {"unsigned", "redacts", "age_ts", "x"}
    content = {key: f"value of {key}" for key in ALL_CONTENT_KEYS | {"x", "body"}}
    return {key: f"value of {key}" for key in names} | {"type": event_type, "content": content}


def test_the_pages_were_understood() -> None:
    assert [len(kept_keys(page(version))) for version in VERSIONS] == [15] * 10 + [12] * 2
    assert [len(kept_content_keys(page(v))) for v in VERSIONS] == [6] * 5 + [5] * 5 + [6] * 2
    assert kept_content_keys(page(V12))["m.room.create"] is None
    assert kept_content_keys(page(V1))["m.room.aliases"] == {"aliases"}
    assert len(ALL_KEYS) == 15
    assert len(ALL_CONTENT_KEYS) == 17


@versions.of_each(VERSIONS)
@pytest.mark.parametrize("event_type", TYPES)
def test_what_stays_is_what_the_page_of_the_room_version_lists(
    version: RoomVersion, event_type: str
) -> None:
    event = full_event(event_type)
    keys, content_keys = kept_keys(page(version)), kept_content_keys(page(version))

    redacted = events.redact(event, version)

    content = redacted.pop("content")
    assert redacted == {key: event[key] for key in keys - {"content"}}
    expected = content_keys.get(event_type, set())
    if expected is None:
        assert content == event["content"]
    else:
        assert content == {key: event["content"][key] for key in expected}


@pytest.mark.parametrize(
    ("version", "invite", "expected"),
    [
        (V10, {"signed": {"mxid": "@a:b"}, "display_name": "Bob"}, None),
        (V11, {"signed": {"mxid": "@a:b"}, "display_name": "Bob"}, {"signed": {"mxid": "@a:b"}}),
        (V12, {"signed": None}, {"signed": None}),
        # As Synapse and its descendants have it: the ids of such events depend on it
        (V11, {"display_name": "Bob"}, {}),
        (V11, {}, {}),
        (V11, "text", None),
        (V11, ["signed"], None),
    ],
)
def test_of_a_third_party_invite_only_signed_stays(
    version: RoomVersion, invite: Any, expected: Json | None
) -> None:
    content = {"membership": "invite", "displayname": "Bob", "third_party_invite": invite}
    event = pdus.message(version, type="m.room.member", state_key="@bob:b", content=content)

    redacted = events.redact(event, version)

    kept = {} if expected is None else {"third_party_invite": expected}
    assert redacted["content"] == {"membership": "invite", **kept}


contents = st.dictionaries(
    st.sampled_from(sorted(ALL_CONTENT_KEYS | {"third_party_invite", "x"})), pdus.json_values()
)


@given(pdus.versions, st.sampled_from(TYPES), contents, pdus.json_objects())
def test_redacting_twice_is_redacting_once(
    version: RoomVersion, event_type: str, content: Json, others: Json
) -> None:
    event = {**others, **pdus.signed(version, type=event_type, content=content)}

    once = events.redact(event, version)

    assert events.redact(once, version) == once


@given(pdus.versions, st.sampled_from(TYPES), contents)
def test_redacting_leaves_the_original_alone(
    version: RoomVersion, event_type: str, content: Json
) -> None:
    event = pdus.signed(version, type=event_type, content=content)
    before = copy.deepcopy(event)

    events.redact(event, version)

    assert event == before
