"""The extension for profiles (MSC4262): changes of users who share a room with the user.

A client gets the profiles of the users that it is shown by a room, once, and after that all changes
of all local users who share a room, also of rooms outside its windows. Which users a room shows is
known from its state: if members are loaded lazily, those that were sent, and else all.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Final

from homebody.core.events import state
from homebody.core.profiles import profile_changes
from homebody.core.sliding_sync.order import NO_ROOMS
from homebody.core.sliding_sync.response import RoomsResult
from homebody.core.sliding_sync.states import ConnectionState
from homebody.core.sync import device_lists
from homebody.spec.events import Json
from homebody.storage.database import Reader

MAX_MEMBERS: Final = 500
"""Profiles of one room that are sent at once, if its members are not loaded lazily."""


def load(
    tx: Reader,
    user_id: str,
    fields: list[str] | None,
    previous: ConnectionState,
    found: RoomsResult,
    rooms: Set[str],
    new: Set[str],
) -> Json:
    """Return {user_id: changes, or None for one to forget}; `new` are rooms with everything."""
    wanted = None if fields is None else frozenset(fields)
    users: Json = {}
    if 0 < previous.position < tx.position:
        if found.changes.has_any or found.changes.order is NO_ROOMS:
            left = device_lists.since(tx, user_id, previous.position).left
            users = dict.fromkeys(left, None)
        users |= profile_changes.since(tx, user_id, previous.position, tx.position, wanted)
    shown = _shown(tx, previous, found, rooms, new)
    shown -= {it for it, changes in users.items() if changes is None}  # the sender of a leave
    for shown_id, profile in profile_changes.of_users(tx, shown, wanted).items() if shown else ():
        users[shown_id] = {**users.get(shown_id, {}), "updated": profile}
    return users


def _shown(
    tx: Reader, previous: ConnectionState, found: RoomsResult, rooms: Set[str], new: Set[str]
) -> set[str]:
    """Return the users whom the response shows for the first time in one of its rooms."""
    shown: set[str] = set()
    for room_id in new | (found.state.touched & rooms):
        now, before = found.state.rooms[room_id], previous.rooms.get(room_id)
        is_new = before is None or room_id in new
        shown |= now.members - (frozenset() if is_new or before is None else before.members)
        shown |= {hero["user_id"] for hero in _heroes(found.rooms, room_id)}
        if is_new and now.config.wants_all_members:
            shown |= set(sorted(state.joined(tx, room_id).local)[:MAX_MEMBERS])
    return shown


def _heroes(entries: Mapping[str, Json], room_id: str) -> list[Json]:
    heroes: list[Json] = entries.get(room_id, {}).get("heroes", [])
    return heroes
