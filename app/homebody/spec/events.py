"""An event as servers exchange it (a PDU), with its id and the rules of its room.

Every PDU from outside passes `check_format` first: a PDU that passes has the keys, types and limits
of its room version, and later code relies on that. `Event` extracts the parts that the protocol
rules need; the PDU itself is kept as it was signed.

Redaction is more than moderation: event IDs and signatures cover the redacted form only, so that
they remain valid when the content is removed. A key too many or too few here gives every event of
that type a wrong id.

Spec: server-server-api#pdus, client-server-api#size-limits, client-server-api#redactions, and
"Event format" and "Redactions" in each room version
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from homebody.spec import canonical_json, identifiers
from homebody.spec.room_versions import VERSIONS, RoomVersion

Json = dict[str, Any]
"""A JSON object. Objects from outside are checked before code relies on their shape."""
StateKey = tuple[str, str]
"""(type, state_key): the key of an entry in a room's state."""

MAX_BYTES: Final = 65536
"""The size of a PDU in canonical JSON, including signatures."""
_MAX_INTEGER: Final = {
    True: canonical_json.MAX_INTEGER,
    False: canonical_json.MAX_HISTORICAL_INTEGER,
}
"""By whether the room version enforces canonical JSON."""
_ENCODE: Final = {True: canonical_json.encode, False: canonical_json.encode_historical}
MAX_PREV_EVENTS: Final = 20
MAX_AUTH_EVENTS: Final = 10


class Event:
    """One event of a room. Immutable.

    `auth_event_ids` and `prev_event_ids` are plain lists of ids in every room version, although
    versions 1 and 2 write them as pairs of id and hash.
    """

    __slots__ = (
        "auth_event_ids",
        "content",
        "depth",
        "event_id",
        "origin_server_ts",
        "pdu",
        "prev_event_ids",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    def __init__(self, event_id: str, pdu: Json, version: RoomVersion) -> None:
        self.event_id: Final = event_id
        self.pdu: Final = pdu
        self.version: Final = version
        self.type: Final[str] = pdu["type"]
        self.sender: Final[str] = pdu["sender"]
        self.content: Final[Json] = pdu["content"]
        self.state_key: Final[str | None] = pdu.get("state_key")
        self.depth: Final[int] = pdu["depth"]
        self.origin_server_ts: Final[int] = pdu["origin_server_ts"]
        is_create = version.has_privileged_creators and self.type == "m.room.create"
        self.room_id: Final[str] = "!" + event_id[1:] if is_create else pdu["room_id"]
        has_pairs = version.event_ids == "given"
        auth_events, prev_events = pdu["auth_events"], pdu["prev_events"]
        self.auth_event_ids: Final[list[str]] = _ids(auth_events) if has_pairs else auth_events
        self.prev_event_ids: Final[list[str]] = _ids(prev_events) if has_pairs else prev_events

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r}>"

    @property
    def redacts(self) -> str | None:
        """The id of the event to redact, from the place where the room version keeps it."""
        place = self.content if self.version.has_redacts_in_content else self.pdu
        target = place.get("redacts")
        return target if isinstance(target, str) else None


def build(
    version: RoomVersion,
    *,
    room_id: str | None,
    sender: str,
    event_type: str,
    content: Json,
    auth_events: list[Any],
    prev_events: list[Any],
    depth: int,
    origin_server_ts: int,
    state_key: str | None = None,
    redacts: str | None = None,
    event_id: str | None = None,
) -> Json:
    """Return a new PDU without hashes and signatures.

    `auth_events` and `prev_events` have the form of the room version (see `signing.reference`).
    `room_id` is None for the create event of version 12, `event_id` in all versions but 1 and 2.
    """
    optional = {"room_id": room_id, "state_key": state_key, "event_id": event_id}
    if redacts is not None and version.has_redacts_in_content:
        content = {**content, "redacts": redacts}
    else:
        optional["redacts"] = redacts
    return {
        "type": event_type,
        "sender": sender,
        "content": content,
        "auth_events": auth_events,
        "prev_events": prev_events,
        "depth": min(depth, _MAX_INTEGER[version.is_canonical_json_strict]),
        "origin_server_ts": origin_server_ts,
        **{key: value for key, value in optional.items() if value is not None},
    }


def check_format(pdu: Any, version: RoomVersion, *, is_limited: bool = True) -> None:
    """Raise ValueError with a message unless this is a valid PDU of the room version.

    `is_limited`: whether the numbers of `prev_events` and `auth_events` have their limits.
    Does not check signatures, hashes and authorization. The caller drops a PDU that fails.
    """
    _require(isinstance(pdu, dict), "An event must be a JSON object")
    canonical_json.check(pdu, is_strict=version.is_canonical_json_strict)
    _require(len(canonical_json.encode(pdu)) <= MAX_BYTES, f"Event larger than {MAX_BYTES} bytes")
    for key, is_valid in _REQUIRED.items():
        _require(key in pdu, f"Event without {key}")
        _require(is_valid(pdu[key]), f"Event with invalid {key}")
    for key, is_valid in _OPTIONAL.items():
        _require(key not in pdu or is_valid(pdu[key]), f"Event with invalid {key}")
    _check_texts(pdu, version)
    _check_depth(pdu["depth"], version)
    _check_ids(pdu, version)
    max_prev, max_auth = (MAX_PREV_EVENTS, MAX_AUTH_EVENTS) if is_limited else (None, None)
    _check_references(pdu["prev_events"], "prev_events", max_prev, version)
    _check_references(pdu["auth_events"], "auth_events", max_auth, version)


def encode(pdu: Json, version: RoomVersion) -> bytes:
    """Return a PDU in the canonical JSON of its room version, in which it is hashed and stored."""
    return _ENCODE[version.is_canonical_json_strict](pdu)


def redact(pdu: Json, version: RoomVersion) -> Json:
    """Return a redacted copy of an event that passed `check_format`.

    The copy is shallow. `unsigned` is removed; `redacted_because` is added when a redacted event is
    sent to clients.
    """
    rules = _REDACTIONS[version.name]
    redacted = {key: value for key, value in pdu.items() if key in rules.top_level}
    is_emptied = pdu["type"] not in rules.content
    redacted["content"] = {} if is_emptied else _kept(pdu["type"], pdu["content"], rules)
    return redacted


def client_json(event_id: str, pdu: Json) -> bytes:
    """Return what all clients see of an event, as JSON without its closing brace.

    `room_id` and `unsigned` are added for each response.
    Spec: client-server-api#room-event-format
    """
    shown = {
        "content": pdu["content"],
        "event_id": event_id,
        "origin_server_ts": pdu["origin_server_ts"],
        "sender": pdu["sender"],
        "type": pdu["type"],
    }
    if "state_key" in pdu:
        shown["state_key"] = pdu["state_key"]
    if "msc4354_sticky" in pdu:
        shown["msc4354_sticky"] = pdu["msc4354_sticky"]
    if pdu["type"] == "m.room.member":  # also where clients of the time of r0 look
        shown["membership"] = pdu["content"]["membership"]
    redacts = pdu.get("redacts") or (
        pdu["content"].get("redacts") if pdu["type"] == "m.room.redaction" else None
    )
    if redacts is not None:  # both places, whatever the room version, as clients look for either
        shown["redacts"] = redacts
        shown["content"] = {**pdu["content"], "redacts": redacts}
    return orjson.dumps(shown)[:-1]


def _ids(references: list[Any]) -> list[str]:
    return [event_id for event_id, _hashes in references]


def _require(is_fine: bool, sentence: str) -> None:  # noqa: FBT001 - reads like an assertion
    if not is_fine:
        raise ValueError(sentence)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_integer(value: Any) -> bool:
    return type(value) is int  # not isinstance: bool is a subclass of int


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_short_text(value: Any) -> bool:
    return isinstance(value, str) and identifiers.has_at_most_255_bytes(value)


def _check_texts(pdu: Json, version: RoomVersion) -> None:
    """Check the lengths of type and state key.

    Deviates: the limit is 255 bytes, but other servers have counted characters up to version 10.
    One event that only they accept would hide from this server all that cites it.
    """
    for key in ("type", "state_key"):
        text = pdu.get(key, "")
        is_short = (
            identifiers.has_at_most_255_bytes(text)
            if version.has_new_redaction_rules
            else len(text) <= identifiers.MAX_BYTES
        )
        _require(is_short, f"Event with too long {key}")


def _are_hashes(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str)


def _are_signatures(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(by_key, dict) and all(isinstance(text, str) for text in by_key.values())
        for by_key in value.values()
    )


_REQUIRED: Final[dict[str, Callable[[Any], bool]]] = {
    "type": _is_text,
    "sender": identifiers.is_user_id,
    "content": _is_object,
    "depth": _is_integer,
    "origin_server_ts": _is_integer,
    "hashes": _are_hashes,
    "signatures": _are_signatures,
    "prev_events": lambda value: isinstance(value, list),
    "auth_events": lambda value: isinstance(value, list),
}
_OPTIONAL: Final[dict[str, Callable[[Any], bool]]] = {
    "state_key": _is_text,
    "event_id": _is_short_text,  # not used since version 3, but covered by the hash if present
    "redacts": _is_text,
    "unsigned": _is_object,
}


def _check_depth(depth: int, version: RoomVersion) -> None:
    limit = _MAX_INTEGER[version.is_canonical_json_strict]
    _require(0 <= depth <= limit, f"Event whose depth is not between 0 and {limit}")


def _check_ids(pdu: Json, version: RoomVersion) -> None:
    if version.event_ids == "given":
        is_valid = identifiers.is_event_id_of(pdu.get("event_id"), version)
        _require(is_valid, "Event without a valid event_id, which its room version requires")
    if version.has_privileged_creators and pdu["type"] == "m.room.create":
        _require("room_id" not in pdu, "Create event with a room_id, which is derived from its id")
        return
    names_server = not version.has_privileged_creators
    is_valid = identifiers.is_room_id_of(pdu.get("room_id"), names_server=names_server)
    _require(is_valid, "Event without a room_id that is valid in its room version")


def _check_references(
    references: list[Any], key: str, limit: int | None, version: RoomVersion
) -> None:
    _require(limit is None or len(references) <= limit, f"Event with more than {limit} {key}")
    for reference in references:
        _require(_is_reference(reference, version), f"Event with invalid {key}")


def _is_reference(reference: Any, version: RoomVersion) -> bool:
    """Return whether this is an event ID, or [event ID, hashes] in versions 1 and 2."""
    if version.event_ids != "given":
        return identifiers.is_event_id_of(reference, version)
    if not isinstance(reference, list) or len(reference) != 2:
        return False
    event_id, hashes = reference
    return identifiers.is_event_id_of(event_id, version) and _is_object(hashes)


@dataclass(frozen=True, slots=True)
class _Redaction:
    top_level: frozenset[str]
    content: dict[str, frozenset[str]]
    """{event type: keys of its content that are kept}. Other types keep none."""
    keeps_all_of_create: bool
    keeps_signed_of_third_party_invite: bool


def _kept(event_type: str, content: Json, rules: _Redaction) -> Json:
    if event_type == "m.room.create" and rules.keeps_all_of_create:
        return content
    kept = {key: value for key, value in content.items() if key in rules.content[event_type]}
    if event_type == "m.room.member" and rules.keeps_signed_of_third_party_invite:
        kept |= _third_party_invite(content)
    return kept


def _third_party_invite(content: Json) -> Json:
    """Return `third_party_invite` with only its key `signed`; {} if it is not an object.

    The spec does not define this for an invite without `signed`. Most servers keep an empty object,
    and as event IDs depend on it, so must we.
    """
    invite = content.get("third_party_invite")
    if not isinstance(invite, dict):
        return {}
    signed: dict[str, Any] = {key: value for key, value in invite.items() if key == "signed"}
    return {"third_party_invite": signed}


def _redaction_of(version: RoomVersion) -> _Redaction:
    top_level = {
        "event_id",
        "type",
        "room_id",
        "sender",
        "state_key",
        "content",
        "hashes",
        "signatures",
        "depth",
        "prev_events",
        "auth_events",
        "origin_server_ts",
    }
    if not version.has_new_redaction_rules:
        top_level |= {"prev_state", "origin", "membership"}
    return _Redaction(
        top_level=frozenset(top_level),
        content={kind: frozenset(keys) for kind, keys in _content_keys(version).items()},
        keeps_all_of_create=version.has_new_redaction_rules,
        keeps_signed_of_third_party_invite=version.has_new_redaction_rules,
    )


def _content_keys(version: RoomVersion) -> dict[str, set[str]]:
    keys = {
        "m.room.member": {"membership"},
        "m.room.create": {"creator"},  # since version 11 all keys are kept
        "m.room.join_rules": {"join_rule"},
        "m.room.power_levels": {
            "ban",
            "events",
            "events_default",
            "kick",
            "redact",
            "state_default",
            "users",
            "users_default",
        },
        "m.room.history_visibility": {"history_visibility"},
    }
    if version.has_alias_events_rule:
        keys["m.room.aliases"] = {"aliases"}
    if version.may_restrict_joins:
        keys["m.room.join_rules"].add("allow")
    if version.redaction_keeps_join_authorised:
        keys["m.room.member"].add("join_authorised_via_users_server")
    if version.has_new_redaction_rules:
        keys["m.room.power_levels"].add("invite")
    if version.has_redacts_in_content:
        keys["m.room.redaction"] = {"redacts"}
    return keys


_REDACTIONS: Final = {name: _redaction_of(version) for name, version in VERSIONS.items()}
