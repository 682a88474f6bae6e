from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homebody.spec import canonical_json, events, room_versions, signing
from homebody.spec.events import Json
from homebody.spec.room_versions import V1, V2, V3, V4, V5, V6, V10, V11, V12, RoomVersion
from tests.spec import pdus, versions

VERSIONS = [room_versions.VERSIONS[str(number)] for number in range(1, 13)]
every_version = versions.of_each(VERSIONS)


def changed(version: RoomVersion, **changes: Any) -> Json:
    """Return a signed message that was changed afterwards."""
    return {**pdus.signed(version), **changes}


def without(version: RoomVersion, key: str) -> Json:
    return {name: value for name, value in pdus.signed(version).items() if name != key}


def create_event(version: RoomVersion, **changes: Any) -> Json:
    return pdus.signed(
        version,
        type="m.room.create",
        state_key="",
        content={"room_version": version.name},
        auth_events=[],
        prev_events=[],
        depth=1,
        **changes,
    )


@every_version
def test_a_signed_message_is_well_formed(version: RoomVersion) -> None:
    pdu = changed(version, unsigned={"age": 5}, unknown={"key": [1, None, "x"]})
    before = copy.deepcopy(pdu)

    events.check_format(pdu, version)

    assert pdu == before


@every_version
def test_a_well_formed_pdu_can_be_read(version: RoomVersion) -> None:
    pdu = pdus.signed(version, state_key="@alice:example.org")
    events.check_format(pdu, version)

    event = events.Event(signing.event_id_of(pdu, version), pdu, version)

    assert (event.type, event.state_key) == ("m.room.message", "@alice:example.org")
    assert event.room_id == pdus.room_id(version)
    assert len(event.auth_event_ids) == 3
    assert all(isinstance(event_id, str) for event_id in event.auth_event_ids)
    assert [event_id[:7] for event_id in event.prev_event_ids] == ["$before"]


@every_version
@pytest.mark.parametrize(
    "key",
    [
        "type",
        "sender",
        "content",
        "depth",
        "origin_server_ts",
        "hashes",
        "signatures",
        "prev_events",
        "auth_events",
        "room_id",
    ],
)
def test_an_event_without_a_required_key_is_refused(version: RoomVersion, key: str) -> None:
    with pytest.raises(ValueError, match=f"^Event without .*{key}"):
        events.check_format(without(version, key), version)


@pytest.mark.parametrize("version", [V1, V2])
def test_old_events_need_an_event_id(version: RoomVersion) -> None:
    for pdu in (without(version, "event_id"), changed(version, event_id="$" + "a" * 43)):
        with pytest.raises(ValueError, match="event_id"):
            events.check_format(pdu, version)


@every_version
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("type", 1),
        ("type", None),
        ("type", "a" * 256),
        ("sender", "alice"),
        ("sender", "@" + "a" * 255 + ":b"),
        ("sender", ["@alice:example.org"]),
        ("content", []),
        ("content", "text"),
        ("content", None),
        ("depth", "1"),
        ("depth", True),
        ("depth", None),
        ("depth", -1),
        ("origin_server_ts", "1"),
        ("origin_server_ts", False),
        ("origin_server_ts", {}),
        ("hashes", {}),
        ("hashes", []),
        ("hashes", {"sha256": 1}),
        ("hashes", {"md5": "x"}),
        ("signatures", []),
        ("signatures", {"example.org": "x"}),
        ("signatures", {"example.org": {"ed25519:1": 1}}),
        ("state_key", None),
        ("state_key", 1),
        ("state_key", "a" * 256),
        ("event_id", 1),
        ("event_id", "$" + "a" * 255),
        ("redacts", 1),
        ("unsigned", []),
        ("unsigned", None),
        ("room_id", 1),
        ("room_id", "!room"),
        ("room_id", "room:example.org"),
        ("room_id", "!" + "a" * 255 + ":example.org"),
        ("prev_events", {}),
        ("prev_events", "$a"),
        ("auth_events", {}),
        ("auth_events", None),
    ],
)
def test_a_key_with_a_wrong_value_is_refused_by_name(
    version: RoomVersion, key: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^Event .*\b{key}\b"):
        events.check_format(changed(version, **{key: value}), version)


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_what_is_no_object_is_no_event(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON object"):
        events.check_format(value, V11)


@every_version
@pytest.mark.parametrize("key", ["type", "state_key"])
def test_since_version_11_the_bytes_of_a_text_are_limited(version: RoomVersion, key: str) -> None:
    longest = changed(version, **{key: "ä" * 128})

    if version.has_new_redaction_rules:
        with pytest.raises(ValueError, match=f"too long {key}"):
            events.check_format(longest, version)
    else:
        events.check_format(longest, version)
        events.check_format(changed(version, **{key: "ä" * 255}), version)


@every_version
def test_the_longest_texts_are_accepted(version: RoomVersion) -> None:
    longest = "ä" * 127 + "a"

    events.check_format(changed(version, type=longest, state_key=longest), version)


@every_version
@pytest.mark.parametrize(("key", "limit"), [("prev_events", 20), ("auth_events", 10)])
def test_the_number_of_cited_events_is_limited(version: RoomVersion, key: str, limit: int) -> None:
    cited = pdus.citations(version, *(f"event{number}" for number in range(limit + 1)))

    events.check_format(changed(version, **{key: cited[:limit]}), version)

    with pytest.raises(ValueError, match=f"more than {limit} {key}"):
        events.check_format(changed(version, **{key: cited}), version)


@versions.of_each(VERSIONS[2:])
@pytest.mark.parametrize(
    "citation", [1, None, "", "event", "$event:example.org", ["$" + "a" * 43, {"sha256": "x"}]]
)
def test_events_are_cited_by_their_hash(version: RoomVersion, citation: Any) -> None:
    for key in ("prev_events", "auth_events"):
        with pytest.raises(ValueError, match=f"invalid {key}"):
            events.check_format(changed(version, **{key: [citation]}), version)


@pytest.mark.parametrize("version", [V1, V2])
@pytest.mark.parametrize(
    "citation",
    [
        1,
        "$event:example.org",
        [],
        ["$event:example.org"],
        ["$event:example.org", "hash"],
        ["$event:example.org", {}, {}],
        ["$" + "a" * 43, {"sha256": "x"}],
        [{"sha256": "x"}, "$event:example.org"],
    ],
)
def test_events_of_old_rooms_are_cited_by_id_and_hashes(
    version: RoomVersion, citation: Any
) -> None:
    for key in ("prev_events", "auth_events"):
        with pytest.raises(ValueError, match=f"invalid {key}"):
            events.check_format(changed(version, **{key: [citation]}), version)


def test_the_alphabet_of_cited_ids_changed_with_version_4() -> None:
    standard, url_safe = ["$" + "+/" + "a" * 41], ["$" + "-_" + "a" * 41]

    events.check_format(changed(V3, prev_events=standard), V3)
    events.check_format(changed(V4, prev_events=url_safe), V4)

    for version, cited in ((V3, url_safe), (V4, standard)):
        with pytest.raises(ValueError, match="invalid prev_events"):
            events.check_format(changed(version, prev_events=cited), version)


@every_version
def test_an_event_may_have_65536_bytes_and_not_one_more(version: RoomVersion) -> None:
    pdu = changed(version, content={"body": ""})
    room = 65536 - len(canonical_json.encode(pdu))
    pdu["content"] = {"body": "ä" * (room // 2) + "a" * (room % 2)}

    events.check_format(pdu, version)

    pdu["content"]["body"] += "a"
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        events.check_format(pdu, version)


@pytest.mark.parametrize(
    ("version", "limit"), [(V1, 2**63), (V5, 2**63), (V6, 2**53), (V11, 2**53)]
)
def test_the_depth_is_limited_by_the_integers_of_the_version(
    version: RoomVersion, limit: int
) -> None:
    events.check_format(changed(version, depth=limit - 1), version)
    events.check_format(changed(version, depth=0), version)

    with pytest.raises(ValueError, match=r"^depth is beyond"):
        events.check_format(changed(version, depth=limit), version)


@every_version
def test_canonical_json_is_enforced_since_version_6(version: RoomVersion) -> None:
    is_strict = int(version.name) >= 6

    for number in (0.5, 2**53, -(2**53)):
        pdu = changed(version, content={"a": [number]})
        if is_strict:
            with pytest.raises(ValueError, match=r"^content\.a\.0 is"):
                events.check_format(pdu, version)
        else:
            events.check_format(pdu, version)


@every_version
@pytest.mark.parametrize("text", ["\ud800", "a\udfff"])
def test_lone_surrogates_are_refused_everywhere(version: RoomVersion, text: str) -> None:
    for changes in ({"content": {"a": text}}, {"type": text}, {"content": {text: 1}}, {text: 1}):
        with pytest.raises(ValueError, match="surrogates"):
            events.check_format(changed(version, **changes), version)


@every_version
def test_an_event_nested_very_deep_is_refused(version: RoomVersion) -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = {"a": deep}

    with pytest.raises(ValueError, match="nested deeper"):
        events.check_format(changed(version, content=deep), version)


def test_a_create_event_has_no_room_id_since_version_12() -> None:
    without_room, with_room = create_event(V12, room_id=None), create_event(V12)

    events.check_format(without_room, V12)
    events.check_format(create_event(V11), V11)

    with pytest.raises(ValueError, match="Create event with a room_id"):
        events.check_format(with_room, V12)
    with pytest.raises(ValueError, match="without a room_id that is valid"):
        events.check_format(create_event(V11, room_id=None), V11)


def test_the_room_of_a_create_event_of_version_12_is_its_id() -> None:
    pdu = create_event(V12, room_id=None)

    event = events.Event(signing.event_id_of(pdu, V12), pdu, V12)

    assert event.room_id == "!" + event.event_id[1:]
    events.check_format(changed(V12, room_id=event.room_id), V12)


def test_the_form_of_a_room_id_belongs_to_its_version() -> None:
    for version, other in ((V11, V12), (V12, V11)):
        with pytest.raises(ValueError, match="without a room_id that is valid"):
            events.check_format(changed(version, room_id=pdus.room_id(other)), version)


@every_version
def test_a_redaction_says_what_it_redacts_where_the_version_keeps_it(version: RoomVersion) -> None:
    target = "$" + "a" * 43
    pdu = events.build(
        version,
        room_id=pdus.room_id(version),
        sender="@alice:example.org",
        event_type="m.room.redaction",
        content={"reason": "spam"},
        auth_events=[],
        prev_events=[],
        depth=2,
        origin_server_ts=1,
        redacts=target,
        event_id="$redaction:example.org" if version.event_ids == "given" else None,
    )
    is_new = int(version.name) >= 11

    _event_id, signed = signing.add_hashes_and_signatures(pdu, version, pdus.SERVER, pdus.KEY)

    events.check_format(signed, version)
    assert ("redacts" in pdu["content"], "redacts" in pdu) == (is_new, not is_new)
    assert events.Event("$id", pdu, version).redacts == target


def test_a_built_event_never_exceeds_the_depth_of_its_version() -> None:
    def depth(version: RoomVersion) -> int:
        pdu: Json = events.build(
            version,
            room_id="!room:example.org",
            sender="@alice:example.org",
            event_type="m.room.message",
            content={},
            auth_events=[],
            prev_events=[],
            depth=2**70,
            origin_server_ts=1,
        )
        return int(pdu["depth"])

    assert [depth(version) for version in (V5, V10)] == [2**63 - 1, 2**53 - 1]


@given(pdus.versions, st.data())
def test_a_check_ends_in_peace_or_in_a_value_error(
    version: RoomVersion, data: st.DataObject
) -> None:
    pdu = pdus.signed(version)
    key = data.draw(st.sampled_from([*sorted(pdu), "state_key", "unsigned", "event_id", "redacts"]))
    pdu[key] = data.draw(pdus.json_values(pdus.numbers_of_old_rooms))

    try:
        events.check_format(pdu, version)
    except ValueError:
        return

    event = events.Event(signing.event_id_of(pdu, version), pdu, version)
    assert signing.has_valid_content_hash(pdu, version) in {True, False}
    assert event.pdu is pdu
