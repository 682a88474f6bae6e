"""Searching for users of other servers: those who are in a room with the searcher.

Their names are those of their member events, which have no index of words. The database looks for
the longest word of the search in the events, and what it finds is compared as names of accounts
are. Rooms without other servers are left out, so most searches need no look at any event.

Spec: client-server-api#user-directory
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import orjson
from sqlalchemy import LargeBinary, bindparam, cast, func, or_, select

from homebody.core.accounts import user_directory_index
from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import listed

MAX_COMPARED: Final = 5_000
"""Member events that are compared with the search."""
_BETWEEN_PAUSES: Final = 100

_rooms = listed("room_ids")
_pdu = StoredEvent.pdu
_MEMBERS = (
    select(StateInterval.state_key, _pdu)
    .join_from(_rooms, Room, Room.room_id == _rooms.c.value)
    .join(StateInterval, StateInterval.room_number == Room.number)
    .join(StoredEvent, StoredEvent.number == StateInterval.event_number)
    .where(
        StateInterval.membership == "join",
        StateInterval.to_position == NOW_AND_LATER,
        func.substr(StateInterval.state_key, bindparam("offset")) != bindparam("ending"),
        # names with letters beyond ASCII are compared without accents, which the database can't
        or_(
            _pdu.icontains(bindparam("word")),
            func.length(_pdu) != func.length(cast(_pdu, LargeBinary)),
        ),
    )
    .limit(MAX_COMPARED)
)


def search(
    tx: Reader, searcher: str, searched: Sequence[str], limit: int, user_id: str | None = None
) -> tuple[list[Json], bool]:
    """Return (users as the response lists them, best match first; whether there may be others).

    Each of the words `searched`, longest first, has to be a part of a word of the user's names. If
    the search is for a user ID, or the beginning of one, that is what has to match.
    """
    rooms = [
        room_id
        for room_id in state.joined_rooms(tx, searcher)
        if len(state.joined(tx, room_id).servers) > 1
    ]
    if not rooms or not searched:
        return [], False
    ending = f":{tx.server.name}"
    values = {
        "room_ids": rooms,
        "word": searched[0],
        "offset": -len(ending),
        "ending": ending,
    }
    rows = tx.sql.execute_long(_MEMBERS, values)
    ranked: dict[str, tuple[int, Json]] = {}
    for row in tx.pausing(rows, _BETWEEN_PAUSES):
        if row.state_key not in ranked and identifiers.is_user_id(row.state_key):
            shown = _described(row.state_key, row.pdu)
            rank = _rank(shown, searched, user_id)
            if rank is not None:
                ranked[row.state_key] = rank, shown
    best = sorted(ranked, key=lambda it: (ranked[it][0], it))
    is_limited = len(best) > limit or len(rows) == MAX_COMPARED
    return [ranked[it][1] for it in best[:limit]], is_limited


def _described(user_id: str, pdu: str) -> Json:
    content = orjson.loads(pdu)["content"]
    names = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    return {"user_id": user_id, **{key: it for key, it in names.items() if isinstance(it, str)}}


def _rank(shown: Json, searched: Sequence[str], user_id: str | None) -> int | None:
    """Return 0 for whole words, 1 for beginnings of words, 2 for other parts; None for no match."""
    if user_id is not None:
        return 0 if shown["user_id"].casefold().startswith(user_id.casefold()) else None
    text = f"{identifiers.localpart(shown['user_id'])} {shown.get('display_name', '')}"
    theirs = user_directory_index.words(text)
    ranks = [_rank_of(word, theirs) for word in searched]
    return max((it for it in ranks if it is not None), default=None) if None not in ranks else None


def _rank_of(word: str, theirs: Sequence[str]) -> int | None:
    if word in theirs:
        return 0
    if any(it.startswith(word) for it in theirs):
        return 1
    # nearly every name contains a given letter
    return 2 if len(word) > 1 and any(word in it for it in theirs) else None
