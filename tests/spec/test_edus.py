"""EDUs from other servers: what is usable of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homebody.spec import edus
from homebody.spec.events import Json
from tests.spec import pdus

ORIGIN = "example.org"
ALICE = "@alice:example.org"
BOB = "@bob:example.net"
ROOM = "!room:example.com"
NEW_ROOM = "!" + "R" * 43
EVENT = "$" + "e" * 43

TYPING: Json = {"room_id": ROOM, "user_id": ALICE, "typing": True}
PRESENCE: Json = {
    "user_id": ALICE,
    "presence": "online",
    "status_msg": "Making cupcakes",
    "last_active_ago": 5000,
    "currently_active": True,
}
RECEIPT: Json = {"event_ids": [EVENT], "data": {"ts": 1_533_358_089_009}}
RECEIPTS: Json = {ROOM: {"m.read": {ALICE: RECEIPT}}}
MESSAGE: Json = {"algorithm": "m.megolm.v1.aes-sha2"}
TO_DEVICE: Json = {
    "sender": ALICE,
    "type": "m.room_key_request",
    "message_id": "hiezohf6Hoo7kaev",
    "messages": {BOB: {"IWHQUZUIAH": MESSAGE, "*": MESSAGE}},
}
DEVICE_KEYS: Json = {
    "user_id": ALICE,
    "device_id": "JLAFKJWSCS",
    "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
    "keys": {"curve25519:JLAFKJWSCS": "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI"},
    "signatures": {ALICE: {"ed25519:JLAFKJWSCS": "dSO80A01XiigH3uBiDVx"}},
}
UPDATE: Json = {
    "user_id": ALICE,
    "device_id": "JLAFKJWSCS",
    "device_display_name": "Mobile",
    "stream_id": 6,
    "prev_id": [5],
    "deleted": False,
    "keys": DEVICE_KEYS,
}
MASTER: Json = {"user_id": ALICE, "usage": ["master"], "keys": {"ed25519:base64": "base64"}}
SELF_SIGNING: Json = {
    "user_id": ALICE,
    "usage": ["self_signing"],
    "keys": {"ed25519:other": "other"},
    "signatures": {ALICE: {"ed25519:base64": "signature"}},
}
SIGNING_KEYS: Json = {"user_id": ALICE, "master_key": MASTER, "self_signing_key": SELF_SIGNING}

not_text: list[Any] = [None, 1, True, [], {}, ""]
not_object: list[Any] = [None, 1, True, [], "text"]
not_integer: list[Any] = [None, "1", True, 1.5, [], {}, 2**53]
not_user: list[Any] = [
    *not_text,
    "alice",
    "@alice",
    BOB,
    "@alice:example.org:1",
    "@a b:sub.example.org ",
]

EVERY: list[tuple[Callable[[Json, str], Any], Json]] = [
    (edus.typing, TYPING),
    (edus.presence, {"push": [PRESENCE]}),
    (edus.receipts, RECEIPTS),
    (edus.direct_to_device, TO_DEVICE),
    (edus.device_list_update, UPDATE),
    (edus.signing_key_update, SIGNING_KEYS),
]


def changes(*wrong: tuple[str, list[Any]]) -> list[tuple[str, Any]]:
    """Return (key, value) of each wrong value of each key."""
    return [(key, value) for key, values in wrong for value in values]


def test_an_edu_has_a_type_and_an_object_as_content() -> None:
    assert edus.type_and_content({"edu_type": "m.x", "content": {"a": 1}}) == ("m.x", {"a": 1})
    malformed: list[Any] = [None, [], "m.x", {}, {"edu_type": 1, "content": {}}]
    for wrong in [*malformed, {"edu_type": "m.x"}]:
        assert edus.type_and_content(wrong) is None
    assert edus.type_and_content({"edu_type": "m.x", "content": []}) is None


@pytest.mark.parametrize(("read", "content"), EVERY)
def test_an_edu_of_another_servers_user_is_dropped(
    read: Callable[[Json, str], Any], content: Json
) -> None:
    assert read(content, ORIGIN)
    assert not read(content, "example.net")
    assert not read(content, "xample.org")
    assert not read(content, "example.org:8448")
    assert not read({}, ORIGIN)


@pytest.mark.parametrize(("read", "content"), EVERY)
@settings(max_examples=30)
@given(data=st.data())
def test_no_content_causes_an_error(
    read: Callable[[Json, str], Any], content: Json, data: st.DataObject
) -> None:
    changed = copy.deepcopy(content)
    place: Any = changed
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()):
            place[key] = data.draw(pdus.json_values(pdus.numbers_of_old_rooms))
            break
        place = place[key]

    read(changed, ORIGIN)


# Typing


@pytest.mark.parametrize("room_id", [ROOM, NEW_ROOM])
@pytest.mark.parametrize("is_typing", [True, False])
def test_a_typing_notification_is_read(room_id: str, is_typing: bool) -> None:
    content = {**TYPING, "room_id": room_id, "typing": is_typing, "timeout": 5}

    assert edus.typing(content, ORIGIN) == (room_id, ALICE, is_typing)


@pytest.mark.parametrize(
    ("key", "value"),
    changes(
        ("room_id", [*not_text, "#room:example.com", "!"]),
        ("user_id", not_user),
        ("typing", [None, 1, "true"]),
    ),
)
def test_a_malformed_typing_notification_is_dropped(key: str, value: Any) -> None:
    assert edus.typing({**TYPING, key: value}, ORIGIN) is None


# Presence


def test_presence_is_read() -> None:
    least = {"user_id": "@b:example.org", "presence": "offline"}

    found = edus.presence({"push": [PRESENCE, least]}, ORIGIN)

    assert found == [
        (ALICE, "online", "Making cupcakes", 5000, True),
        ("@b:example.org", "offline", None, None, False),
    ]


@pytest.mark.parametrize("push", not_object)
def test_presence_without_a_list_is_empty(push: Any) -> None:
    assert edus.presence({"push": push}, ORIGIN) == []


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "text",
        [],
        {"user_id": ALICE},
        {**PRESENCE, "user_id": BOB},
        {**PRESENCE, "presence": "busy"},
        {**PRESENCE, "presence": ["online"]},
        {**PRESENCE, "presence": {}},
    ],
)
def test_a_malformed_presence_leaves_the_others(entry: Any) -> None:
    found = edus.presence({"push": [entry, PRESENCE, entry]}, ORIGIN)

    assert [it.user_id for it in found] == [ALICE]


def test_malformed_details_of_a_presence_are_ignored() -> None:
    wrong: Json = {"status_msg": {}, "last_active_ago": -1, "currently_active": "yes"}

    assert edus.presence({"push": [{**PRESENCE, **wrong}]}, ORIGIN) == [
        (ALICE, "online", None, None, False)
    ]


# Receipts


def test_receipts_of_several_rooms_and_users_are_read() -> None:
    threaded = {"event_ids": ["$a:b.org", EVENT], "data": {"ts": 1, "thread_id": "main"}}
    content = {
        ROOM: {"m.read": {ALICE: RECEIPT, "@b:example.org": threaded}},
        NEW_ROOM: {"m.read": {ALICE: threaded}},
    }

    assert edus.receipts(content, ORIGIN) == [
        (ROOM, ALICE, [EVENT], 1_533_358_089_009, None),
        (ROOM, "@b:example.org", ["$a:b.org", EVENT], 1, "main"),
        (NEW_ROOM, ALICE, ["$a:b.org", EVENT], 1, "main"),
    ]


def test_private_and_unknown_receipts_are_not_read() -> None:
    by_type = {"m.read.private": {ALICE: RECEIPT}, "m.unknown": {ALICE: RECEIPT}}

    assert edus.receipts({ROOM: by_type}, ORIGIN) == []


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {},
        {**RECEIPT, "event_ids": []},
        {**RECEIPT, "event_ids": EVENT},
        {**RECEIPT, "event_ids": [EVENT, 1]},
        {**RECEIPT, "event_ids": ["event"]},
        {**RECEIPT, "event_ids": ["$" + "a" * 255]},
        {**RECEIPT, "data": []},
        {**RECEIPT, "data": {}},
        {**RECEIPT, "data": {"ts": "1"}},
        {**RECEIPT, "data": {"ts": -1}},
        {**RECEIPT, "data": {"ts": True}},
        {**RECEIPT, "data": {"ts": 2**60}},
        {**RECEIPT, "data": {"ts": 1, "thread_id": ""}},
        {**RECEIPT, "data": {"ts": 1, "thread_id": None}},
    ],
)
def test_a_malformed_receipt_leaves_the_others(wrong: Any) -> None:
    content = {
        "!wrong": RECEIPTS[ROOM],
        NEW_ROOM: wrong,
        ROOM: {"m.read": {"@b:example.org": wrong, BOB: RECEIPT, ALICE: RECEIPT}},
        "!other:example.com": {"m.read": wrong},
    }

    assert [it[:2] for it in edus.receipts(content, ORIGIN)] == [(ROOM, ALICE)]


# To-device messages


def test_messages_to_devices_are_read() -> None:
    assert edus.direct_to_device(TO_DEVICE, ORIGIN) == tuple(TO_DEVICE.values())


@pytest.mark.parametrize(
    ("key", "value"),
    changes(
        ("sender", not_user),
        ("type", [*not_text, "a" * 256]),
        ("message_id", [*not_text, "a" * 256]),
        ("messages", [*not_object, {}, {BOB: {}}, {BOB: []}, {"bob": {"*": {}}}]),
    ),
)
def test_malformed_messages_to_devices_are_dropped(key: str, value: Any) -> None:
    assert edus.direct_to_device({**TO_DEVICE, key: value}, ORIGIN) is None


def test_a_malformed_message_to_a_device_leaves_the_others() -> None:
    messages = {
        BOB: {"A": MESSAGE, "B": "text", "C": None, "": MESSAGE, "D" * 256: MESSAGE},
        "bob": {"A": MESSAGE},
        "@carol:example.net": "text",
        "@dave:example.net": {"*": {}},
    }

    found = edus.direct_to_device({**TO_DEVICE, "messages": messages}, ORIGIN)

    assert found is not None
    assert found.messages == {BOB: {"A": MESSAGE}, "@dave:example.net": {"*": {}}}


# Devices


def test_a_device_list_update_is_read() -> None:
    expected = (ALICE, "JLAFKJWSCS", 6, [5], False, "Mobile", DEVICE_KEYS)

    assert edus.device_list_update(UPDATE, ORIGIN) == expected


@pytest.mark.parametrize("prev_id", [{}, {"prev_id": []}, {"prev_id": None}])
def test_the_first_device_list_update_has_no_previous_one(prev_id: Json) -> None:
    content = {"user_id": ALICE, "device_id": "A", "stream_id": 1, "deleted": True, **prev_id}

    assert edus.device_list_update(content, ORIGIN) == (ALICE, "A", 1, [], True, None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    changes(
        ("user_id", not_user),
        ("device_id", [*not_text, "a" * 256, "OTHER"]),
        ("stream_id", not_integer),
        ("prev_id", [5, "5", {"5": 5}, ["5"], [None], [True], [1.5]]),
        ("keys", [1, [], {}, {**DEVICE_KEYS, "user_id": BOB}, {**DEVICE_KEYS, "device_id": "B"}]),
        ("keys", [{**DEVICE_KEYS, "algorithms": {}}, {**DEVICE_KEYS, "algorithms": [1]}]),
        ("keys", [{**DEVICE_KEYS, "keys": []}, {**DEVICE_KEYS, "keys": {"a": 1}}]),
        ("keys", [{**DEVICE_KEYS, "signatures": None}, {**DEVICE_KEYS, "signatures": {"a": 1}}]),
    ),
)
def test_a_malformed_device_list_update_is_dropped(key: str, value: Any) -> None:
    assert edus.device_list_update({**UPDATE, key: value}, ORIGIN) is None


def test_malformed_details_of_a_device_are_ignored() -> None:
    found = edus.device_list_update(
        {**UPDATE, "deleted": "no", "device_display_name": 5, "keys": None}, ORIGIN
    )

    assert found is not None
    assert (found.is_deleted, found.display_name, found.keys) == (False, None, None)


# Cross-signing keys


def test_an_update_of_cross_signing_keys_is_read() -> None:
    without = {"user_id": ALICE, "master_key": MASTER}

    assert edus.signing_key_update(SIGNING_KEYS, ORIGIN) == (ALICE, MASTER, SELF_SIGNING)
    assert edus.signing_key_update(without, ORIGIN) == (ALICE, MASTER, None)


@pytest.mark.parametrize("user_id", not_user)
def test_cross_signing_keys_of_another_user_are_dropped(user_id: Any) -> None:
    assert edus.signing_key_update({**SIGNING_KEYS, "user_id": user_id}, ORIGIN) is None


@pytest.mark.parametrize(
    "key",
    [
        *not_object,
        SELF_SIGNING,
        {**MASTER, "user_id": BOB},
        {**MASTER, "usage": "master"},
        {**MASTER, "usage": []},
        {**MASTER, "keys": {}},
        {**MASTER, "keys": {"ed25519:a": "a", "ed25519:b": "b"}},
        {**MASTER, "keys": {"ed25519:a": 1}},
        {**MASTER, "keys": []},
        {**MASTER, "signatures": []},
        {**MASTER, "signatures": {ALICE: "signature"}},
    ],
)
def test_a_malformed_cross_signing_key_leaves_the_other(key: Any) -> None:
    assert edus.signing_key_update({**SIGNING_KEYS, "master_key": key}, ORIGIN) == (
        ALICE,
        None,
        SELF_SIGNING,
    )
    assert edus.signing_key_update({"user_id": ALICE, "master_key": key}, ORIGIN) is None
