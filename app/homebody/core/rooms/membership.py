"""Membership: joins, invites, leaves, kicks, bans, knocks.

All endpoints change memberships by `change`; the authorization rules decide whether they may. This
module alone writes the table forgotten_rooms.
Spec: client-server-api#room-membership, client-server-api#restricted-rooms
"""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.events import state, stripped_state
from homebody.core.profiles import profiles
from homebody.core.rooms import blocked, personal_settings
from homebody.core.timeline import guest_access, outside_rooms, sending
from homebody.core.user_data import account_data
from homebody.models.moderation import ServerNoticeRoom
from homebody.models.rooms import ForgottenRoom
from homebody.spec import event_auth, identifiers, invite_filter, room_state
from homebody.spec.events import Json, StateKey
from homebody.storage.database import Reader, Tx

MEMBERSHIPS = frozenset({"join", "invite", "leave", "ban", "knock"})
RESTRICTED = frozenset({"restricted", "knock_restricted"})
INVITE_PERMISSION_CONFIG = "m.invite_permission_config"
DECIDE_ON_INVITES = frozenset(
    {account_data.IGNORED_USERS, INVITE_PERMISSION_CONFIG, invite_filter.TYPE}
)
"""The types of account data by which invites are hidden."""

_REMEMBER = delete(ForgottenRoom).where(
    ForgottenRoom.user_id == bindparam("of_user"), ForgottenRoom.room_id == bindparam("the_room")
)


def change(
    tx: Tx,
    room_id: str,
    sender: str,
    target: str,
    membership: str,
    content: Json | None = None,
    ts: int | None = None,
    delay_id: str | None = None,
) -> str:
    """Change a membership, and return the id of the member event: a new or an equal current one.

    `content` has further keys of the event, such as reason; `ts` is its origin_server_ts (ms),
    `delay_id` that of an event that was scheduled.
    Raises M_FORBIDDEN when the authorization rules reject it or the room is blocked,
    M_INVITE_BLOCKED, M_GUEST_ACCESS_FORBIDDEN for guests where they can't join, M_NOT_FOUND for an
    unknown room, M_INVALID_PARAM for an invalid user ID, M_BAD_JSON for an invalid membership.
    """
    if membership not in MEMBERSHIPS:
        raise errors.bad_json(f"{membership!r} is not a membership")
    if not identifiers.is_user_id(target):
        raise errors.invalid_param(f"{target!r} is not a user ID")
    is_new = membership == "join" and not state.is_joined(tx, room_id, target)
    if is_new or membership in {"invite", "knock"}:
        blocked.check(tx, room_id)
    content = {**(content or {}), "membership": membership}
    content.pop(profiles.AUTHORISER, None)  # chosen by the server, not by the client
    if membership == "invite":
        _check_may_be_invited(tx, sender, target)
    if membership == "leave" and sender == target:
        _check_may_reject(tx, room_id, target)
        if (known := _own_leave(tx, room_id, target)) is not None:
            return known
    if membership == "join" and sender == target:
        guest_access.check_may_join(tx, room_id, target)
        content |= authorisation(tx, room_id, target)
    content = _with_profile(tx, sender, target, content)
    draft = sending.Draft(
        room_id, sender, state.MEMBER, content, target, txn_id=delay_id, origin_server_ts=ts
    )
    event_id = sending.send(tx, draft)
    if membership in {"join", "invite", "knock"}:
        remember(tx, room_id, target)
    if is_new:
        personal_settings.copy_to_replacement(tx, target, room_id)
    return event_id


def invite_draft(
    tx: Reader, room_id: str, sender: str, target: str, content: Json
) -> sending.Draft:
    """Return the invite of a user of another server, which that server has to sign.

    Raises M_INVALID_PARAM for an invalid user ID, M_FORBIDDEN for a blocked room.
    """
    if not identifiers.is_user_id(target):
        raise errors.invalid_param(f"{target!r} is not a user ID")
    blocked.check(tx, room_id)
    content = _with_profile(tx, sender, target, {**content, "membership": "invite"})
    content.pop(profiles.AUTHORISER, None)
    return sending.Draft(room_id, sender, state.MEMBER, content, target)


def remember(tx: Tx, room_id: str, user_id: str) -> None:
    """Show a room again that a user has forgotten."""
    tx.sql.execute(_REMEMBER, {"of_user": user_id, "the_room": room_id})


def note_join(tx: Tx, room_id: str, user_id: str) -> None:
    """Do what follows from a user's join of a room of other servers."""
    remember(tx, room_id, user_id)
    stripped_state.remove(tx, room_id, user_id)
    personal_settings.copy_to_replacement(tx, user_id, room_id)


def join(tx: Tx, room_id: str, user_id: str, content: Json | None = None) -> None:
    """Join a room, unless the user is in it already. Raises as `change` does."""
    if not state.is_joined(tx, room_id, user_id):
        change(tx, room_id, user_id, user_id, "join", content)


def leave(tx: Tx, room_id: str, user_id: str, content: Json | None = None) -> None:
    """Leave, reject an invite, or retract a knock, unless the user has left already.

    Raises as `change` does.
    """
    if outside_rooms.is_outside(tx, room_id, user_id):
        outside_rooms.leave(tx, room_id, user_id, content or {})
    elif state.membership_of(tx, room_id, user_id) != "leave":
        change(tx, room_id, user_id, user_id, "leave", content)


def kick(tx: Tx, room_id: str, sender: str, target: str, content: Json | None = None) -> None:
    """Remove another user, or their invite or knock. Raises as `change` does."""
    if state.membership_of(tx, room_id, target) not in {"join", "invite", "knock"}:
        state.check_joined(tx, room_id, sender)  # outsiders must not learn who is in a room
        raise errors.forbidden(f"{target} is not in this room")
    change(tx, room_id, sender, target, "leave", content)


def unban(tx: Tx, room_id: str, sender: str, target: str, content: Json | None = None) -> None:
    """Lift a ban. Raises as `change` does."""
    if state.membership_of(tx, room_id, target) != "ban":
        state.check_joined(tx, room_id, sender)  # outsiders must not learn who is in a room
        raise errors.forbidden(f"{target} is not banned from this room")
    change(tx, room_id, sender, target, "leave", content)


def forget(tx: Tx, room_id: str, user_id: str) -> None:
    """Hide a room that the user has left, with its history, until they return or are invited.

    Raises M_UNKNOWN for a room that they have not left, M_FORBIDDEN for one they never were in.
    """
    membership = state.membership_of(tx, room_id, user_id)
    if membership is None:
        raise errors.forbidden("You never were in this room")
    if membership not in {"leave", "ban"}:
        raise errors.unknown(f"Leave the room first: your membership is {membership!r}")
    tx.sql.execute(_REMEMBER, {"of_user": user_id, "the_room": room_id})
    row = {"user_id": user_id, "room_id": room_id, "forgotten_ts": tx.now_ms}
    tx.sql.execute(insert(ForgottenRoom), row)


def has_blocked_invites(tx: Reader, user_id: str) -> bool:
    """Return whether the user blocks all invites; /sync then omits invites, too.

    Spec: client-server-api#invite-permission
    """
    config = account_data.find(tx, user_id, INVITE_PERMISSION_CONFIG)
    return config is not None and config.get("default_action") == "block"


def check_not_blocked(tx: Reader, sender: str, user_id: str) -> None:
    """Raise M_INVITE_BLOCKED if the user blocks all invites, or those by this sender."""
    is_blocked = account_data.decide_on_invite(tx, user_id, sender) == "block"
    if is_blocked or has_blocked_invites(tx, user_id):
        raise errors.invite_blocked(user_id)


def _check_may_be_invited(tx: Reader, sender: str, user_id: str) -> None:
    """Raise M_FORBIDDEN for users of other servers, whose invites others sign; M_INVITE_BLOCKED.

    Users of this server need not be registered yet, and find the invite when they are. So invites
    do not reveal which accounts exist.
    """
    if not tx.server.is_local(user_id):
        raise errors.forbidden(f"{user_id} is a user of another server")
    check_not_blocked(tx, sender, user_id)


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete all records of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(ForgottenRoom).where(ForgottenRoom.room_id == room_id))


def _check_may_reject(tx: Reader, room_id: str, user_id: str) -> None:
    """Raise M_CANNOT_LEAVE_SERVER_NOTICE_ROOM for an invite to one.

    "Attempting to reject the invite must result in a M_CANNOT_LEAVE_SERVER_NOTICE_ROOM error."
    Spec: client-server-api#server-notices
    """
    if state.membership_of(tx, room_id, user_id) != "invite":
        return
    notices = select(ServerNoticeRoom.room_id).where(ServerNoticeRoom.user_id == user_id)
    if tx.sql.execute(notices).scalar() == room_id:
        raise errors.cannot_leave_server_notice_room()


def _own_leave(tx: Reader, room_id: str, user_id: str) -> str | None:
    """Return the id of the current member event if the user has left by themselves, or None.

    A client repeats the request when it did not get the response.
    """
    event = state.current(tx, room_id, state.MEMBER, user_id)
    if event is None or event.sender != user_id or event.content.get("membership") != "leave":
        return None
    return event.event_id


def with_profile(tx: Reader, user_id: str, content: Json) -> Json:
    """Return the content of a user's own join or knock with their name and avatar."""
    return {**profiles.of(tx, user_id), **content}


def _with_profile(tx: Reader, sender: str, target: str, content: Json) -> Json:
    """Return the content with the target's name and avatar, where the membership has them.

    Users may set another name for themselves in a room, but not for others, even in kicks.
    """
    if sender != target:
        content = {key: it for key, it in content.items() if key not in profiles.IN_ROOMS}
    if content["membership"] not in {"join", "invite", "knock"}:
        return content
    return {**profiles.of(tx, target), **content}


def authorisation(tx: Reader, room_id: str, user_id: str) -> Json:
    """Return the authorising user of a restricted join as content, or {} if none is needed.

    Raises M_FORBIDDEN for users who fulfil no condition of the room. Where another server may know
    better, M_UNABLE_TO_AUTHORISE_JOIN if this one can't see all of the rooms in the conditions,
    M_UNABLE_TO_GRANT_JOIN if none of its users may invite.
    """
    member: StateKey = (state.MEMBER, user_id)
    keys = [room_state.JOIN_RULES, room_state.CREATE, room_state.POWER_LEVELS, member]
    known = state.current_many(tx, room_id, keys)
    if event_auth.join_rule(known) not in RESTRICTED:
        return {}
    if event_auth.membership(known, user_id) in {"join", "invite", "ban"}:
        return {}  # needs no authorisation, or is rejected anyway
    check_condition(tx, room_id, user_id)
    levels = event_auth.power_levels(known)
    candidates = (
        local
        for local in state.joined(tx, room_id).local
        if levels.of_user(local) >= levels.to_invite
    )
    authoriser = max(candidates, key=lambda local: (levels.of_user(local), local), default=None)
    if authoriser is None:
        is_alone = state.joined(tx, room_id).servers.keys() <= {tx.server.name}
        refuse = errors.forbidden if is_alone else errors.unable_to_grant_join
        raise refuse("No member of this room has the power to authorise your join")
    return {profiles.AUTHORISER: authoriser}


def check_condition(tx: Reader, room_id: str, user_id: str) -> None:
    """Check that a user is in one of the rooms whose members may join a restricted room.

    Raises M_FORBIDDEN, M_UNABLE_TO_AUTHORISE_JOIN.
    """
    rules = state.current(tx, room_id, *room_state.JOIN_RULES)
    allowed = [] if rules is None else allowed_rooms(rules.content)
    # what this server knows of rooms that it has left may be old, except of its own users
    there = [it for it in allowed if tx.server.name in state.joined(tx, it).servers]
    if state.joined_rooms(tx, user_id).intersection(there):
        return
    is_known = tx.server.is_local(user_id) or len(there) == len(allowed)
    refuse = errors.forbidden if is_known else errors.unable_to_authorise_join
    raise refuse("Only invited users and members of certain rooms can join this room")


def allowed_rooms(join_rules: Json) -> list[str]:
    """Return the rooms whose members may join, by the content of m.room.join_rules.

    Unknown conditions are ignored.
    """
    allow = join_rules.get("allow")
    return [
        condition["room_id"]
        for condition in (allow if isinstance(allow, list) else [])
        if isinstance(condition, dict)
        and condition.get("type") == "m.room_membership"
        and isinstance(condition.get("room_id"), str)
    ]
