"""What the owner does with rooms: see which there are, and remove one for good.

Each table has one module that writes it, so each of them removes its own part; this module says in
which order. First goes what makes the room a room, in one write, so that nobody can send to it or
read it any more; then its events by and by, as there may be a million. What a crash interrupts can
be asked for again.

What stays: files, as they belong to who uploaded them and not to rooms; the encrypted keys in
people's own backups; what other rooms say of this one.
"""

from __future__ import annotations

import logging
import time
from typing import Final

import orjson
from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core.appservices import directory as networks
from homebody.core.ephemeral import receipts
from homebody.core.events import members, state
from homebody.core.push import counts
from homebody.core.rooms import aliases, membership, reports, server_notices
from homebody.core.timeline import sending, store
from homebody.core.user_data import account_data
from homebody.errors import MatrixError
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

OWNERS: Final = (
    state,  # by the room's number, which goes with the next
    store,
    members,
    aliases,
    membership,
    networks,
    counts,
    receipts,
    account_data,
    reports,
    server_notices,
)
"""The modules that have tables with rooms in them."""
EVENTS_AT_ONCE: Final = 500
USERS_AT_ONCE: Final = 20
"""In one write, so that other writers get their turn between."""
NOTICE_SECONDS: Final = 3.0
"""Between the leave of a room's users and the end of the room."""

_NAME, _ALIAS = aliased(StateInterval), aliased(StateInterval)
_NAME_EVENT, _ALIAS_EVENT = aliased(StoredEvent), aliased(StoredEvent)
_JOINED = (
    select(func.count())
    .where(
        StateInterval.room_number == Room.number,
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
    .scalar_subquery()
)
_EVENTS = select(func.count()).where(StoredEvent.room_id == Room.room_id).scalar_subquery()
_LAST = (
    select(StoredEvent.origin_server_ts)
    .where(StoredEvent.position == Room.last_position)
    .scalar_subquery()
)
_ALL = (
    select(
        Room.room_id,
        Room.version,
        Room.is_published,
        _JOINED.label("joined_members"),
        _EVENTS.label("events"),
        _LAST.label("last_event_ts"),
        _NAME_EVENT.pdu.label("name"),
        _ALIAS_EVENT.pdu.label("alias"),
    )
    .outerjoin(
        _NAME,
        (_NAME.room_number == Room.number)
        & (_NAME.type == "m.room.name")
        & (_NAME.state_key == "")
        & (_NAME.to_position == NOW_AND_LATER),
    )
    .outerjoin(_NAME_EVENT, _NAME_EVENT.position == _NAME.event_position)
    .outerjoin(
        _ALIAS,
        (_ALIAS.room_number == Room.number)
        & (_ALIAS.type == "m.room.canonical_alias")
        & (_ALIAS.state_key == "")
        & (_ALIAS.to_position == NOW_AND_LATER),
    )
    .outerjoin(_ALIAS_EVENT, _ALIAS_EVENT.position == _ALIAS.event_position)
    .order_by(Room.last_position.desc())
)
_IS_THERE = select(Room.room_id).where(Room.room_id == bindparam("room_id"))
_HAS_EVENTS = select(StoredEvent.position).where(StoredEvent.room_id == bindparam("room_id"))
_PEOPLE = select(StateInterval.state_key).where(
    StateInterval.room_number == state.ROOM_NUMBER,
    StateInterval.to_position == NOW_AND_LATER,
    StateInterval.membership.in_(("join", "invite", "knock")),
)


def all_rooms(tx: Reader) -> list[Json]:
    """Every room, the one in which something happened last first.

    Each has room_id, version, name and canonical_alias (None: it has none), joined_members, events
    (how many), last_event_ts (ms) and is_published.
    """
    return [
        {
            "room_id": row.room_id,
            "version": row.version,
            "name": _said(row.name, "name"),
            "canonical_alias": _said(row.alias, "alias"),
            "joined_members": row.joined_members,
            "events": row.events,
            "last_event_ts": row.last_event_ts,
            "is_published": row.is_published,
        }
        for row in tx.sql.execute(_ALL)
    ]


def purge(db: Database, room_id: str, *, is_forced: bool = False) -> int:
    """Remove a room with everything that is known of it; how many events it had.

    Raises M_NOT_FOUND, and M_FORBIDDEN while users of this server are in the room; with
    `is_forced` they leave first. A device that does not ask for news between their leave and the
    end of the room, some seconds later, never hears of either, and goes on showing it.
    """
    with db.read() as tx:
        _check_is_there(tx, room_id)
        if not is_forced:
            _check_is_empty(tx, room_id)
    if is_forced and _send_all_away(db, room_id):
        wait_for_clients()
    with db.write() as writing:
        if not is_forced:  # somebody may have come in meanwhile
            _check_is_empty(writing, room_id)
        for owner in OWNERS:
            owner.remove_room(writing, room_id)
    removed, last = 0, EVENTS_AT_ONCE
    while last == EVENTS_AT_ONCE:
        with db.write() as writing:
            last = store.remove_events(writing, room_id, EVENTS_AT_ONCE)
        removed += last
        event_loop.breathe()
    return removed


def wait_for_clients() -> None:
    """Let devices that wait for news hear that their users have left.

    This is the command line, mostly: the server takes up to half a second to notice what another
    process has written, and on a busy machine more.
    """
    time.sleep(NOTICE_SECONDS)


def _check_is_there(tx: Reader, room_id: str) -> None:
    asked = {"room_id": room_id}
    for query in (_IS_THERE, _HAS_EVENTS):  # events alone: a crash has interrupted a purge
        if tx.sql.execute(query, asked).first() is not None:
            return
    raise errors.not_found(f"There is no room {room_id}")


def _check_is_empty(tx: Reader, room_id: str) -> None:
    here = sorted(user for user in state.joined_users(tx, room_id) if tx.server.is_local(user))
    if here:
        others = f" and {len(here) - 3} others" if len(here) > 3 else ""
        raise errors.forbidden(f"{', '.join(here[:3])}{others} would have to leave the room first")


def _send_all_away(db: Database, room_id: str) -> bool:
    """Let all users of this server leave, and decline what they were invited to.

    Return whether there were any.
    """
    with db.read() as tx:
        found = tx.sql.execute(_PEOPLE, {"room_id": room_id}).scalars().all()
        people = sorted(user for user in found if tx.server.is_local(user))
    for at in range(0, len(people), USERS_AT_ONCE):
        with db.write() as writing:
            for user_id in people[at : at + USERS_AT_ONCE]:
                content = {"membership": "leave"}
                draft = sending.Draft(room_id, user_id, state.MEMBER, content, user_id)
                try:
                    sending.send(writing, draft)
                except MatrixError as error:  # all the more reason to remove a broken room
                    LOG.warning("%s could not leave %s: %s", user_id, room_id, error)
    return bool(people)


def _said(pdu: str | None, key: str) -> str | None:
    """A text in the content of a state event."""
    text = None if pdu is None else orjson.loads(pdu)["content"].get(key)
    return text if isinstance(text, str) and text else None
