"""Full-text search over what a user may read.

The words are looked up by FTS5 in a thread of the pool, as a common word in a long history takes
its time. What it finds is judged like any other event: only rooms that the user has been in and
that are not encrypted, only what their history shows, nothing of who is ignored. A page goes on
from the last result of the one before.
Spec: client-server-api#server-side-search
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import msgspec
import orjson
from sqlalchemy import bindparam, func, select

from app import hub
from app.caches import ClientEvent
from app.core.people import ignored_users
from app.core.rooms import (
    client_events,
    erasure,
    history,
    members,
    search_index,
    state,
    visibility,
)
from app.core.rooms.history import Page, Walk
from app.db import Reader
from app.models.base import NOW_AND_LATER
from app.models.rooms import ForgottenRoom, Room
from app.models.state import StateInterval
from app.spec import filters
from app.spec.events import Json
from app.spec.filters import RoomEventFilter

Order = Literal["rank", "recent"]
COLUMNS: Final = {"content.body": "body", "content.name": "name", "content.topic": "topic"}
"""What can be searched, by the names that clients use."""
MAX_WORDS: Final = 20
MAX_COUNTED: Final = 10_000
"""Of more results than these only so many are counted."""
_AT_ONCE: Final = 500
_ROUNDS: Final = 10
"""How many times so many are looked at for one page."""

# CROSS JOIN: the words first, then the events, whatever SQLite thinks of it
_FROM = """
    FROM search_index CROSS JOIN events ON events.position = search_index.rowid
    WHERE search_index MATCH :words
    AND events.room_id IN (SELECT value FROM json_each(:rooms))
    AND (:senders IS NULL OR events.sender IN (SELECT value FROM json_each(:senders)))
"""
_COLUMNS = f"""
    SELECT events.position, events.type, events.state_key, events.sender, events.room_id,
    -search_index.rank AS rank {_FROM}
"""
_BY_RANK = f"""
    SELECT * FROM ({_COLUMNS})
    WHERE :rank IS NULL OR rank < :rank OR (rank = :rank AND position < :position)
    ORDER BY rank DESC, position DESC LIMIT {_AT_ONCE}
"""  # noqa: S608 - made of constants
_BY_TIME = f"""
    {_COLUMNS} AND (:position IS NULL OR search_index.rowid < :position)
    ORDER BY search_index.rowid DESC LIMIT {_AT_ONCE}
"""
_COUNT = f"SELECT count(*) FROM (SELECT 1 {_FROM} LIMIT {MAX_COUNTED})"  # noqa: S608 - as above

_EVER_JOINED = (
    select(Room.room_id)
    .distinct()
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(StateInterval.state_key == bindparam("user_id"), StateInterval.membership == "join")
)
_FORGOTTEN = select(ForgottenRoom.room_id).where(ForgottenRoom.user_id == bindparam("user_id"))
_ROOMS = func.json_each(bindparam("room_ids")).table_valued("value")
_ENCRYPTED = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(select(_ROOMS.c.value)),
        StateInterval.type == "m.room.encryption",
        StateInterval.state_key == "",
        StateInterval.to_position == NOW_AND_LATER,
    )
)


class After(NamedTuple):
    """The last result of the page before, and the group to which the page is limited."""

    rank: float
    position: int
    group: tuple[str, str] | None = None
    """("room_id" or "sender", the room's or user's id)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is searched for, where, and in which order."""

    words: Sequence[str]
    columns: Sequence[str]
    order: Order
    limit: int
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT
    after: After | None = None


class Match(NamedTuple):
    """An event in which the words are, as columns tell."""

    position: int
    type: str
    state_key: str | None
    sender: str
    room_id: str
    rank: float


class Hit(NamedTuple):
    """A result."""

    event: ClientEvent
    rank: float
    """The higher, the closer."""


class Found(NamedTuple):
    """A page of results."""

    hits: list[Hit]
    total: int
    """About how many there are in all."""
    end: After | None
    """From where to go on; None: there are no more."""


class Surroundings(NamedTuple):
    """What stands around a result."""

    before: Page
    after: Page
    profiles: dict[str, Json]
    """{user_id: {displayname, avatar_url}} of who speaks in them, as they were then."""


def find(tx: Reader, user_id: str, asked: Asked) -> Found:
    """The next results of a search."""
    asked_of = _values(tx, user_id, asked)
    hits: list[Hit] = []
    if not asked.words or not asked.columns or asked_of["rooms"] == "[]":
        return Found(hits, 0, None)
    ((total,),) = tx.read_long(_COUNT, asked_of)
    group = asked.after.group if asked.after else None
    query = _BY_TIME if asked.order == "recent" else _BY_RANK
    end: After | None = None
    for _ in range(_ROUNDS):
        matches = [Match(*row) for row in tx.read_long(query, asked_of)]
        hits += _seen(tx, user_id, asked, matches, asked.limit + 1 - len(hits))
        if len(hits) > asked.limit:
            last = hits[asked.limit - 1]
            return Found(hits[:-1], total, After(last.rank, last.event.position, group))
        if len(matches) < _AT_ONCE:
            return Found(hits, total, None)
        end = After(matches[-1].rank, matches[-1].position, group)
        asked_of |= {"rank": end.rank, "position": end.position}
    return Found(hits, total, end)


def surroundings(
    tx: Reader, user_id: str, event: ClientEvent, before: int, after: int, *, with_profiles: bool
) -> Surroundings:
    """Up to so many events before and after a result; other requests go on before it is read."""
    hub.breathe()
    at = event.position
    back = Walk(event.room_id, user_id, 0, at - 1, is_backwards=True, limit=before)
    forth = Walk(event.room_id, user_id, at, tx.position, is_backwards=False, limit=after)
    older, newer = history.page(tx, back), history.page(tx, forth)
    profiles: dict[str, Json] = {}
    if with_profiles:
        senders = {it.sender for it in (*older.events, event, *newer.events)}
        found = members.of_users(tx, event.room_id, senders, at)
        for member in erasure.hide(tx, user_id, found):
            names = ("displayname", "avatar_url")
            told = {name: member.content.get(name) for name in names}
            shown = {name: value for name, value in told.items() if isinstance(value, str)}
            profiles[member.state_key or ""] = shown
    return Surroundings(older, newer, profiles)


def state_of(tx: Reader, user_id: str, room_id: str) -> list[ClientEvent]:
    """The state of a room as the user may see it: as it is now, or was when they left."""
    left = visibility.upto(tx, user_id, room_id)
    position = tx.position if left is None else left
    return history.state_at(tx, user_id, room_id, position, filters.EVERY_ROOM_EVENT, ())


def _values(tx: Reader, user_id: str, asked: Asked) -> dict[str, object]:
    """What the statements above have to be given."""
    wanted, after = asked.wanted, asked.after
    senders = None if wanted.senders is None else set(map(str, wanted.senders))
    rooms = {it for it in _rooms(tx, user_id) if filters.admits_room(wanted, it)}
    kind, one = (after.group if after else None) or (None, None)
    if kind == "room_id":
        rooms &= {str(one)}
    elif kind == "sender":
        senders = {str(one)} if senders is None else senders & {str(one)}
    words = " ".join(map(search_index.phrase, asked.words))
    return {
        "words": f"{{{' '.join(asked.columns)}}} : ({words})",
        "rooms": orjson.dumps(sorted(rooms)).decode(),
        "senders": None if senders is None else orjson.dumps(sorted(senders)).decode(),
        "rank": after.rank if after else None,
        "position": after.position if after else None,
    }


def _rooms(tx: Reader, user_id: str) -> set[str]:
    """The rooms that are searched: all that the user has been in and remembers, and can be read."""
    me = {"user_id": user_id}
    rooms = set(tx.sql.execute(_EVER_JOINED, me).scalars())
    rooms -= set(tx.sql.execute(_FORGOTTEN, me).scalars()) - state.joined_rooms(tx, user_id)
    asked = {"room_ids": orjson.dumps(list(rooms)).decode()}
    return rooms - set(tx.sql.execute(_ENCRYPTED, asked).scalars())


def _seen(tx: Reader, user_id: str, asked: Asked, matches: list[Match], limit: int) -> list[Hit]:
    """The first of these that the user may see and wants to."""
    by_columns = msgspec.structs.replace(asked.wanted, contains_url=None)
    by_room: dict[str, list[Match]] = {}
    for match in ignored_users.without(tx, user_id, matches):
        if filters.matches(by_columns, match.type, match.sender, match.room_id):
            by_room.setdefault(match.room_id, []).append(match)
    seen = {
        it.position
        for room_id, some in by_room.items()
        for it in visibility.visible(tx, user_id, room_id, some)
    }
    hits: list[Hit] = []
    left = [it for it in matches if it.position in seen]
    for at in range(0, len(left), limit):
        some = left[at : at + limit]
        ranks = {it.position: it.rank for it in some}
        events = client_events.load(tx, list(ranks))
        hidden = erasure.hidden(tx, user_id, events)  # else the words would tell what was said
        wanted = (
            it for it in events if history.matches(it, asked.wanted) and it.position not in hidden
        )
        hits += [Hit(event, ranks[event.position]) for event in wanted]
        if len(hits) >= limit:
            break
    return hits[:limit]
