"""The user directory: searching for users by parts of their user name or display name.

The index (accounts/user_directory_index.py) yields the matching accounts. Which of them the
requester may see is read in batches, best match first, until there are enough: users who share a
room with the requester, and members of rooms that anybody may join or read. After them come users
of other servers (remote_members.py).

Spec: client-server-api#user-directory
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import Select, and_, bindparam, case, func, select
from sqlalchemy.orm import aliased

from homebody.core.accounts import user_directory_index
from homebody.core.events import state
from homebody.core.events.history_visibility import VISIBILITY
from homebody.core.profiles import remote_members
from homebody.models.accounts import Account, DirectoryWord, ProfileField
from homebody.models.base import NOW_AND_LATER
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.spec import room_state
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import batches

MAX_LIMIT: Final = 50
MAX_FOUND: Final = 20_000
"""Best matches whose visibility is checked. With more, `limited` says that there may be others."""
MAX_WORDS: Final = 16
"""Words of a search that are used, the longest ones. The others would only narrow the result."""
_BATCH: Final = 200

_LAST: Final = "\U0010ffff"
"""Not part of any word, so `word < prefix + _LAST` ends the range of the prefix."""

_ROOMS = (
    select(StateInterval.state_key, Room.room_id)
    .join(Room, Room.number == StateInterval.room_number)
    .where(
        StateInterval.state_key.in_(bindparam("user_ids", expanding=True)),
        StateInterval.to_position == NOW_AND_LATER,
        StateInterval.membership == "join",
    )
)
_PROFILES = select(ProfileField.user_id, ProfileField.name, ProfileField.value).where(
    ProfileField.user_id.in_(bindparam("user_ids", expanding=True)),
    ProfileField.name.in_(("displayname", "avatar_url")),
)


def search(tx: Reader, searcher: str, term: str, limit: int) -> Json:
    """Return the response to a search: `results`, best match first, and `limited`.

    Every word of the term must be a part of a word of the user's names. The requester is left out.
    """
    results: list[Json] = []
    is_limited = False
    searched = _words(_without_server(tx, term))
    if searched:
        matching = _matching(tx, searcher, searched)
        visible = list(itertools.islice(_visible(tx, searcher, matching), limit + 1))
        is_limited = len(visible) > limit or len(matching) == MAX_FOUND
        results = _described(tx, visible[:limit])
    if tx.server.config.federation and not is_limited:
        user_id = term.strip() if not searched and term.strip().startswith("@") else None
        searched = searched or _words(term.partition(":")[0])
        others, is_limited = remote_members.search(
            tx, searcher, searched, limit - len(results), user_id
        )
        results += others
    return {"results": results, "limited": is_limited}


def _words(text: str) -> list[str]:
    """Return the words of a search that are used, longest first."""
    found = user_directory_index.words(text)[:MAX_WORDS]
    return [word[: user_directory_index.MAX_LETTERS] for word in found]


def _without_server(tx: Reader, term: str) -> str:
    """Reduce a term that is a user ID, or the beginning of one, to its localpart.

    Clients omit the `@`, phones capitalize the first letter, and the server may be incomplete. ""
    for a user of another server, who has no account; without the `@` such a term may still be a
    part of a name.
    """
    stripped = term.strip()
    localpart, colon, server = stripped.removeprefix("@").partition(":")
    is_user_id = stripped.startswith("@")
    if not is_user_id and (not colon or len(stripped.split()) > 1):
        return term
    if tx.server.name.casefold().startswith(server.casefold()):
        return localpart
    return "" if is_user_id else term


def _matching(tx: Reader, searcher: str, searched: Sequence[str]) -> list[str]:
    """Return users who match every word: whole words first, then prefixes, then other parts."""
    values: dict[str, Any] = {"searcher": searcher}
    rank = case(
        (and_(DirectoryWord.is_whole, DirectoryWord.word == bindparam("from_0")), 0),
        (DirectoryWord.is_whole, 1),
        else_=2,
    )
    named = (ProfileField.user_id == Account.user_id) & (ProfileField.name == "displayname")
    query: Select[Any] = (
        select(DirectoryWord.user_id)
        .join(Account, Account.user_id == DirectoryWord.user_id)
        .outerjoin(ProfileField, named)
        .where(
            DirectoryWord.user_id != bindparam("searcher"),
            Account.deactivated_ts.is_(None),
            Account.is_guest.is_(False),
        )
        .group_by(DirectoryWord.user_id)
        # "Ordered by rank and then whether or not profile info is available"
        .order_by(func.min(rank), func.max(ProfileField.value).is_(None), DirectoryWord.user_id)
        .limit(MAX_FOUND)
    )
    for number, word in enumerate(searched):
        one = DirectoryWord if number == 0 else aliased(DirectoryWord)
        fits = [one.word >= bindparam(f"from_{number}"), one.word < bindparam(f"to_{number}")]
        if len(word) == 1:  # nearly every name contains a given letter
            fits.append(one.is_whole.is_(True))
        if number == 0:
            query = query.where(*fits)
        else:
            query = query.where(
                select(one.word).where(one.user_id == DirectoryWord.user_id, *fits).exists()
            )
        values |= {f"from_{number}": word, f"to_{number}": word + _LAST}
    return list(tx.sql.execute(query, values).scalars())


def _visible(tx: Reader, searcher: str, user_ids: Sequence[str]) -> Iterator[str]:
    """Yield the users whom the requester may see, in the given order."""
    mine = state.joined_rooms(tx, searcher)
    is_open: dict[str, bool] = {}
    for some in batches(user_ids, _BATCH):
        event_loop.pause()
        rooms: dict[str, list[str]] = {}
        for user_id, room_id in tx.sql.execute(_ROOMS, {"user_ids": some}):
            rooms.setdefault(user_id, []).append(room_id)
        for user_id in some:
            theirs = rooms.get(user_id, [])
            if not mine.isdisjoint(theirs) or _any_open(tx, theirs, is_open):
                yield user_id


def _any_open(tx: Reader, room_ids: Collection[str], known: dict[str, bool]) -> bool:
    """Return whether anybody may join or read one of the rooms; `known` caches the results."""
    for room_id in room_ids:
        if room_id not in known:
            known[room_id] = _is_open(tx, room_id)
        if known[room_id]:
            return True
    return False


def _is_open(tx: Reader, room_id: str) -> bool:
    keys = [room_state.JOIN_RULES, VISIBILITY]
    contents = {key[0]: it.content for key, it in state.current_many(tx, room_id, keys).items()}
    return (
        contents.get(room_state.JOIN_RULES[0], {}).get("join_rule") == "public"
        or contents.get(VISIBILITY[0], {}).get("history_visibility") == "world_readable"
    )


def _described(tx: Reader, user_ids: Sequence[str]) -> list[Json]:
    """Return the users as the response lists them."""
    found: dict[str, Json] = {user_id: {"user_id": user_id} for user_id in user_ids}
    for user_id, name, value in tx.sql.execute(_PROFILES, {"user_ids": user_ids}):
        found[user_id]["display_name" if name == "displayname" else name] = orjson.loads(value)
    return list(found.values())
