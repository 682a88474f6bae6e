"""Changes of profiles, for clients that want them by sliding sync (MSC4262).

Only those of users of this server: other servers do not send the changes of their users' profiles,
except in member events. For each field the last change is kept; `profiles.py` notes it. A field
that was changed and is not there was removed.

This module alone writes the table profile_changes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson
from sqlalchemy import and_, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.core.events import state
from homebody.models.accounts import ProfileChange, ProfileField
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import listed

_UPSERT = insert(ProfileChange)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "name"], set_={"position": _UPSERT.excluded.position}
)
_CHANGED: Final = (
    select(ProfileChange.user_id, ProfileChange.name, ProfileField.value)
    .outerjoin(
        ProfileField,
        and_(
            ProfileField.user_id == ProfileChange.user_id,
            ProfileField.name == ProfileChange.name,
        ),
    )
    .where(
        ProfileChange.position > bindparam("after"), ProfileChange.position <= bindparam("until")
    )
)
_OF_USERS = select(ProfileField.user_id, ProfileField.name, ProfileField.value).where(
    ProfileField.user_id.in_(select(listed("user_ids").c.value))
)


def note(tx: Tx, user_id: str, name: str) -> None:
    """Note a change of a field, for the user's own devices and all users who share a room."""
    position = tx.caches.recent.profiles = tx.next_position()
    tx.sql.execute(_UPSERT, {"user_id": user_id, "name": name, "position": position})
    tx.wake(user_id)
    for room_id in state.joined_rooms(tx, user_id):
        tx.wake_all(state.joined(tx, room_id).local)


def since(
    tx: Reader, user_id: str, after: int, until: int, fields: Collection[str] | None = None
) -> dict[str, Json]:
    """Return {user_id: {"updated": {name: value}, "removed": [name]}} between two positions.

    These are changes of the user and of local users who share a room, each as it is now; only of
    `fields`, unless that is None. An empty part is omitted.
    """
    found: dict[str, Json] = {}
    recent = tx.caches.recent
    if recent.knows(after, until) and recent.profiles <= after:
        return found
    mine = state.joined_rooms(tx, user_id)
    shares = {user_id: True}
    for changed, name, value in tx.sql.execute(_CHANGED, {"after": after, "until": until}):
        if changed not in shares:
            shares[changed] = not mine.isdisjoint(state.joined_rooms(tx, changed))
        if not shares[changed] or (fields is not None and name not in fields):
            continue
        entry = found.setdefault(changed, {})
        if value is None:
            entry.setdefault("removed", []).append(name)
        else:
            entry.setdefault("updated", {})[name] = orjson.loads(value)
    return found


def of_users(
    tx: Reader, user_ids: Collection[str], fields: Collection[str] | None = None
) -> dict[str, Json]:
    """Return {user_id: {name: value}} of those of these users who are local and have such fields.

    Whether the requester shares a room with them is up to the caller.
    """
    found: dict[str, Json] = {}
    for user_id, name, value in tx.sql.execute(_OF_USERS, {"user_ids": user_ids}):
        if fields is None or name in fields:
            found.setdefault(user_id, {})[name] = orjson.loads(value)
    return found


def erase(tx: Tx, user_id: str) -> None:
    """Forget the changes of a profile that is deleted."""
    tx.sql.execute(delete(ProfileChange).where(ProfileChange.user_id == user_id))
