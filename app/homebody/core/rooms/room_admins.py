"""Giving a user power in a room on an administrator's order, in the name of one who has it.

Administrators of the server have no power in its rooms. A local user who may change the power
levels does it for them, if there is one in the room.
"""

from __future__ import annotations

import math
from typing import Final

from homebody import errors
from homebody.core import audit
from homebody.core.events import state
from homebody.core.rooms import membership
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.spec import event_auth, identifiers, room_state
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_state import PowerLevels
from homebody.storage.database import Reader, Tx

CREATORS_GIFT: Final = 100
"""The level that a creator gives, whose own is above all others since version 12."""


def make_admin(tx: Tx, actor: str, room_id: str, user_id: str) -> str | None:
    """Give a user the power of the strongest local user, and invite them if they can't join.

    Return who has to invite a user of another server, whose server signs the invite; else None.
    Raises M_UNKNOWN (400) where no local user has the power, M_INVALID_PARAM for an invalid
    user ID, and what an invite raises.
    """
    if not identifiers.is_user_id(user_id):
        raise errors.invalid_param(f"{user_id!r} is not a user ID")
    strongest = strongest_local_user(tx, room_id)
    member: StateKey = (state.MEMBER, user_id)
    keys = [room_state.CREATE, room_state.POWER_LEVELS, room_state.JOIN_RULES, member]
    known = state.current_many(tx, room_id, keys)
    levels = event_auth.power_levels(known)
    if event_auth.membership(known, user_id) == "ban":  # as equals can't unban each other
        membership.unban(tx, room_id, strongest, user_id)
    own = levels.of_user(strongest)
    level = CREATORS_GIFT if own == math.inf else int(own)
    if levels.of_user(user_id) < level:
        content = _with_level(levels, known.get(room_state.CREATE), user_id, level)
        draft = sending.Draft(room_id, strongest, room_state.POWER_LEVELS[0], content, "")
        try:
            sending.send(tx, draft)
        except MatrixError as refusal:
            if refusal.errcode != "M_FORBIDDEN":
                raise
            raise errors.unknown(f"{strongest} may not change the power levels") from None
    audit.note(tx, actor, "room.make_admin", room_id, user_id=user_id, by=strongest)
    return _invite(tx, room_id, strongest, user_id, known)


def strongest_local_user(tx: Reader, room_id: str) -> str:
    """Return the joined user of this server with most power, which suffices to change the levels.

    Raises M_UNKNOWN (400) where there is none.
    """
    keys = [room_state.CREATE, room_state.POWER_LEVELS]
    known = state.current_many(tx, room_id, keys) if _is_known(tx, room_id) else {}
    levels = event_auth.power_levels(known)
    required = levels.to_send(room_state.POWER_LEVELS[0], is_state=True)
    candidates = [
        user_id
        for user_id in (state.joined(tx, room_id).local if known else ())
        if levels.of_user(user_id) >= required
    ]
    if not candidates:
        raise errors.unknown("No user of this server has the power to change this room")
    return max(candidates, key=lambda user_id: (levels.of_user(user_id), user_id))


def _is_known(tx: Reader, room_id: str) -> bool:
    try:
        state.head(tx, room_id)
    except MatrixError:
        return False
    return True


def _with_level(levels: PowerLevels, create: Event | None, user_id: str, level: int) -> Json:
    """Return the content of m.room.power_levels that gives a user this level."""
    content = dict(levels.content)
    users = content.get("users")
    users = dict(users) if isinstance(users, dict) else {}
    if not content and create is not None and levels.creator_level != math.inf:
        users[create.sender] = levels.of_user(create.sender)  # else their power ends by this event
    return {**content, "users": {**users, user_id: level}}


def _invite(
    tx: Tx, room_id: str, sender: str, user_id: str, known: dict[StateKey, Event]
) -> str | None:
    """Invite a user who is not in the room and could not join it; return who has to, if remote."""
    now = event_auth.membership(known, user_id)
    if now in {"join", "invite"} or event_auth.join_rule(known) == "public":
        return None
    if not tx.server.is_local(user_id):
        return sender
    membership.change(tx, room_id, sender, user_id, "invite")
    return None
