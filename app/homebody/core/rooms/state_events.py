"""Setting and reading the state of a room.

Spec: client-server-api#put_matrixclientv3roomsroomidstateeventtypestatekey,
client-server-api#get_matrixclientv3roomsroomidstate
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import client_events, state, visibility
from homebody.core.rooms import aliases, membership
from homebody.core.timeline import guest_access, sending
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import in_effect

_NUMBER = select(StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    in_effect(StateInterval, bindparam("position")),
    StateInterval.type == bindparam("event_type"),
    StateInterval.state_key == bindparam("state_key"),
)


def put(
    tx: Tx,
    room_id: str,
    sender: str,
    event_type: str,
    state_key: str,
    content: Json,
    ts: int | None = None,
    elsewhere: Mapping[str, str] = aliases.NOTHING,
    delay_id: str | None = None,
    sticky_ms: int | None = None,
) -> str:
    """Set an entry of the state; return the id of the new event, or of an equal current one.

    `ts` is its origin_server_ts (ms), which application services may set. `elsewhere` is
    for aliases.check_canonical(). `delay_id` is that of an event that was scheduled, `sticky_ms`
    how long it is sticky, for which memberships are not.
    Raises M_FORBIDDEN when the authorization rules reject it, M_NOT_FOUND for an unknown room, and
    as membership.change() and aliases.check_canonical() do.
    """
    if event_type == state.MEMBER:
        kind = content.get("membership")
        if not isinstance(kind, str):
            raise errors.bad_json("A member event needs a membership")
        return membership.change(tx, room_id, sender, state_key, kind, content, ts, delay_id)
    is_canonical_alias = (event_type, state_key) == (aliases.CANONICAL_ALIAS, "")
    # not for others, who are rejected below: the error would depend on the current event
    if is_canonical_alias and aliases.may_manage(tx, room_id, sender):
        aliases.check_canonical(tx, room_id, content, elsewhere)
    draft = sending.Draft(
        *(room_id, sender, event_type, content, state_key),
        txn_id=delay_id,
        origin_server_ts=ts,
        sticky_ms=sticky_ms,
    )
    had_guests = event_type == guest_access.GUEST_ACCESS and guest_access.is_open(tx, room_id)
    event_id = sending.send(tx, draft)
    if had_guests:
        sending.send_guests_away(tx, room_id)
    return event_id


def get(tx: Reader, room_id: str, user_id: str, event_type: str, state_key: str) -> ClientEvent:
    """Return one entry of the current state or, for users who have left, of the state at that time.

    Raises M_FORBIDDEN for users who never were in the room, M_NOT_FOUND for a missing entry.
    """
    entry = {
        "room_id": room_id,
        "position": visibility.upto(tx, user_id, room_id),
        "event_type": event_type,
        "state_key": state_key,
    }
    found = client_events.load(tx, list(tx.sql.execute(_NUMBER, entry).scalars()))
    if not found:
        raise errors.not_found("The room has no state of this type and key")
    return client_events.hide(tx, user_id, found)[0]
