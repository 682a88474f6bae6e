"""The keys in a backup: put in many at once, read, taken away, by room or by session or all.

The server cannot read them. All it knows is what decides which of two keys for the same session is
the better one, and it keeps that one whatever the order in which devices upload.

A backup may hold many thousand keys, so nothing here asks the database key by key, and what changes
very many takes several writes, so that others get their turn between. If one of them fails, the
client repeats the request, and finds the same end.

This module alone writes the table backed_up_keys.
Spec: client-server-api#server-side-key-backups
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec
import orjson
from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Row,
    bindparam,
    cast,
    delete,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.encryption import key_backup
from homebody.models.key_backup import BackedUpKey
from homebody.runtime import event_loop
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

MAX_INTEGER: Final = 2**53 - 1
MAX_SESSION_DATA_BYTES: Final = 65536
MAX_KEYS: Final = 500_000
"""Of one version: about 300 MB. Ten years in large rooms make some 50,000."""
AT_ONCE: Final = 1_000
"""Keys in one write, and between two breaths of a long answer."""

Session = tuple[str, str]
"""(room_id, session_id)"""
Number = Annotated[int, msgspec.Meta(ge=0, le=MAX_INTEGER)]


class Key(msgspec.Struct, frozen=True):
    """What a client uploads for one session."""

    first_message_index: Number
    forwarded_count: Number
    is_verified: bool
    session_data: Json


_KEY = (
    BackedUpKey.room_id,
    BackedUpKey.session_id,
    BackedUpKey.first_message_index,
    BackedUpKey.forwarded_count,
    BackedUpKey.is_verified,
    BackedUpKey.session_data,
)
_PRIMARY_KEY = tuple_(
    BackedUpKey.user_id, BackedUpKey.version, BackedUpKey.room_id, BackedUpKey.session_id
)
_SIZE = func.length(cast(BackedUpKey.session_data, LargeBinary))
_SESSIONS = func.json_each(bindparam("sessions")).table_valued("value")
_BYTES = (
    select(func.coalesce(func.sum(_SIZE), 0))
    .select_from(_SESSIONS)
    .join(
        BackedUpKey,
        (BackedUpKey.user_id == bindparam("user_id"))
        & (BackedUpKey.version == bindparam("version"))
        & (BackedUpKey.room_id == func.json_extract(_SESSIONS.c.value, "$[0]"))
        & (BackedUpKey.session_id == func.json_extract(_SESSIONS.c.value, "$[1]")),
    )
)
_PUT = insert(BackedUpKey)
_ADD = _PUT.on_conflict_do_nothing()
_NEW = _PUT.excluded
# "If the keys have different values for is_verified, then it will keep the key that has is_verified
# set to true; if they have the same values […] the key with a lower first_message_index; and
# finally […] the key with a lower forwarded_count". Compared from left to right, as tuples are.
_REPLACE_WORSE = _PUT.on_conflict_do_update(
    index_elements=["user_id", "version", "room_id", "session_id"],
    set_={
        name: _NEW[name]
        for name in ("first_message_index", "forwarded_count", "is_verified", "session_data")
    },
    where=tuple_(_NEW.is_verified, -_NEW.first_message_index, -_NEW.forwarded_count)
    > tuple_(
        BackedUpKey.is_verified, -BackedUpKey.first_message_index, -BackedUpKey.forwarded_count
    ),
)


def check(keys: Mapping[Session, Key]) -> None:
    """Raises M_INVALID_PARAM for a room that is none or a long session id, M_TOO_LARGE."""
    for room_id in {room_id for room_id, _ in keys}:
        if not identifiers.is_room_id(room_id):
            raise errors.invalid_param(f"{room_id[:50]!r} is no room id")
    for (_, session_id), key in keys.items():
        if not identifiers.has_at_most_255_bytes(session_id):
            raise errors.invalid_param("A session id is longer than 255 bytes")
        if len(orjson.dumps(key.session_data)) > MAX_SESSION_DATA_BYTES:
            raise errors.too_large(f"session_data has at most {MAX_SESSION_DATA_BYTES} bytes")


def put(db: Database, user_id: str, version: str, keys: Mapping[Session, Key]) -> Json:
    """Add these keys to the current version, or replace worse ones; {etag, count} after it.

    Raises M_NOT_FOUND or M_WRONG_ROOM_KEYS_VERSION for another version, M_USER_LIMIT_EXCEEDED, and
    what `check` does.
    """
    check(keys)
    sessions = list(keys)
    for at in range(0, max(1, len(sessions)), AT_ONCE):
        some = {session: keys[session] for session in sessions[at : at + AT_ONCE]}
        with db.write() as tx:
            found = key_backup.number_to_write(tx, user_id, version)
            _put(tx, user_id, found, some)
            size = key_backup.size(tx, user_id, found)
    return size


def of_version(tx: Reader, user_id: str, version: str) -> Json:
    """{"rooms": {room_id: {"sessions": {session_id: key}}}} of a version. Raises M_NOT_FOUND."""
    rooms: Json = {}
    for row in _rows(tx, user_id, version):
        room = rooms.setdefault(row.room_id, {"sessions": {}})
        room["sessions"][row.session_id] = _described(row)
    return {"rooms": rooms}


def of_room(tx: Reader, user_id: str, version: str, room_id: str) -> Json:
    """{"sessions": {session_id: key}} of one room. Raises M_NOT_FOUND without the version."""
    rows = _rows(tx, user_id, version, room_id)
    return {"sessions": {row.session_id: _described(row) for row in rows}}


def of_session(tx: Reader, user_id: str, version: str, room_id: str, session_id: str) -> Json:
    """The key of one session. Raises M_NOT_FOUND."""
    for row in _rows(tx, user_id, version, room_id, session_id):
        return _described(row)
    raise errors.not_found("There is no such key in this backup")


def remove(
    db: Database,
    user_id: str,
    version: str,
    room_id: str | None = None,
    session_id: str | None = None,
) -> Json:
    """Take the keys of a session, a room or the whole version away; {etag, count} after it.

    Raises M_NOT_FOUND without the version.
    """
    while True:
        with db.write() as tx:
            found = key_backup.number(tx, user_id, version)
            removed = _remove_some(tx, _place(user_id, found, room_id, session_id))
            if removed:
                key_backup.note_change(tx, user_id, found, -len(removed), -sum(removed))
            size = key_backup.size(tx, user_id, found)
        if len(removed) < AT_ONCE:
            return size


def remove_version(db: Database, user_id: str, version: str) -> None:
    """Delete a version and its keys. Raises M_NOT_FOUND if there never was such a version.

    The version goes first: a crash leaves keys that nobody finds, until it is deleted once more.
    """
    with db.write() as tx:
        found = key_backup.mark_deleted(tx, user_id, version)
    _remove_all(db, _place(user_id, found))


def erase(db: Database, user_id: str) -> None:
    """Drop all backups of an account that closes."""
    with db.write() as tx:
        key_backup.erase(tx, user_id)
    _remove_all(db, [BackedUpKey.user_id == user_id])


def _put(tx: Tx, user_id: str, version: int, keys: Mapping[Session, Key]) -> None:
    if not keys:
        return
    owner = {"user_id": user_id, "version": version}
    rows = [{**owner, **_row(*item)} for item in keys.items()]
    before = _bytes_of(tx, owner, keys)
    added = tx.sql.execute(_ADD, rows).rowcount
    replaced = tx.sql.execute(_REPLACE_WORSE, rows).rowcount  # none of those just added
    if added or replaced:
        added_bytes = _bytes_of(tx, owner, keys) - before
        key_backup.note_change(tx, user_id, version, added, added_bytes)
    if added and key_backup.size(tx, user_id, version)["count"] > MAX_KEYS:
        raise errors.too_large(f"A backup has at most {MAX_KEYS} keys")


def _bytes_of(tx: Tx, owner: Json, sessions: Collection[Session]) -> int:
    """How much the keys of these sessions take now."""
    asked = {**owner, "sessions": orjson.dumps(list(sessions)).decode()}
    return int(tx.sql.execute(_BYTES, asked).scalar_one())


def _row(session: Session, key: Key) -> Json:
    room_id, session_id = session
    return {
        "room_id": room_id,
        "session_id": session_id,
        "first_message_index": key.first_message_index,
        "forwarded_count": key.forwarded_count,
        "is_verified": key.is_verified,
        "session_data": orjson.dumps(key.session_data).decode(),
    }


def _rows(
    tx: Reader,
    user_id: str,
    version: str,
    room_id: str | None = None,
    session_id: str | None = None,
) -> Iterator[Row[*tuple[Any, ...]]]:
    """The keys of a place in a version, and breaths between them. Raises M_NOT_FOUND."""
    number = key_backup.number(tx, user_id, version)
    place = _place(user_id, number, room_id, session_id)
    for page in tx.sql.execute(select(*_KEY).where(*place)).partitions(AT_ONCE):
        yield from page
        event_loop.breathe()


def _place(
    user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
) -> list[ColumnElement[bool]]:
    place = [BackedUpKey.user_id == user_id, BackedUpKey.version == version]
    if room_id is not None:
        place.append(BackedUpKey.room_id == room_id)
    if session_id is not None:
        place.append(BackedUpKey.session_id == session_id)
    return place


def _remove_some(tx: Tx, place: list[ColumnElement[bool]]) -> list[int]:
    """Remove keys of a place, but not too many at once; how many bytes each of them took."""
    some = select(*_PRIMARY_KEY.clauses).where(*place).limit(AT_ONCE)
    removed = tx.sql.execute(delete(BackedUpKey).where(_PRIMARY_KEY.in_(some)).returning(_SIZE))
    return list(removed.scalars())


def _remove_all(db: Database, place: list[ColumnElement[bool]]) -> None:
    removed = AT_ONCE
    while removed == AT_ONCE:
        with db.write() as tx:
            removed = len(_remove_some(tx, place))


def _described(row: Row[*tuple[Any, ...]]) -> Json:
    return {
        "first_message_index": row.first_message_index,
        "forwarded_count": row.forwarded_count,
        "is_verified": row.is_verified,
        "session_data": orjson.Fragment(row.session_data),
    }
