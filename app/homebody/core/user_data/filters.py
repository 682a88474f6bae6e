"""Filters that clients store under an id, or send in the query of a request.

Their semantics are in spec/filters.py. This module alone writes the table filters.
Spec: client-server-api#filtering
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import orjson
from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.models.account_data import Filter as StoredFilter
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.spec.filters import Filter, RoomEventFilter
from homebody.storage.database import Reader, Tx

F = TypeVar("F")

MAX_BYTES = 65536
"""Per definition, as JSON."""
MAX_STORED = 200
"""Per user. Clients that create a new filter at each start would fill the disk."""
_CACHED_BYTES = 8192
"""Largest definition that is cached."""

_IDS = select(StoredFilter.filter_id).where(StoredFilter.user_id == bindparam("user_id"))
_SAME = _IDS.where(StoredFilter.definition == bindparam("definition"))
_DEFINITION = select(StoredFilter.definition).where(
    StoredFilter.user_id == bindparam("user_id"), StoredFilter.filter_id == bindparam("filter_id")
)


def define(tx: Tx, user_id: str, definition: Json) -> str:
    """Store a filter and return its id; the same definition gets the same id.

    The user's oldest filter is deleted when there are too many.
    Raises M_BAD_JSON for an invalid filter, M_TOO_LARGE.
    """
    text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS).decode()
    if len(text) > MAX_BYTES:
        raise errors.too_large(f"The filter is larger than {MAX_BYTES} bytes")
    try:
        filters.parse(definition)
    except ValueError as problem:
        raise errors.bad_json(f"This is not a valid filter: {problem}") from None
    same: str | None = tx.sql.execute(_SAME, {"user_id": user_id, "definition": text}).scalar()
    return same or _store(tx, user_id, text)


def definition(tx: Reader, user_id: str, filter_id: str) -> Json:
    """Return the filter that the user has stored under an id. Raises M_NOT_FOUND."""
    text = _stored(tx, user_id, filter_id)
    if text is None:
        raise errors.not_found("There is no such filter")
    found: Json = orjson.loads(text)
    return found


def resolve(tx: Reader, user_id: str, text: str) -> Filter:
    """Return the filter in the query parameter `filter`: an id or a definition.

    Raises M_INVALID_PARAM for invalid filters and unknown ids.
    """
    if not text.startswith("{"):
        stored = _stored(tx, user_id, text)
        if stored is None:
            raise errors.invalid_param("There is no filter with this id")
        text = stored
    return _cached(text) if len(text) <= _CACHED_BYTES else _parse(text)


def resolve_room_event_filter(text: str | None) -> RoomEventFilter:
    """Return the RoomEventFilter in the query parameter `filter` of /messages and /context.

    Raises M_INVALID_PARAM for an invalid one.
    """
    if not text:
        return filters.EVERY_ROOM_EVENT
    if len(text) <= _CACHED_BYTES:
        return _cached_room_event_filter(text)
    return _parse_room_event_filter(text)


def parse_room_event_filter(json: object) -> RoomEventFilter:
    """Return the RoomEventFilter in the body of a request. Raises ValueError for an invalid one."""
    return filters.parse_room_event_filter(json, event_loop.pause)


def _store(tx: Tx, user_id: str, text: str) -> str:
    ids = [int(it) for it in tx.sql.execute(_IDS, {"user_id": user_id}).scalars()]
    if len(ids) >= MAX_STORED:
        oldest = (StoredFilter.user_id == user_id, StoredFilter.filter_id == str(min(ids)))
        tx.sql.execute(delete(StoredFilter).where(*oldest))
    # Not below the clock, so that a restored server does not reuse ids of the lost one
    filter_id = str(max([*(it + 1 for it in ids), tx.position]))
    stored = {"user_id": user_id, "filter_id": filter_id, "definition": text}
    tx.sql.execute(insert(StoredFilter), stored)
    return filter_id


def _stored(tx: Reader, user_id: str, filter_id: str) -> str | None:
    key = {"user_id": user_id, "filter_id": filter_id}
    text: str | None = tx.sql.execute(_DEFINITION, key).scalar()
    return text


def _parse(text: str) -> Filter:
    return _parsed(text, lambda json: filters.parse(json, event_loop.pause))


def _parse_room_event_filter(text: str) -> RoomEventFilter:
    return _parsed(text, parse_room_event_filter)


def _parsed(text: str, parse: Callable[[object], F]) -> F:
    if len(text) > MAX_BYTES:
        raise errors.invalid_param(f"The filter is larger than {MAX_BYTES} bytes")
    try:
        return parse(orjson.loads(text))
    except ValueError as problem:
        raise errors.invalid_param(f"This is not a valid filter: {problem}") from None


_cached = lru_cache(maxsize=128)(_parse)
_cached_room_event_filter = lru_cache(maxsize=128)(_parse_room_event_filter)
