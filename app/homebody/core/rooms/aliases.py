"""Room aliases: `#cats:example.org` instead of `!BYnRKZwmtvOsaCgxAe:example.org`.

This module alone writes the table room_aliases.
Spec: client-server-api#room-aliases, client-server-api#mroomcanonical_alias
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, insert, select, update

from homebody import errors
from homebody.core.events import state
from homebody.core.events.history_visibility import VISIBILITY
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.models.rooms import RoomAlias
from homebody.spec import event_auth, identifiers, room_state
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

CANONICAL_ALIAS = "m.room.canonical_alias"
MAX_ELSEWHERE: Final = 10
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})

_FIND = select(RoomAlias.alias, RoomAlias.room_id, RoomAlias.creator).where(
    RoomAlias.alias.in_(bindparam("aliases", expanding=True))
)
_OF_ROOM = (
    select(RoomAlias.alias)
    .where(RoomAlias.room_id == bindparam("room_id"))
    .order_by(RoomAlias.alias)
)


def resolve(tx: Reader, text: str) -> str:
    """Return the room ID for a room ID or alias, without checking that the room exists.

    Raises M_INVALID_PARAM for anything else, M_NOT_FOUND for an unknown alias.
    """
    return text if identifiers.is_room_id(text) else room_of(tx, text)


def room_of(tx: Reader, alias: str) -> str:
    """Return the id of the room with this alias. Raises as `resolve` does."""
    return str(_find(tx, alias).room_id)


def check(alias: object) -> None:
    """Raise M_INVALID_PARAM unless this is a room alias."""
    if not identifiers.is_room_alias(alias):
        raise errors.invalid_param(f"{alias!r} is not a room alias")


def create(tx: Tx, alias: str, room_id: str, user_id: str) -> None:
    """Add an alias of this server to a room that the user is in.

    Raises M_INVALID_PARAM for an invalid alias or one of another server, 409 M_UNKNOWN for one that
    is taken, M_FORBIDDEN for users who are not in the room.
    """
    check(alias)
    if identifiers.server_name(alias) != tx.server.name:
        raise errors.invalid_param(f"Aliases on this server end in :{tx.server.name}")
    state.check_joined(tx, room_id, user_id)
    if is_taken(tx, alias):
        raise errors.alias_in_use(f"{alias} is in use already")
    row = {"alias": alias, "room_id": room_id, "creator": user_id}
    tx.sql.execute(insert(RoomAlias), row)


def is_taken(tx: Reader, alias: str) -> bool:
    """Return whether the alias exists."""
    return tx.sql.execute(_FIND, {"aliases": [alias]}).first() is not None


def remove(tx: Tx, alias: str, requester: Requester) -> None:
    """Remove an alias, from m.room.canonical_alias too if the user may change that.

    Raises M_NOT_FOUND, and M_FORBIDDEN unless the user created it, is an administrator or has the
    power to set the room's canonical alias.
    """
    row = _find(tx, alias)
    if (
        row.creator != requester.user_id
        and not requester.is_admin
        and requester.service is None  # the view has checked its namespace
        and not may_manage(tx, row.room_id, requester.user_id)
    ):
        raise errors.forbidden(f"You may not remove {alias}")
    tx.sql.execute(delete(RoomAlias).where(RoomAlias.alias == alias))
    _remove_from_state(tx, row.room_id, [alias], requester.user_id)


def move(tx: Tx, old_room: str, new_room: str, user_id: str) -> list[str]:
    """Move the aliases of a room to the one that replaces it, with m.room.canonical_alias.

    Return them.

    The user has just created the new room. In the old one that event is only changed if they have
    the power to. Raises M_FORBIDDEN when they may not set it in the new room.
    """
    moved = list(tx.sql.execute(_OF_ROOM, {"room_id": old_room}).scalars())
    of_old = RoomAlias.room_id == old_room
    tx.sql.execute(update(RoomAlias).where(of_old).values(room_id=new_room))
    event = state.current(tx, old_room, CANONICAL_ALIAS)
    named = [alias for alias in _named(event.content) if alias in moved] if event else []
    if event is None or not named:
        return moved
    taken: Json = {"alias": named[0]} if event.content.get("alias") == named[0] else {}
    alternatives = list(dict.fromkeys(alias for alias in named if alias != taken.get("alias")))
    if alternatives:
        taken["alt_aliases"] = alternatives
    sending.send(tx, sending.Draft(new_room, user_id, CANONICAL_ALIAS, taken, ""))
    _remove_from_state(tx, old_room, named, user_id)
    return moved


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete all aliases of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(RoomAlias).where(RoomAlias.room_id == room_id))


def may_manage(tx: Reader, room_id: str, user_id: str) -> bool:
    """Return whether the user is in the room, with the power to set its canonical alias."""
    if not state.is_joined(tx, room_id, user_id):
        return False
    known = state.current_many(tx, room_id, [room_state.CREATE, room_state.POWER_LEVELS])
    levels = event_auth.power_levels(known)
    return levels.of_user(user_id) >= levels.to_send(CANONICAL_ALIAS, is_state=True)


def of_room(tx: Reader, room_id: str, requester: Requester) -> list[str]:
    """Return the aliases of a room on this server.

    Raises M_FORBIDDEN for users who are not in it, unless it is world-readable; administrators may
    ask, as tools like synadm do.
    """
    if not requester.is_admin and not state.is_joined(tx, room_id, requester.user_id):
        setting = state.current(tx, room_id, *VISIBILITY)
        if setting is None or setting.content.get("history_visibility") != "world_readable":
            raise errors.forbidden("You are not in this room")
    return list(tx.sql.execute(_OF_ROOM, {"room_id": room_id}).scalars())


def check_canonical(
    tx: Reader, room_id: str, content: Json, elsewhere: Mapping[str, str] = NOTHING
) -> None:
    """Check the aliases that a new m.room.canonical_alias adds.

    `elsewhere`: {alias: room ID} of those of `added_elsewhere`, as their servers say.
    Raises M_INVALID_PARAM for an invalid alias, M_BAD_ALIAS for one of another room.
    """
    added = _added(tx, room_id, content)
    for named in added:
        check(named)
    found = {row.alias: row.room_id for row in tx.sql.execute(_FIND, {"aliases": added})}
    for named in added:
        if {**elsewhere, **found}.get(named) != room_id:
            raise errors.bad_alias(f"{named} does not point to this room")


def added_elsewhere(tx: Reader, room_id: str, user_id: str, content: Json) -> list[str]:
    """Return the aliases of other servers that a new m.room.canonical_alias would add.

    None for users who may not send it, as no server needs to be asked for them. Raises
    M_INVALID_PARAM for more than MAX_ELSEWHERE.
    """
    if not may_manage(tx, room_id, user_id):
        return []
    valid = [it for it in _added(tx, room_id, content) if identifiers.is_room_alias(it)]
    found = [it for it in dict.fromkeys(valid) if identifiers.server_name(it) != tx.server.name]
    if len(found) > MAX_ELSEWHERE:
        raise errors.invalid_param(
            f"Only {MAX_ELSEWHERE} aliases of other servers can be added at once"
        )
    return found


def _added(tx: Reader, room_id: str, content: Json) -> list[Any]:
    """Return what the current m.room.canonical_alias does not name. Raises M_BAD_JSON."""
    alias, alternatives = content.get("alias"), content.get("alt_aliases")
    if not isinstance(alias, str | None) or not isinstance(alternatives, list | None):
        raise errors.bad_json("alias must be a string, and alt_aliases a list of strings")
    before = state.current(tx, room_id, CANONICAL_ALIAS)
    known = _named(before.content) if before is not None else []
    return [named for named in _named(content) if named not in known]


def _find(tx: Reader, alias: str) -> Row[Any]:
    """Return the row of an alias. Raises as `resolve` does."""
    check(alias)
    row: Row[Any] | None = tx.sql.execute(_FIND, {"aliases": [alias]}).first()
    if row is None:
        raise errors.not_found(f"There is no room with the alias {alias}")
    return row


def _named(content: Json) -> list[Any]:
    """Return the values in the places of aliases in the content of m.room.canonical_alias."""
    alias, alternatives = content.get("alias"), content.get("alt_aliases")
    places = alternatives if isinstance(alternatives, list) else []
    return [alias, *places] if alias else places


def _remove_from_state(tx: Tx, room_id: str, gone: Collection[str], user_id: str) -> None:
    event = state.current(tx, room_id, CANONICAL_ALIAS)
    if event is None:
        return
    content = _without(event.content, gone)
    if content == event.content:
        return
    try:
        sending.send(tx, sending.Draft(room_id, user_id, CANONICAL_ALIAS, content, ""))
    except MatrixError as error:
        # "delete the alias and return a successful response even if the user does not have
        # permission to update the m.room.canonical_alias event"
        if error.errcode != "M_FORBIDDEN":
            raise


def _without(content: Json, gone: Collection[str]) -> Json:
    """Return the content of m.room.canonical_alias without these aliases."""
    left = {key: value for key, value in content.items() if key != "alias" or value not in gone}
    alternatives = content.get("alt_aliases")
    if isinstance(alternatives, list):
        left["alt_aliases"] = [alias for alias in alternatives if alias not in gone]
    return left
