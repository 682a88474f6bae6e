"""The authorization rules of `m.room.member`: join, invite, leave (and kick), ban, knock.

One function per membership, its steps in the spec's order. event_auth.check() has already checked
the create event and whether the room is federated.
Spec: rooms/v12#authorisation-rules (rule 5), rooms/v1#authorisation-rules (rule 5)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from homebody.spec import room_state, signing
from homebody.spec.events import Event, Json
from homebody.spec.room_state import AuthError, StateMap
from homebody.spec.room_versions import RoomVersion

IsSignedBy = Callable[[str], bool]
"""Whether the event carries a valid signature of this server."""

MAX_VERIFICATIONS: Final = 100
"""Per third-party invite. Honest ones have two keys and a signature or two; an attacker's could
have a thousand of each, which would cost every server in the room a minute of CPU time."""


def check(
    event: Event, state: StateMap, create: Event, is_signed_by: IsSignedBy | None = None
) -> None:
    """Raise AuthError unless this change of membership is allowed.

    `is_signed_by` verifies the signature of the server that authorised a restricted join. Without
    it the signature counts as valid, as for events that have been accepted before.
    """
    membership = event.content.get("membership")
    if event.state_key is None or not isinstance(membership, str):
        raise AuthError("A member event needs a state_key and a membership")
    _check_signature_of_authoriser(event, is_signed_by)
    rule = RULES.get(membership)
    if rule is None or (membership == "knock" and not event.version.may_knock):
        raise AuthError(f"This room version has no membership {membership!r}")
    rule(event, event.state_key, state, create)


def _check_signature_of_authoriser(event: Event, is_signed_by: IsSignedBy | None) -> None:
    if not event.version.may_restrict_joins:
        return
    if "join_authorised_via_users_server" not in event.content:
        return
    authoriser = event.content["join_authorised_via_users_server"]
    if not isinstance(authoriser, str):
        raise AuthError("join_authorised_via_users_server is not a user ID")
    if is_signed_by is not None and not is_signed_by(room_state.domain_of(authoriser)):
        raise AuthError(f"The server of {authoriser} has not signed this join")


def _check_join(event: Event, target: str, state: StateMap, create: Event) -> None:
    if event.prev_event_ids == [create.event_id] and target == _first_member(create):
        return
    if event.sender != target:
        raise AuthError(f"{event.sender} can't join on behalf of {target}")
    membership = room_state.membership(state, target)
    if membership == "ban":
        raise AuthError(f"{target} is banned from this room")
    join_rule = room_state.join_rule(state)
    if join_rule == "public":
        return
    if not _may_be_joined_by_the_invited(join_rule, event.version):
        raise AuthError(f"Nobody can join this room: its join rule is {join_rule!r}")
    if membership in {"invite", "join"}:
        return
    if not _is_restricted(join_rule, event.version):
        raise AuthError(f"{target} is not invited to this room")
    _check_authoriser(event, target, state, create)


def _first_member(create: Event) -> object:
    """Return the user who may join when the room has only its create event."""
    if create.version.has_creator_in_sender:
        return create.sender
    return create.content.get("creator")


def _may_be_joined_by_the_invited(join_rule: str, version: RoomVersion) -> bool:
    if join_rule == "knock":
        return version.may_knock
    return join_rule == "invite" or _is_restricted(join_rule, version)


def _is_restricted(join_rule: str, version: RoomVersion) -> bool:
    if join_rule == "knock_restricted":
        return version.may_knock_restricted
    return join_rule == "restricted" and version.may_restrict_joins


def _check_authoriser(event: Event, target: str, state: StateMap, create: Event) -> None:
    """Check that a member with the power to invite has authorised a restricted join."""
    authoriser = event.content.get("join_authorised_via_users_server")
    if not isinstance(authoriser, str):
        raise AuthError(f"{target} is not invited, and no member authorised the join")
    if room_state.membership(state, authoriser) != "join":
        raise AuthError(f"{authoriser}, who authorised the join, is not in this room")
    levels = room_state.power_levels(state, create)
    if levels.of_user(authoriser) < levels.to_invite:
        raise AuthError(f"{authoriser}, who authorised the join, may not invite {target}")


def _check_invite(event: Event, target: str, state: StateMap, create: Event) -> None:
    if "third_party_invite" in event.content:
        return _check_third_party_invite(event, target, state)
    _check_sender_is_joined(event, state)
    membership = room_state.membership(state, target)
    if membership == "join":
        raise AuthError(f"{target} is already in this room")
    if membership == "ban":
        raise AuthError(f"{target} is banned from this room")
    levels = room_state.power_levels(state, create)
    if levels.of_user(event.sender) < levels.to_invite:
        raise AuthError(f"{event.sender} needs power level {levels.to_invite} to invite")
    return None


def _check_third_party_invite(event: Event, target: str, state: StateMap) -> None:
    """Check the invite that follows a third-party invite once the user ID is known."""
    if room_state.membership(state, target) == "ban":
        raise AuthError(f"{target} is banned from this room")
    third_party_invite = event.content["third_party_invite"]
    signed = third_party_invite.get("signed") if isinstance(third_party_invite, dict) else None
    if not isinstance(signed, dict) or not {"mxid", "token"} <= signed.keys():
        raise AuthError("The third-party invite is not signed for a user and a token")
    if signed["mxid"] != target:
        raise AuthError(f"The third-party invite is not for {target}")
    token = signed["token"]
    invite = state.get(("m.room.third_party_invite", token)) if isinstance(token, str) else None
    if invite is None:
        raise AuthError("This room has no third-party invite with that token")
    if invite.sender != event.sender:
        raise AuthError(f"The third-party invite is not by {event.sender}")
    # Deviates: the spec sets no limit to the number of verifications.
    tries = itertools.product(_public_keys(invite.content), _signatures(signed))
    if not any(
        _is_valid(signed, server_name, key_id, public_key)
        for public_key, (server_name, key_id) in itertools.islice(tries, MAX_VERIFICATIONS)
    ):
        raise AuthError("The third-party invite has no valid signature for this user")


def _public_keys(content: Json) -> Iterator[str]:
    """Yield the keys of both properties, `public_key` and `public_keys`."""
    others = content.get("public_keys")
    for place in [content, *(others if isinstance(others, list) else [])]:
        key = place.get("public_key") if isinstance(place, dict) else None
        if isinstance(key, str):
            yield key


def _signatures(signed: Json) -> Iterator[tuple[str, str]]:
    """Yield (server name, key ID) of each signature."""
    by_server = signed.get("signatures")
    for server_name, by_key_id in by_server.items() if isinstance(by_server, dict) else []:
        for key_id in by_key_id if isinstance(by_key_id, dict) else []:
            if key_id.startswith(f"{signing.ALGORITHM}:"):
                yield server_name, key_id


def _is_valid(signed: Json, server_name: str, key_id: str, public_key: str) -> bool:
    # the schema of m.room.third_party_invite allows both alphabets of base64 for keys
    standard = public_key.replace("-", "+").replace("_", "/")
    try:
        key = signing.verify_key_from_base64(standard)
        signing.verify_json(signed, server_name, key_id, key)
    except ValueError:  # not a key, or a SignatureError
        return False
    return True


def _check_leave(event: Event, target: str, state: StateMap, create: Event) -> None:
    membership = room_state.membership(state, target)
    if event.sender == target:
        if membership in {"invite", "join"} or (membership == "knock" and event.version.may_knock):
            return
        raise AuthError(f"{target} is not in this room")
    _check_sender_is_joined(event, state)
    levels = room_state.power_levels(state, create)
    own = levels.of_user(event.sender)
    if membership == "ban" and own < levels.to_ban:
        raise AuthError(f"{event.sender} needs power level {levels.to_ban} to end a ban")
    if own < levels.to_kick:
        raise AuthError(f"{event.sender} needs power level {levels.to_kick} to kick")
    if levels.of_user(target) >= own:
        raise AuthError(f"{event.sender} can't kick {target}, whose power level is not lower")


def _check_ban(event: Event, target: str, state: StateMap, create: Event) -> None:
    _check_sender_is_joined(event, state)
    levels = room_state.power_levels(state, create)
    own = levels.of_user(event.sender)
    if own < levels.to_ban:
        raise AuthError(f"{event.sender} needs power level {levels.to_ban} to ban")
    if levels.of_user(target) >= own:
        raise AuthError(f"{event.sender} can't ban {target}, whose power level is not lower")


def _check_knock(event: Event, target: str, state: StateMap, _create: Event) -> None:
    join_rule = room_state.join_rule(state)
    if join_rule != "knock" and not (
        join_rule == "knock_restricted" and event.version.may_knock_restricted
    ):
        raise AuthError("The join rules of this room don't allow knocking")
    if event.sender != target:
        raise AuthError(f"{event.sender} can't knock on behalf of {target}")
    membership = room_state.membership(state, target)
    if membership in {"ban", "invite", "join"}:
        raise AuthError(f"{target} can't knock: their membership is {membership!r}")


def _check_sender_is_joined(event: Event, state: StateMap) -> None:
    if room_state.membership(state, event.sender) != "join":
        raise AuthError(f"{event.sender} is not in this room")


RULES: Final[dict[str, Callable[[Event, str, StateMap, Event], None]]] = {
    "join": _check_join,
    "invite": _check_invite,
    "leave": _check_leave,
    "ban": _check_ban,
    "knock": _check_knock,
}
