"""Lists of files for administrators: of a user, of one file, and how much each user has uploaded.

Fields and orders are those of Synapse's admin API. The lists are read in a thread, while other
requests go on: of 25,000 files, a page takes 80 ms, and all of them 300.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, bindparam, func, or_, select

from homebody import errors
from homebody.core.media import quarantine
from homebody.models.accounts import ProfileField
from homebody.models.media import Media, RemoteMediaFile
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, contains

_AT_ONCE: Final = 1000

_FIELDS: Final[dict[str, ColumnElement[Any]]] = {
    "media_id": Media.media_id.expression,
    "media_type": Media.content_type.expression,
    "media_length": Media.size_bytes.expression,
    "upload_name": Media.file_name.expression,
    "created_ts": Media.created_ts.expression,
    "last_access_ts": Media.last_used_ts.expression,
    "quarantined_by": quarantine.BY,
    "safe_from_quarantine": Media.is_protected.expression,
}
ORDERS: Final = tuple(_FIELDS)
"""The names by which the files of a user can be sorted."""
_FILES = select(*(column.label(name) for name, column in _FIELDS.items())).where(
    Media.sha256.is_not(None)
)
_OF_USER = _FILES.where(Media.user_id == bindparam("user_id"))
_IDS = select(Media.media_id).where(
    Media.user_id == bindparam("user_id"), Media.sha256.is_not(None)
)
_COUNT = select(func.count()).where(
    Media.user_id == bindparam("user_id"), Media.sha256.is_not(None)
)
_ONE = _FILES.add_columns(Media.user_id, Media.sha256).where(
    Media.origin == bindparam("its_origin"), Media.media_id == bindparam("its_id")
)
_LARGEST = (
    _FILES.add_columns(Media.user_id)
    .where(Media.size_bytes.is_not(None))
    .order_by(Media.size_bytes.desc(), Media.media_id)
    .limit(bindparam("count"))
)
_REMOTE = select(
    RemoteMediaFile.content_type,
    RemoteMediaFile.size_bytes,
    RemoteMediaFile.file_name,
    RemoteMediaFile.last_used_ts,
    RemoteMediaFile.name,
).where(RemoteMediaFile.server == bindparam("server"), RemoteMediaFile.media_id == bindparam("id"))

_DISPLAYNAME = (
    select(func.json_extract(ProfileField.value, "$"))
    .where(ProfileField.user_id == Media.user_id, ProfileField.name == "displayname")
    .correlate(Media)
    .scalar_subquery()
)
_USAGE: Final[dict[str, ColumnElement[Any]]] = {
    "user_id": Media.user_id.expression,
    "displayname": _DISPLAYNAME,
    "media_count": func.count(),
    "media_length": func.sum(Media.size_bytes),
}
USAGE_ORDERS: Final = tuple(_USAGE)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list, and how it is sorted."""

    start: int = 0
    limit: int = 100
    order_by: str = "created_ts"
    is_descending: bool = True


def of_user(tx: Reader, user_id: str, page: Page) -> tuple[list[Json], int]:
    """Return a page of a user's files, and how many there are on all pages."""
    ((total,),) = tx.sql.execute_long(_COUNT, {"user_id": user_id})
    column = _FIELDS[page.order_by]
    statement = (
        _OF_USER.order_by(column.desc() if page.is_descending else column, Media.media_id)
        .limit(page.limit)
        .offset(page.start)
    )
    rows = tx.sql.execute_long(statement, {"user_id": user_id})
    return _dicts(rows), int(total)


def largest(tx: Reader, count: int) -> list[Json]:
    """Return the largest files of this server, as in the list of a user, with `user_id`."""
    return _dicts(tx.sql.execute_long(_LARGEST, {"count": count}))


def ids_of_user(tx: Reader, user_id: str) -> list[str]:
    """Return the ids of all files of a user."""
    return [row.media_id for row in tx.sql.execute_long(_IDS, {"user_id": user_id})]


def described(tx: Reader, origin: str, media_id: str) -> Json:
    """Return what is known of a file: of this server, or fetched. Raises M_NOT_FOUND."""
    common: Json = {"filesystem_id": None, "url_cache": None, "authenticated": True}
    if origin == tx.server.name:
        row = tx.sql.execute(_ONE, {"its_origin": origin, "its_id": media_id}).first()
        if row is None:
            raise errors.not_found("There is no such file")
        return {"media_origin": None, **common, **row._asdict()}
    row = tx.sql.execute(_REMOTE, {"server": origin, "id": media_id}).first()
    if row is None:
        raise errors.not_found("This server has not fetched such a file")
    return {
        **common,
        "media_origin": origin,
        "user_id": None,
        "media_id": media_id,
        "media_type": row.content_type,
        "media_length": row.size_bytes,
        "upload_name": row.file_name,
        "created_ts": row.last_used_ts,  # when it was fetched is not kept
        "filesystem_id": row.name,
        "last_access_ts": row.last_used_ts,
        "quarantined_by": quarantine.quarantined_by(tx, origin, media_id),
        "safe_from_quarantine": None,
        "sha256": None,
    }


def usage(
    tx: Reader,
    page: Page,
    *,
    from_ts: int = 0,
    until_ts: int | None = None,
    search_term: str | None = None,
) -> tuple[list[Json], int]:
    """Return a page of the users with files, and how many there are on all pages.

    Only files that were created in this time count. `search_term` is a part of the user's name or
    display name.
    """
    statement = (
        select(*(column.label(name) for name, column in _USAGE.items()))
        .where(Media.sha256.is_not(None), Media.user_id.is_not(None), Media.created_ts >= from_ts)
        .group_by(Media.user_id)
    )
    if until_ts is not None:
        statement = statement.where(Media.created_ts <= until_ts)
    if search_term is not None:
        localpart = func.substr(Media.user_id, 2, func.instr(Media.user_id, ":") - 2)
        found = (contains(it, search_term) for it in (localpart, _DISPLAYNAME))
        statement = statement.where(or_(*found))
    ((total,),) = tx.sql.execute_long(select(func.count()).select_from(statement.subquery()), {})
    column = _USAGE[page.order_by]
    rows = tx.sql.execute_long(
        statement.order_by(column.desc() if page.is_descending else column, Media.user_id)
        .limit(page.limit)
        .offset(page.start),
        {},
    )
    return _dicts(rows), int(total)


def _dicts(rows: Iterable[Any]) -> list[Json]:
    """Return rows as dicts; other requests go on meanwhile."""
    found: list[Json] = []
    for some in batches(rows, _AT_ONCE):
        found += [row._asdict() for row in some]
        event_loop.pause()
    return found
