"""EDUs as other servers send them: typing, presence, receipts, to-device messages, device changes.

One function for each type. It takes the content and the sending server, and returns what is usable:
None, or a list without the entries that are malformed or belong to users of another server. An EDU
is never an error, as nobody could correct it. Whether users are in a room is up to the caller.

Spec: server-server-api#edus
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple, TypeGuard

from homebody.spec import canonical_json, identifiers, room_state
from homebody.spec.events import Json

PRESENCES: Final = ("offline", "unavailable", "online")


class Typing(NamedTuple):
    """Whether a user is typing in a room."""

    room_id: str
    user_id: str
    is_typing: bool


class Presence(NamedTuple):
    """The presence of a user."""

    user_id: str
    presence: str
    status_msg: str | None
    last_active_ago_ms: int | None
    """None if the server doesn't say."""
    is_currently_active: bool


class Receipt(NamedTuple):
    """How far a user has read in a room, publicly (`m.read`)."""

    room_id: str
    user_id: str
    event_ids: list[str]
    """At least one."""
    ts: int
    thread_id: str | None


class ToDeviceMessages(NamedTuple):
    """Messages of one user to devices of ours."""

    sender: str
    type: str
    message_id: str
    """Unique for the sending server."""
    messages: dict[str, dict[str, Json]]
    """{user_id: {device_id or "*": content}}"""


class DeviceListUpdate(NamedTuple):
    """A change of one device."""

    user_id: str
    device_id: str
    stream_id: int
    prev_ids: list[int]
    """The stream IDs of the changes before this one; if one is unknown, changes were lost."""
    is_deleted: bool
    display_name: str | None
    keys: Json | None
    """The signed device keys; None if the device has none."""


class SigningKeyUpdate(NamedTuple):
    """The new cross-signing keys of a user, at least one of them."""

    user_id: str
    master_key: Json | None
    self_signing_key: Json | None


def type_and_content(edu: Any) -> tuple[str, Json] | None:
    """Return the type and content of an EDU in a transaction."""
    if not isinstance(edu, dict):
        return None
    edu_type, content = edu.get("edu_type"), edu.get("content")
    return (edu_type, content) if isinstance(edu_type, str) and _is_object(content) else None


def typing(content: Json, origin: str) -> Typing | None:
    """Read an `m.typing`. Spec: server-server-api#typing-notifications."""
    room_id, user_id = content.get("room_id"), content.get("user_id")
    is_typing = content.get("typing")
    if not identifiers.is_room_id(room_id) or not isinstance(is_typing, bool):
        return None
    return Typing(room_id, user_id, is_typing) if _is_user_of(user_id, origin) else None


def presence(content: Json, origin: str) -> list[Presence]:
    """Read an `m.presence`. Spec: server-server-api#presence."""
    found = []
    for entry in _list(content.get("push")):
        if not _is_object(entry) or not _is_user_of(entry.get("user_id"), origin):
            continue
        if entry.get("presence") not in PRESENCES:
            continue
        ago_ms = entry.get("last_active_ago")
        found.append(
            Presence(
                entry["user_id"],
                entry["presence"],
                _text(entry.get("status_msg")),
                ago_ms if _is_natural(ago_ms) else None,
                entry.get("currently_active") is True,
            )
        )
    return found


def receipts(content: Json, origin: str) -> list[Receipt]:
    """Read an `m.receipt`. Spec: server-server-api#receipts."""
    found = []
    for room_id, by_type in content.items():
        if not identifiers.is_room_id(room_id) or not _is_object(by_type):
            continue
        for user_id, entry in _items(by_type.get("m.read")):
            if _is_user_of(user_id, origin) and _is_receipt(entry):
                data = entry["data"]
                event_ids = entry["event_ids"]
                found.append(
                    Receipt(room_id, user_id, event_ids, data["ts"], data.get("thread_id"))
                )
    return found


def direct_to_device(content: Json, origin: str) -> ToDeviceMessages | None:
    """Read an `m.direct_to_device`. Spec: server-server-api#send-to-device-messaging."""
    sender, event_type = content.get("sender"), content.get("type")
    message_id = content.get("message_id")
    # The specification allows ids of 32 characters, but some servers use transaction IDs of clients
    if not _is_user_of(sender, origin) or not _is_short(event_type) or not _is_short(message_id):
        return None
    messages = {
        user_id: by_device
        for user_id, devices in _items(content.get("messages"))
        if identifiers.is_user_id(user_id) and (by_device := _messages(devices))
    }
    return ToDeviceMessages(sender, event_type, message_id, messages) if messages else None


def device_list_update(content: Json, origin: str) -> DeviceListUpdate | None:
    """Read an `m.device_list_update`. Spec: server-server-api#device-management.

    One that is dropped is noticed later, when the next one names its `stream_id`.
    """
    user_id, device_id = content.get("user_id"), content.get("device_id")
    stream_id, prev_ids = content.get("stream_id"), content.get("prev_id") or []
    if not _is_user_of(user_id, origin) or not _is_short(device_id):
        return None
    if not is_integer(stream_id) or not _are_integers(prev_ids):
        return None
    keys = content.get("keys")
    if keys is not None and not is_device_keys(keys, user_id, device_id):
        return None
    is_deleted = content.get("deleted") is True
    display_name = _text(content.get("device_display_name"))
    return DeviceListUpdate(user_id, device_id, stream_id, prev_ids, is_deleted, display_name, keys)


def signing_key_update(content: Json, origin: str) -> SigningKeyUpdate | None:
    """Read an `m.signing_key_update`, or `org.matrix.signing_key_update` of older servers.

    Spec: server-server-api#end-to-end-encryption
    """
    user_id = content.get("user_id")
    if not _is_user_of(user_id, origin):
        return None
    master, self_signing = (
        key if is_cross_signing_key(key := content.get(f"{usage}_key"), user_id, usage) else None
        for usage in ("master", "self_signing")
    )
    if master is None and self_signing is None:
        return None
    return SigningKeyUpdate(user_id, master, self_signing)


def is_device_keys(value: Any, user_id: str, device_id: str) -> bool:
    """Return whether this has the form of the signed keys of that device.

    Also for responses of other servers. Signatures are left to the clients, which verify them.
    """
    return (
        _is_object(value)
        and value.get("user_id") == user_id
        and value.get("device_id") == device_id
        and isinstance(value.get("algorithms"), list)
        and all(isinstance(algorithm, str) for algorithm in value["algorithms"])
        and _are_texts(value.get("keys"))
        and _are_signatures(value.get("signatures"))
    )


def is_cross_signing_key(value: Any, user_id: str, usage: str) -> bool:
    """Return whether this has the form of a user's `master` or `self_signing` key.

    Also for responses of other servers. Signatures are left to the clients, which verify them.
    """
    return (
        _is_object(value)
        and value.get("user_id") == user_id
        and usage in _list(value.get("usage"))
        and _are_texts(value.get("keys"))
        and len(value["keys"]) == 1
        and _are_signatures(value.get("signatures", {}))
    )


def is_integer(value: Any) -> TypeGuard[int]:
    """Return whether this is an integer that JSON of the specification may have."""
    return type(value) is int and abs(value) <= canonical_json.MAX_INTEGER  # bool is a subclass


def _is_receipt(entry: Any) -> bool:
    """Return whether this is an entry of `m.read` with events, time and thread."""
    if not _is_object(entry) or not _is_object(data := entry.get("data")):
        return False
    event_ids = _list(entry.get("event_ids"))
    return (
        len(event_ids) > 0
        and all(_is_short(event_id) and event_id[0] == "$" for event_id in event_ids)
        and _is_natural(data.get("ts"))
        and ("thread_id" not in data or _is_short(data["thread_id"]))
    )


def _messages(devices: Any) -> dict[str, Json]:
    return {
        device_id: message
        for device_id, message in _items(devices)
        if _is_short(device_id) and _is_object(message)
    }


def _is_user_of(user_id: Any, server_name: str) -> TypeGuard[str]:
    return identifiers.is_user_id(user_id) and room_state.domain_of(user_id) == server_name


def _is_object(value: Any) -> TypeGuard[Json]:
    return isinstance(value, dict)


def _is_short(value: Any) -> TypeGuard[str]:
    """Return whether this is a text of 1 to 255 bytes."""
    return isinstance(value, str) and value != "" and identifiers.has_at_most_255_bytes(value)


def _is_natural(value: Any) -> TypeGuard[int]:
    return is_integer(value) and value >= 0


def _are_integers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(is_integer(number) for number in value)


def _are_texts(value: Any) -> bool:
    return _is_object(value) and all(isinstance(text, str) for text in value.values())


def _are_signatures(value: Any) -> bool:
    return _is_object(value) and all(_are_texts(by_key) for by_key in value.values())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    yield from value.items() if isinstance(value, dict) else ()
