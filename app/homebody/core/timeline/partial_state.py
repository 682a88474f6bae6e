"""The members of a partial room, who become known one by one, or all of them in the background.

They were members before the join of this server, so they are added to the state as it was then, as
if the response to the join had contained them. What has changed since stays as it is.

An event of a member who is not known yet cites their member event: that is taken to be the state
before the join until all are known. Of servers that are not said to be in the room, only what keeps
users out is believed: a user who was banned long ago can still cite an older join.

Spec: server-server-api#put_matrixfederationv2send_joinroomideventid
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import bindparam, select

from homebody.core import partial_rooms
from homebody.core.encryption import device_list_changes, remote_devices
from homebody.core.events import members, past_state, state, state_changes
from homebody.core.events.state import KnownEvent
from homebody.core.partial_rooms import PartialRoom
from homebody.core.timeline import current_state
from homebody.models.base import EventNumber
from homebody.models.state import StateInterval
from homebody.spec.events import StateKey
from homebody.spec.room_state import domain_of
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import in_effect, listed

Members = Mapping[str, tuple[int, str | None]]
"""{user_id: (number of the member event, membership)}"""

_USERS = listed("user_ids")
_EVER = (
    select(StateInterval.state_key)
    .where(
        StateInterval.room_number == state.ROOM_NUMBER,
        StateInterval.type == state.MEMBER,
        StateInterval.state_key.in_(select(_USERS.c.value)),
    )
    .distinct()
)
_MEMBERS_AT = select(StateInterval.state_key, StateInterval.event_number).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.type == state.MEMBER,
    in_effect(StateInterval, bindparam("position")),
)


def begin(tx: Tx, room: PartialRoom) -> None:
    """Note that a room is joined without its members; the join is stored next."""
    partial_rooms.begin(tx, room)
    state_changes.forget_members(tx, room.room_id)


def joined_at(tx: Reader, room: PartialRoom) -> int | None:
    """Return the position of the join; None if it is not stored any more."""
    found = state.find_any(tx, room.event_id)
    return None if found is None else found.position


def learn_cited(
    tx: Tx, room_id: str, keys: Iterable[StateKey], cited: Iterable[KnownEvent]
) -> None:
    """Add the members that an event needs and cites, as far as they are not known.

    `keys`: the entries of the state that the event needs. Its auth events must allow it, so none of
    them is rejected.
    """
    room = partial_rooms.find(tx, room_id)
    at = None if room is None else joined_at(tx, room)
    if room is None or at is None:
        return
    wanted = [key for key in keys if key[0] == state.MEMBER and not tx.server.is_local(key[1])]
    known = state.entries(tx, room_id, wanted)
    found: dict[str, tuple[int, str | None]] = {}
    for number, position, _, event in cited:
        key = (event.type, event.state_key or "")
        if key not in known or known[key].is_there:
            continue
        is_later = position is not None and position > at
        membership = event.content.get("membership")
        is_believed = membership != "join" or domain_of(key[1]) in room.servers_in_room
        if is_believed and not is_later:
            found[key[1]] = (number, membership)
    if found:
        learn(tx, room_id, at, found)


def learn(tx: Tx, room_id: str, at: int, found: Members) -> None:
    """Make these the members of a room at a position, whatever they were taken for before."""
    if not found:
        return
    ever = set(tx.sql.execute(_EVER, {"room_id": room_id, "user_ids": list(found)}).scalars())
    new = {(state.MEMBER, user_id): it for user_id, it in found.items() if user_id not in ever}
    current_state.begin_many(tx, room_id, new, past_state.SINCE_EVER)
    then = state.numbers_at(tx, room_id, [(state.MEMBER, user_id) for user_id in ever], at)
    settled = {
        (state.MEMBER, user_id): (EventNumber(number), membership)
        for user_id, (number, membership) in found.items()
        if user_id in ever and then.get((state.MEMBER, user_id)) != number
    }
    _settle(tx, room_id, at, settled)


def unlearn_others(tx: Tx, room_id: str, at: int, found: Iterable[str]) -> None:
    """Remove the members at a position that are not among these, except local users."""
    rows = tx.sql.execute(_MEMBERS_AT, {"room_id": room_id, "position": at})
    wrong = {row.state_key for row in rows} - set(found)
    gone = {(state.MEMBER, it): None for it in wrong if not tx.server.is_local(it)}
    _settle(tx, room_id, at, gone)
    if gone and tx.server.config.federation:
        remote_devices.forget_unshared(tx, [key[1] for key in gone])


def make_full(tx: Tx, room_id: str, position: int) -> None:
    """Note that all members of a room are known, and bring up to date what depends on them."""
    presumed = partial_rooms.servers_in_room(tx, room_id)
    partial_rooms.make_full(tx, room_id, position)
    state_changes.forget_members(tx, room_id)
    state_changes.note_reset(tx, room_id, position)  # clients get the numbers of members again
    if tx.server.config.federation:
        for user_id in state.joined(tx, room_id).local:
            device_list_changes.follow_full_room(tx, room_id, user_id, presumed)


def _settle(
    tx: Tx,
    room_id: str,
    at: int,
    entries: Mapping[StateKey, tuple[EventNumber, str | None] | None],
) -> None:
    if not entries:
        return
    past_state.settle(tx, room_id, at, entries)
    state_changes.forget_members(tx, room_id, [key[1] for key in entries])
    members.forget_names(tx, room_id)
