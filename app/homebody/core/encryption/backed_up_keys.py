"""The room keys in a key backup: store, read and delete them by session, by room or all.

The server cannot read the keys. It only knows the properties that decide which of two keys for the
same session is the better one, and keeps that one regardless of the order of uploads.

A backup may hold many thousand keys, so there are no queries for single keys, and changes of very
many are split into several transactions, so that other writers get their turn in between. If one
fails, the client repeats the request with the same result.

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
from homebody.spec import canonical_json, identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches, item, listed

MAX_SESSION_DATA_BYTES: Final = 65536
MAX_KEYS: Final = 500_000
"""Per version: about 300 MB. Ten years in large rooms produce some 50,000."""
AT_ONCE: Final = 1_000
"""Keys per transaction, and per page when reading before yielding to the event loop."""

Session = tuple[str, str]
"""(room_id, session_id)"""
Number = Annotated[int, msgspec.Meta(ge=0, le=canonical_json.MAX_INTEGER)]


class Key(msgspec.Struct, frozen=True):
    """A key as uploaded by a client for one session."""

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
_PRIMARY_KEY = tuple_(*BackedUpKey.__table__.primary_key)
_SIZE = func.length(cast(BackedUpKey.session_data, LargeBinary))
_SESSIONS = listed("sessions")
_BYTES = (
    select(func.coalesce(func.sum(_SIZE), 0))
    .select_from(_SESSIONS)
    .join(
        BackedUpKey,
        (BackedUpKey.user_id == bindparam("user_id"))
        & (BackedUpKey.version == bindparam("version"))
        & (BackedUpKey.room_id == item(_SESSIONS, 0))
        & (BackedUpKey.session_id == item(_SESSIONS, 1)),
    )
)
_PUT = insert(BackedUpKey)
_ADD = _PUT.on_conflict_do_nothing()
_NEW = _PUT.excluded
# "If the keys have different values for is_verified, then it will keep the key that has is_verified
# set to true; if they have the same values […] the key with a lower first_message_index; and
# finally […] the key with a lower forwarded_count". A comparison of tuples, left to right.
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
    """Raise M_INVALID_PARAM for an invalid room ID or a long session ID, or M_TOO_LARGE."""
    for room_id in {room_id for room_id, _ in keys}:
        if not identifiers.is_room_id(room_id):
            raise errors.invalid_param(f"{room_id[:50]!r} is not a room ID")
    for (_, session_id), key in keys.items():
        if not identifiers.has_at_most_255_bytes(session_id):
            raise errors.invalid_param("A session ID is longer than 255 bytes")
        if len(orjson.dumps(key.session_data)) > MAX_SESSION_DATA_BYTES:
            raise errors.too_large(f"session_data may have at most {MAX_SESSION_DATA_BYTES} bytes")


def put(db: Database, user_id: str, version: str, keys: Mapping[Session, Key]) -> Json:
    """Add keys to the current version or replace worse ones; return the new {etag, count}.

    Raises M_NOT_FOUND or M_WRONG_ROOM_KEYS_VERSION for another version, M_USER_LIMIT_EXCEEDED, and
    the errors of `check`.
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
    """Return {"rooms": {room_id: {"sessions": {session_id: key}}}}. Raises M_NOT_FOUND."""
    rooms: Json = {}
    for row in _rows(tx, user_id, version):
        room = rooms.setdefault(row.room_id, {"sessions": {}})
        room["sessions"][row.session_id] = _described(row)
    return {"rooms": rooms}


def of_room(tx: Reader, user_id: str, version: str, room_id: str) -> Json:
    """Return {"sessions": {session_id: key}} of a room. Raises M_NOT_FOUND for the version."""
    rows = _rows(tx, user_id, version, room_id)
    return {"sessions": {row.session_id: _described(row) for row in rows}}


def of_session(tx: Reader, user_id: str, version: str, room_id: str, session_id: str) -> Json:
    """Return the key of one session. Raises M_NOT_FOUND."""
    for row in _rows(tx, user_id, version, room_id, session_id):
        return _described(row)
    raise errors.not_found("This backup has no such key")


def remove(
    db: Database,
    user_id: str,
    version: str,
    room_id: str | None = None,
    session_id: str | None = None,
) -> Json:
    """Delete the keys of a session, a room or the whole version; return the new {etag, count}.

    Raises M_NOT_FOUND if the version does not exist.
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
    """Delete a version and its keys. Raises M_NOT_FOUND if the version never existed.

    The version is deleted first: a crash leaves unreachable keys until it is deleted again.
    """
    with db.write() as tx:
        found = key_backup.mark_deleted(tx, user_id, version)
    _remove_all(db, _place(user_id, found))


def erase(db: Database, user_id: str) -> None:
    """Delete all backups of an account that is being deactivated."""
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
    replaced = tx.sql.execute(_REPLACE_WORSE, rows).rowcount  # never the rows just added
    if added or replaced:
        added_bytes = _bytes_of(tx, owner, keys) - before
        key_backup.note_change(tx, user_id, version, added, added_bytes)
    if added and key_backup.size(tx, user_id, version)["count"] > MAX_KEYS:
        raise errors.too_large(f"A backup may have at most {MAX_KEYS} keys")


def _bytes_of(tx: Tx, owner: Json, sessions: Collection[Session]) -> int:
    """Return the current size of the keys of these sessions."""
    return int(tx.sql.execute(_BYTES, {**owner, "sessions": list(sessions)}).scalar_one())


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
    """Yield keys of a version, yielding to the event loop as well. Raises M_NOT_FOUND."""
    number = key_backup.number(tx, user_id, version)
    place = _place(user_id, number, room_id, session_id)
    for page in batches(tx.sql.execute(select(*_KEY).where(*place)), AT_ONCE):
        yield from page
        event_loop.pause()


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
    """Delete up to AT_ONCE keys and return their sizes in bytes."""
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
