"""The authorization rules: whether an event is allowed, given the state before it.

The rules of all room versions, in the spec's order; where versions differ, the rules read a field
of RoomVersion. The two long rules are in event_auth_members.py and event_auth_power_levels.py. The
rules see only an event and the state before it, so the same function serves a client's request, an
event from another server, and state resolution. The caller checks signatures and hashes.

A rule that rejects the event raises AuthError.
Spec: rooms/v12#authorisation-rules, rooms/v1#authorisation-rules,
server-server-api#authorisation-rules
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from homebody.spec import event_auth_members, event_auth_power_levels, identifiers, room_state
from homebody.spec.event_auth_members import IsSignedBy
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_state import (
    CREATE,
    AuthError,
    ContentError,
    PowerLevels,
    StateMap,
    creators,
    join_rule,
    membership,
    power_levels,
)
from homebody.spec.room_versions import VERSIONS, RoomVersion

# The rest of the server reads a room's state with the same functions as the rules.
__all__ = [
    "AuthError",
    "ContentError",
    "IsSignedBy",
    "PowerLevels",
    "StateMap",
    "auth_types",
    "check",
    "check_auth_events",
    "creators",
    "join_rule",
    "may_redact",
    "membership",
    "power_levels",
]


def auth_types(
    version: RoomVersion, event_type: str, state_key: str | None, sender: str, content: Json
) -> list[StateKey]:
    """Return the keys of the state events that belong in an event's `auth_events`, each once.

    Spec: server-server-api#auth-events-selection
    """
    if event_type == "m.room.create":
        return []
    types = [room_state.POWER_LEVELS, ("m.room.member", sender)]
    if not version.has_privileged_creators:
        types.append(CREATE)
    if event_type == "m.room.member" and state_key is not None:
        types += _auth_types_of_member(version, state_key, sender, content)
    return types


def _auth_types_of_member(
    version: RoomVersion, target: str, sender: str, content: Json
) -> list[StateKey]:
    users = {target}
    types = []
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):  # a tuple, as unhashable JSON may come here
        types.append(room_state.JOIN_RULES)
    if membership == "invite" and (token := _third_party_token(content)) is not None:
        types.append(("m.room.third_party_invite", token))
    if membership == "join" and version.may_restrict_joins:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            users.add(authoriser)
    types += [("m.room.member", user_id) for user_id in sorted(users - {sender})]
    return types


def _third_party_token(content: Json) -> str | None:
    place = content.get("third_party_invite")
    signed = place.get("signed") if isinstance(place, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def check_auth_events(
    event: Event, auth_events: Iterable[Event], rejected: Collection[str] = ()
) -> None:
    """Raise AuthError unless the event's `auth_events` have the right types and room.

    `rejected` has the ids of those auth events that were rejected. Whether they allow the event is
    decided by `check`, with these events as its state.
    """
    if event.type == "m.room.create":
        return
    expected = set(
        auth_types(event.version, event.type, event.state_key, event.sender, event.content)
    )
    found: set[StateKey] = set()
    for cited in auth_events:
        key = (cited.type, cited.state_key or "")
        if key in found:
            raise AuthError(f"auth_events has {key} twice")
        if key not in expected or cited.state_key is None:
            raise AuthError(f"auth_events has {key}, which does not belong there")
        if cited.event_id in rejected:
            raise AuthError(f"auth_events has {cited.event_id}, which was rejected")
        if cited.room_id != event.room_id:
            raise AuthError(f"auth_events has {cited.event_id} of another room")
        found.add(key)
    if CREATE in expected - found:
        raise AuthError("auth_events lacks the create event of the room")


def check(
    event: Event,
    state: StateMap,
    create: Event | None = None,
    *,
    is_signed_by: IsSignedBy | None = None,
) -> None:
    """Raise AuthError unless the event is allowed in this state of the room.

    `state` needs only the entries named by `auth_types` and the create event, which may be passed
    as `create` instead and must not be rejected. For `is_signed_by` see event_auth_members.check().
    """
    if event.type == "m.room.create":
        return _check_create(event)
    create = create or state.get(CREATE)
    if create is None or create.room_id != event.room_id:
        raise AuthError("This room has no create event")
    if create.content.get("m.federate") is False:
        _check_federation(event, create)
    if event.type == "m.room.aliases" and event.version.has_alias_events_rule:
        return _check_aliases(event)
    if event.type == "m.room.member":
        return event_auth_members.check(event, state, create, is_signed_by)
    if room_state.membership(state, event.sender) != "join":
        raise AuthError(f"{event.sender} is not in this room")
    levels = room_state.levels_after(state.get(room_state.POWER_LEVELS), create)
    if event.type == "m.room.third_party_invite":
        return _check_third_party_invite(event, levels)
    _check_may_send(event, levels)
    if event.type == "m.room.power_levels":
        event_auth_power_levels.check(event, state, create)
    elif event.type == "m.room.redaction" and event.version.event_ids == "given":
        _check_redaction(event, levels)
    return None


def _check_create(event: Event) -> None:
    version = event.version
    if event.prev_event_ids:
        raise ContentError("A create event must not have prev_events")
    if version.has_privileged_creators:
        if "room_id" in event.pdu:
            raise ContentError("The create event must not have a room_id: its hash is the room ID")
    elif room_state.domain_of(event.room_id) != room_state.domain_of(event.sender):
        raise ContentError("The room ID does not belong to the creator's server")
    named = event.content.get("room_version", "1")
    if not isinstance(named, str) or named not in VERSIONS:
        raise ContentError(f"Unknown room version {named!r}")
    if version.has_privileged_creators:
        _check_additional_creators(event)
    if not version.has_creator_in_sender and "creator" not in event.content:
        raise ContentError("The create event has no creator")


def _check_additional_creators(event: Event) -> None:
    if "additional_creators" not in event.content:
        return
    others = event.content["additional_creators"]
    if not isinstance(others, list) or not all(identifiers.is_user_id(user) for user in others):
        raise ContentError("additional_creators is not a list of user ids")


def _check_federation(event: Event, create: Event) -> None:
    if room_state.domain_of(event.sender) != room_state.domain_of(create.sender):
        raise AuthError("This room is restricted to users of its creator's server")


def _check_aliases(event: Event) -> None:
    if event.state_key is None or event.state_key != room_state.domain_of(event.sender):
        raise AuthError("The state_key of m.room.aliases must be the sender's server")


def _check_third_party_invite(event: Event, levels: PowerLevels) -> None:
    if levels.of_user(event.sender) < levels.to_invite:
        raise AuthError(f"{event.sender} needs power level {levels.to_invite} to invite")


def _check_may_send(event: Event, levels: PowerLevels) -> None:
    required = levels.to_send(event.type, is_state=event.state_key is not None)
    own = levels.of_user(event.sender)
    if required > own:
        raise AuthError(f"{event.sender} needs power level {required} for {event.type}, has {own}")
    state_key = event.state_key
    if state_key is not None and state_key.startswith("@") and state_key != event.sender:
        raise AuthError(f"Only {state_key} may set this state")


def _check_redaction(event: Event, levels: PowerLevels) -> None:
    """Check a redaction in versions 1 and 2: by power, or of an event of the same server."""
    if not _may_redact_by_power(event, levels) and (
        event.redacts is None
        or room_state.domain_of(event.redacts) != room_state.domain_of(event.event_id)
    ):
        raise AuthError(f"{event.sender} needs power level {levels.to_redact} to redact this")


def _may_redact_by_power(redaction: Event, levels: PowerLevels) -> bool:
    return levels.of_user(redaction.sender) >= levels.to_redact


def may_redact(redaction: Event, target: Event, levels: PowerLevels) -> bool:
    """Return whether an allowed redaction takes effect on this event of the room.

    In versions 1 and 2 the rules above have already decided this. Since version 3 they allow any
    `m.room.redaction`, and this decides whether it applies; call it again if the target arrives
    later.
    Spec: rooms/v3#handling-redactions
    """
    if redaction.redacts != target.event_id or redaction.room_id != target.room_id:
        return False
    if redaction.version.event_ids == "given":
        places = (redaction.event_id, target.event_id)
    else:
        places = (redaction.sender, target.sender)
    return _may_redact_by_power(redaction, levels) or (
        room_state.domain_of(places[0]) == room_state.domain_of(places[1])
    )
