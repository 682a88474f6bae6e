"""Which files are in use: what no deletion by age or budget may take away.

These are files in profiles (avatars and other fields), in account data (emoji, sticker packs), in
the current state of rooms (avatars of rooms and members, emoji and sticker packs of rooms), and in
pinned events. An attachment of a message is not in use for being in the history: it ages. Whether
an encrypted event refers to a file can't be seen; core/administration/media_retention.py says what
that means for encrypted files.

The references are collected in short reads, a room at a time. They are kept as hashes: a collision
only spares a file. What comes later is added by `renew`, at last in the write that deletes a file:
so none is lost that becomes an avatar meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import orjson
from sqlalchemy import bindparam, func, select

from homebody.core.events import state
from homebody.models.account_data import AccountData
from homebody.models.accounts import ProfileChange, ProfileField
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import batches

PINNED: Final = "m.room.pinned_events"
_TEXTS_AT_ONCE: Final = 200
_EVENTS_AT_ONCE: Final = 100
_URI: Final = re.compile(r"mxc://([^/\"\\\s]+)/([0-9A-Za-z_.~-]+)")
_MXC: Final = "mxc://"

_PROFILES = select(ProfileField.value).where(func.instr(ProfileField.value, _MXC) > 0)
_ACCOUNT_DATA = select(AccountData.content).where(func.instr(AccountData.content, _MXC) > 0)
_ROOMS = select(Room.number).order_by(Room.number)
_CURRENT = (
    select(StoredEvent.type, StoredEvent.pdu)
    .join(StateInterval, StateInterval.event_number == StoredEvent.number)
    .where(
        StateInterval.room_number == bindparam("room"),
        StateInterval.to_position == NOW_AND_LATER,
        (func.instr(StoredEvent.pdu, _MXC) > 0) | (StoredEvent.type == PINNED),
    )
)


_NEW_PROFILES = _PROFILES.join(
    ProfileChange,
    (ProfileChange.user_id == ProfileField.user_id) & (ProfileChange.name == ProfileField.name),
).where(ProfileChange.position > bindparam("after"))
_NEW_ACCOUNT_DATA = _ACCOUNT_DATA.where(AccountData.position > bindparam("after"))
_NEW_STATE = select(StoredEvent.type, StoredEvent.pdu).where(
    StoredEvent.number > bindparam("after"),
    StoredEvent.state_key.is_not(None),
    (func.instr(StoredEvent.pdu, _MXC) > 0) | (StoredEvent.type == PINNED),
)
_LAST_NUMBER = select(func.coalesce(func.max(StoredEvent.number), 0))


class References:
    """The files that are in use at the time of a snapshot, and of each `renew` after it."""

    def __init__(self, tx: Reader) -> None:
        self._hashes: set[int] = set()
        self._position = tx.position
        self._number = _last_number(tx)

    def add(self, text: str) -> None:
        """Add the files whose mxc URIs are in a text."""
        self._hashes.update(hash(pair) for pair in _URI.findall(text))

    def has(self, origin: str, media_id: str) -> bool:
        """Return whether a file is in use."""
        return hash((origin, media_id)) in self._hashes

    def renew(self, tx: Reader) -> None:
        """Add the references that have come since.

        A state event that comes back without being sent again, by state resolution, does not count.
        """
        position, number = tx.position, _last_number(tx)
        for statement in (_NEW_PROFILES, _NEW_ACCOUNT_DATA):
            for row in tx.sql.execute(statement, {"after": self._position}):
                self.add(row[0])
        for row in tx.sql.execute(_NEW_STATE, {"after": self._number}):
            self.add(row.pdu)
            for some in batches(_pinned(row.pdu) if row.type == PINNED else (), _EVENTS_AT_ONCE):
                for text in _texts(tx, some):
                    self.add(text)
        self._position, self._number = position, number


def collect(db: Database) -> References:
    """Return all references. Waits between its reads, so that requests go on."""
    with db.read() as tx:
        found = References(tx)
    for statement in (_PROFILES, _ACCOUNT_DATA):
        with db.read() as tx:
            texts = [row[0] for row in tx.sql.execute_long(statement, {})]
        _add_all(found, texts)
    with db.read() as tx:
        rooms = tx.sql.execute(_ROOMS).scalars().all()
    for room in rooms:
        with db.read() as tx:
            rows = tx.sql.execute_long(_CURRENT, {"room": room})
        _add_all(found, [row.pdu for row in rows])
        for row in rows:
            if row.type == PINNED:
                _add_pinned(db, found, row.pdu)
        event_loop.pause()
    return found


def _add_all(found: References, texts: Iterable[str]) -> None:
    for some in batches(texts, _TEXTS_AT_ONCE):
        for text in some:
            found.add(text)
        event_loop.pause()


def _add_pinned(db: Database, found: References, pdu: str) -> None:
    """Add the files of the events that an m.room.pinned_events event pins."""
    for some in batches(_pinned(pdu), _EVENTS_AT_ONCE):
        with db.read() as tx:
            texts = _texts(tx, some)
        _add_all(found, texts)


def _pinned(pdu: str) -> list[str]:
    pinned = orjson.loads(pdu)["content"].get("pinned")
    return [it for it in pinned if isinstance(it, str)] if isinstance(pinned, list) else []


def _last_number(tx: Reader) -> int:
    return int(tx.sql.execute(_LAST_NUMBER).scalar_one())


def _texts(tx: Reader, event_ids: list[str]) -> list[str]:
    known = state.find_many(tx, event_ids).values()
    return [orjson.dumps(it.event.content).decode() for it in known]
