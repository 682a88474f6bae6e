"""Room creation: the first events of a room, in the order of the specification.

All of them are sent in the caller's transaction, so a failure leaves nothing behind.
Spec: client-server-api#creation, client-server-api#post_matrixclientv3createroom
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Collection, Set
from dataclasses import dataclass, field
from typing import Final, Literal

import orjson

from homebody import errors
from homebody.core.rooms import aliases, directory, membership, state_events
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.spec.events import Json
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.database import Reader, Tx

Preset = Literal["private_chat", "trusted_private_chat", "public_chat"]
StateEvent = tuple[str, str, Json]
"""(type, state_key, content)."""

MAX_INVITES: Final = 200
"""Per request: each is an event, and all are created in one transaction."""
MAX_STATE_EVENTS: Final = 500
MAX_CONTENT_BYTES: Final = 256 * 1024
"""All events of a new room together."""

CHECKED_BY_RULES: Final = frozenset({"m.room.create", "m.room.power_levels"})
"""The types whose content the authorization rules check."""

CREATOR_LEVEL: Final = 100
_JOIN_RULES: Final[dict[Preset, str]] = {
    "private_chat": "invite",
    "trusted_private_chat": "invite",
    "public_chat": "public",
}
_FOR_GUESTS: Final[Set[Preset]] = frozenset({"private_chat", "trusted_private_chat"})
"""The other preset forbids guests. So does a room without m.room.guest_access, and other servers
send none."""


@dataclass(frozen=True, slots=True)
class RoomOptions:
    """Options of a new room, as in POST /createRoom."""

    preset: Preset
    version: RoomVersion
    alias_localpart: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Collection[str] = ()
    elsewhere: Collection[str] = ()
    """Those of them who are invited afterwards, as their servers have to sign that."""
    is_direct: bool = False
    is_published: bool = False
    creation_content: Json = field(default_factory=dict)
    initial_state: Collection[StateEvent] = ()
    power_levels: Json = field(default_factory=dict)


def create_room(tx: Tx, creator: str, options: RoomOptions) -> tuple[str, str | None]:
    """Create a room, and return (room ID, alias or None).

    Raises M_INVALID_ROOM_STATE when its events contradict each other, M_ROOM_IN_USE for an alias
    that is taken, M_INVALID_PARAM, M_FORBIDDEN or M_INVITE_BLOCKED for users who can't be invited.
    """
    check_sizes(options)
    alias = _free_alias(tx, options.alias_localpart)
    room_id = sending.create(tx, options.version, _create_event(tx, creator, options))
    membership.join(tx, room_id, creator)
    levels = {**_default_power_levels(creator, options), **options.power_levels}
    _set(tx, room_id, creator, ("m.room.power_levels", "", levels))
    if alias is not None:
        aliases.create(tx, alias, room_id, creator)
        _set(tx, room_id, creator, (aliases.CANONICAL_ALIAS, "", {"alias": alias}))
    for event in _further_state(options):
        _set(tx, room_id, creator, event)
    for user_id in (it for it in options.invite if it not in options.elsewhere):
        membership.change(tx, room_id, creator, user_id, "invite", invite_content(options))
    if options.is_published:
        directory.publish(tx, room_id, is_published=True)
    return room_id, alias


def invite_content(options: RoomOptions) -> Json:
    """Return what the invites of a new room say besides."""
    return {"is_direct": True} if options.is_direct else {}


def check_sizes(options: RoomOptions) -> None:
    """Raise M_INVALID_PARAM or M_TOO_LARGE for a room that takes too long to create.

    Views call it before their transaction as well.
    """
    if len(options.invite) > MAX_INVITES:
        raise errors.invalid_param(f"At most {MAX_INVITES} users can be invited at once")
    if len(options.initial_state) > MAX_STATE_EVENTS:
        raise errors.invalid_param(f"initial_state has more than {MAX_STATE_EVENTS} events")
    texts = [options.name, options.topic, options.alias_localpart]
    contents = [options.creation_content, options.power_levels]
    parts = [texts, contents, [*options.invite], [[*event] for event in options.initial_state]]
    if len(orjson.dumps(parts)) > MAX_CONTENT_BYTES:
        raise errors.too_large(f"The new room's events have more than {MAX_CONTENT_BYTES} bytes")


def _free_alias(tx: Reader, localpart: str | None) -> str | None:
    """Return the alias of the new room. Raises M_INVALID_PARAM, M_ROOM_IN_USE."""
    if localpart is None:
        return None
    alias = f"#{localpart}:{tx.server.name}"
    if ":" in localpart or any(character.isspace() for character in localpart):
        raise errors.invalid_param("room_alias_name is the part between # and :, without spaces")
    aliases.check(alias)
    if aliases.is_taken(tx, alias):
        raise errors.room_in_use(f"{alias} is in use already")
    return alias


def _create_event(tx: Reader, creator: str, options: RoomOptions) -> sending.Draft:
    version = options.version
    content = dict(options.creation_content)
    if not isinstance(content.get("type", ""), str):
        raise errors.bad_json("The type of a room must be a string")
    if not isinstance(content.get("m.federate", True), bool):
        raise errors.bad_json("m.federate must be true or false")
    if version.has_privileged_creators and options.preset == "trusted_private_chat":
        others = content.get("additional_creators", [])
        if not isinstance(others, list):
            raise errors.bad_json("additional_creators must be a list of user IDs")
        others = [*others, *(user_id for user_id in options.invite if user_id not in others)]
        if others:
            content["additional_creators"] = others
    return first_event(creator, version, content, new_room_id(tx))


def first_event(creator: str, version: RoomVersion, content: Json, room_id: str) -> sending.Draft:
    """Return the m.room.create of a room, adding the server's keys to the content.

    Since version 12 the room ID is derived from the event; `room_id` is then not used.
    """
    content = {**content, "room_version": version.name}
    content.pop("creator", None)
    # Deviates: version 11 does not use `creator`, but clients of its time read it
    if not version.has_privileged_creators:
        content["creator"] = creator
    return sending.Draft(room_id, creator, "m.room.create", content, "")


def new_room_id(tx: Reader) -> str:
    """Return a random room ID, for versions before 12."""
    letters = "".join(secrets.choice(string.ascii_letters) for _ in range(18))
    return f"!{letters}:{tx.server.name}"


def _default_power_levels(creator: str, options: RoomOptions) -> Json:
    """Return the default levels: members send messages, 50 moderates, 100 does everything."""
    users = {}
    if not options.version.has_privileged_creators:
        trusted = options.invite if options.preset == "trusted_private_chat" else ()
        users = dict.fromkeys([creator, *trusted], CREATOR_LEVEL)
    return {
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": 100,
            "m.room.history_visibility": 100,
            "m.room.name": 50,
            "m.room.power_levels": 100,
            "m.room.server_acl": 100,
            # "MUST explicitly be higher than state_default" since version 12
            "m.room.tombstone": 150 if options.version.has_privileged_creators else 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        # in private rooms members invite friends; in public ones that would be used for spam
        "invite": 50 if options.preset == "public_chat" else 0,
    }


def _further_state(options: RoomOptions) -> list[StateEvent]:
    """Return the events of the preset, then initial_state, then name and topic.

    Each key once: an event that a later one would overwrite is not sent.
    """
    events: dict[tuple[str, str], Json] = {
        ("m.room.join_rules", ""): {"join_rule": _JOIN_RULES[options.preset]},
        ("m.room.history_visibility", ""): {"history_visibility": "shared"},
    }
    if options.preset in _FOR_GUESTS:
        events["m.room.guest_access", ""] = {"guest_access": "can_join"}
    for event_type, state_key, content in options.initial_state:
        events.pop((event_type, state_key), None)  # moves it to the end of the order
        events[event_type, state_key] = content
    for event_type, content in _named(options).items():
        events.pop((event_type, ""), None)
        events[event_type, ""] = content
    return [(*key, content) for key, content in events.items()]


def _named(options: RoomOptions) -> dict[str, Json]:
    """Return the contents of m.room.name and m.room.topic, where requested."""
    named: dict[str, Json] = {}
    if options.name is not None:
        named["m.room.name"] = {"name": options.name}
    if options.topic is not None:
        text = [{"body": options.topic, "mimetype": "text/plain"}]
        named["m.room.topic"] = {"topic": options.topic, "m.topic": {"m.text": text}}
    return named


def _set(tx: Tx, room_id: str, creator: str, event: StateEvent) -> None:
    """Send one of the first events. Raises M_INVALID_ROOM_STATE when the others don't allow it."""
    event_type, state_key, content = event
    try:
        state_events.put(tx, room_id, creator, event_type, state_key, content)
    except MatrixError as error:
        is_malformed = error.errcode == "M_BAD_JSON" and event_type in CHECKED_BY_RULES
        if error.errcode != "M_FORBIDDEN" and not is_malformed:
            raise
        raise errors.invalid_room_state(f"{event_type}: {error.message}") from None


def version_named(name: str) -> RoomVersion:
    """Return the room version of this name. Raises M_UNSUPPORTED_ROOM_VERSION."""
    version = VERSIONS.get(name)
    if version is None:
        raise errors.unsupported_room_version(name)
    return version
