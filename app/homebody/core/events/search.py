"""Full-text search over what a user may read.

The words are looked up by FTS5 in a thread of the pool, as a common word in a long history takes
time. The statement itself looks only at what the user may see: in rooms that they have been in and
that are not encrypted. Its results then pass the filter and the list of ignored users. A page goes
on from the last result of the one before.

Nothing in a response may depend on messages that the user can't read, or words could be guessed
letter by letter. So `count` is of visible results, and the rank depends on the event alone: FTS5's
own rank weighs each word by how many messages on the whole server have it.
Spec: client-server-api#server-side-search
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import Boolean, Float, Integer, Text, and_, bindparam, cast, func, or_, select

from homebody import errors
from homebody.core.events import (
    client_events,
    members,
    paging,
    search_index,
    state,
    visibility,
)
from homebody.core.events.paging import Page, PageRequest
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import ForgottenRoom, Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec import filters
from homebody.spec.events import Json
from homebody.spec.filters import RoomEventFilter
from homebody.storage import long_reads
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, in_order, item, listed
from homebody.storage.long_reads import Gate

Order = Literal["rank", "recent"]
COLUMNS: Final = {"content.body": "body", "content.name": "name", "content.topic": "topic"}
"""The columns of the index by the keys that clients use."""
MAX_WORDS: Final = 20
AT_ONCE: Final = 1000
"""Matches that are read together; more results are not counted."""
_ROOMS_AT_ONCE: Final = 200
_ROUNDS: Final = 10
"""How many times these are read for one page."""
_MAX_SECONDS: Final = 5.0
"""After which no further matches are read for a page."""
SEARCHES: Final = Gate(at_once=2, waiting=20)
MAX_OF_USER: Final = 4
"""Searches of one user that run or wait: several devices, or one that searches room by room."""

_SPANS = listed("visible")
_VISIBLE = (
    select(
        cast(item(_SPANS, 0), Text).label("room_id"),  # else SQLite makes no index of this
        item(_SPANS, 1).label("first"),
        item(_SPANS, 2).label("last"),
    )
    .cte("visible")
    .prefix_with("MATERIALIZED")
)
_INDEX = search_index.INDEX
_RANK = 1000.0 / (
    1000 + func.length(_INDEX.c.body) + func.length(_INDEX.c.name) + func.length(_INDEX.c.topic)
)
_BELOW_RANK = bindparam("rank", type_=Float)
_BELOW_NUMBER = bindparam("number", type_=Integer)
# In this order: the words, the events, what is visible
_FOUND = in_order(
    in_order(_INDEX, StoredEvent, StoredEvent.number == _INDEX.c.rowid),
    _VISIBLE,
    and_(
        _VISIBLE.c.room_id == StoredEvent.room_id,
        StoredEvent.position.between(_VISIBLE.c.first, _VISIBLE.c.last),
    ),
)
_MATCHES = (
    select(*paging.COLUMNS, _RANK.label("rank"))
    .select_from(_FOUND)
    .where(
        _INDEX.c.search_index.match(bindparam("words")),
        or_(
            bindparam("is_any_sender", type_=Boolean),
            StoredEvent.sender.in_(bindparam("senders", expanding=True)),
        ),
    )
)
_RANKED = _MATCHES.subquery()
_BY_RANK = (
    select(_RANKED)
    .where(
        or_(
            _BELOW_RANK.is_(None),
            _RANKED.c.rank < _BELOW_RANK,
            and_(_RANKED.c.rank == _BELOW_RANK, _RANKED.c.number < _BELOW_NUMBER),
        )
    )
    .order_by(_RANKED.c.rank.desc(), _RANKED.c.number.desc())
    .limit(bindparam("count"))
)
_BY_TIME = (
    _MATCHES.where(or_(_BELOW_NUMBER.is_(None), _INDEX.c.rowid < _BELOW_NUMBER))
    .order_by(_INDEX.c.rowid.desc())
    .limit(bindparam("count"))
)

_EVER_JOINED = (
    select(Room.room_id)
    .distinct()
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(StateInterval.state_key == bindparam("user_id"), StateInterval.membership == "join")
)
_FORGOTTEN = select(ForgottenRoom.room_id).where(ForgottenRoom.user_id == bindparam("user_id"))
_ENCRYPTED = (
    select(Room.room_id)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .where(
        Room.room_id.in_(bindparam("room_ids", expanding=True)),
        StateInterval.type == "m.room.encryption",
        StateInterval.state_key == "",
        StateInterval.to_position == NOW_AND_LATER,
    )
)


class After(NamedTuple):
    """Where a page begins: the last result of the page before, and the group that is shown."""

    rank: float
    number: int
    group: tuple[str, str] | None = None
    """("room_id" or "sender", the room's or user's id)."""
    total: int = 0
    """The `count` of the first page."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What is searched for, where, and in which order."""

    words: Sequence[str]
    columns: Sequence[str]
    order: Order
    limit: int
    wanted: RoomEventFilter = filters.EVERY_ROOM_EVENT
    after: After | None = None


class SearchResult(NamedTuple):
    """An event that has the words."""

    event: ClientEvent
    rank: float
    """Higher for shorter texts."""


class SearchResults(NamedTuple):
    """A page of results."""

    results: list[SearchResult]
    total: int
    """The approximate number of results on all pages."""
    end: After | None
    """Where the next page begins; None: there are no more."""


class ResultContext(NamedTuple):
    """The events around a result."""

    before: Page
    after: Page
    profiles: dict[str, Json]
    """{user_id: {displayname, avatar_url}} of the senders, as they were then."""


@contextmanager
def turn(user_id: str) -> Iterator[None]:
    """Run the block, which searches for a user, when its turn has come.

    Raises M_LIMIT_EXCEEDED when too many searches wait, of all users or of this one.
    """
    if _of_users[user_id] >= MAX_OF_USER:
        raise errors.limit_exceeded(long_reads.RETRY_AFTER_MS)
    _of_users[user_id] += 1
    try:
        with SEARCHES.turn():
            yield
    finally:
        _of_users[user_id] -= 1
        if not _of_users[user_id]:
            del _of_users[user_id]


_of_users: Counter[str] = Counter()
"""How many searches of each user run or wait."""


def find(tx: Reader, user_id: str, request: SearchRequest) -> SearchResults:
    """Return the next results of a search.

    A full page always has an `end`, though there may be nothing after it.
    """
    values = _values(tx, user_id, request)
    group, total = (request.after.group, request.after.total) if request.after else (None, 0)
    if not request.words or not request.columns or not values["visible"]:
        return SearchResults([], total, None)

    def batches() -> Iterator[tuple[Iterator[SearchResult], After | None]]:
        nonlocal total
        query = _BY_TIME if request.order == "recent" else _BY_RANK
        until = time.monotonic() + _MAX_SECONDS
        for number in range(_ROUNDS):
            matches = tx.sql.execute_long(query, values)
            wanted = _wanted(tx, user_id, request, matches)
            if number == 0 and request.after is None:
                total = len(wanted)
            is_last = len(matches) < AT_ONCE
            end = None if is_last else After(matches[-1].rank, matches[-1].number)
            yield _results(tx, request, wanted), end
            if end is None or time.monotonic() > until:
                return
            values.update(rank=end.rank, number=end.number)

    results, end = paging.take(
        batches(),
        request.limit,
        lambda found: After(found[-1].rank, found[-1].event.number),
        looks_ahead=False,
    )
    return SearchResults(results, total, end and end._replace(group=group, total=total))


def context_of(
    tx: Reader, user_id: str, event: ClientEvent, before: int, after: int, *, with_profiles: bool
) -> ResultContext:
    """Return the events before and after a result; other requests run before they are read."""
    event_loop.pause()
    at = event.position
    back = PageRequest(event.room_id, user_id, 0, at - 1, is_backwards=True, limit=before)
    forth = PageRequest(event.room_id, user_id, at, tx.position, is_backwards=False, limit=after)
    older, newer = paging.page(tx, back), paging.page(tx, forth)
    profiles: dict[str, Json] = {}
    if with_profiles:
        senders = {it.sender for it in (*older.events, event, *newer.events)}
        found = members.of_users(tx, event.room_id, senders, at)
        for member in client_events.hide(tx, user_id, found):
            names = ("displayname", "avatar_url")
            profile = {name: member.content.get(name) for name in names}
            profiles[member.state_key or ""] = {
                name: value for name, value in profile.items() if isinstance(value, str)
            }
    return ResultContext(older, newer, profiles)


def _values(tx: Reader, user_id: str, request: SearchRequest) -> dict[str, object]:
    """Return the values of the statements above."""
    wanted, after = request.wanted, request.after
    senders = None if wanted.senders is None else set(map(str, wanted.senders))
    rooms = {it for it in _rooms(tx, user_id) if filters.admits_room(wanted, it)}
    kind, one = (after.group if after else None) or (None, None)
    if kind == "room_id":
        rooms &= {str(one)}
    elif kind == "sender":
        senders = {str(one)} if senders is None else senders & {str(one)}
    known = tx.pausing(visibility.histories(tx, user_id, rooms).items(), _ROOMS_AT_ONCE)
    visible = [(room_id, *span) for room_id, it in known for span in it.spans()]
    words = " ".join(map(search_index.phrase, request.words))
    return {
        "words": f"{{{' '.join(request.columns)}}} : ({words})",
        "visible": visible,
        "count": AT_ONCE,
        "is_any_sender": senders is None,
        "senders": senders or (),
        "rank": after.rank if after else None,
        "number": after.number if after else None,
    }


def _rooms(tx: Reader, user_id: str) -> set[str]:
    """Return the rooms to search: those the user has been in and not forgotten, not encrypted."""
    me = {"user_id": user_id}
    rooms = set(tx.sql.execute(_EVER_JOINED, me).scalars())
    rooms -= set(tx.sql.execute(_FORGOTTEN, me).scalars()) - state.joined_rooms(tx, user_id)
    return rooms - set(tx.sql.execute(_ENCRYPTED, {"room_ids": rooms}).scalars())


def _wanted(tx: Reader, user_id: str, request: SearchRequest, matches: Sequence[Any]) -> list[Any]:
    """Return the matches that the filter admits and that the user may see.

    The words of erased users are not found by those who may not see them any more.
    """
    some = paging.admitted(tx, user_id, request.wanted, matches)
    hidden = visibility.hidden_by_erasure(tx, user_id, some)
    return [match for match in some if match.number not in hidden]


def _results(tx: Reader, request: SearchRequest, matches: Sequence[Any]) -> Iterator[SearchResult]:
    """Yield the matches that the filter admits, with their events."""
    for some in batches(matches, request.limit):
        ranks = {it.number: it.rank for it in some}
        for event in client_events.load(tx, list(ranks)):
            if paging.matches(event, request.wanted):
                yield SearchResult(event, ranks[event.number])
