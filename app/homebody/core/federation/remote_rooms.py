"""Rooms that this server is not in, as other servers describe them: in spaces, and by themselves.

A space may have rooms of many servers. Each page of its tree is read with what is known, those
servers are asked, several at once, about what is missing in it, and it is read again. What they say
is kept for some minutes, so that the next page, and the next user, get it at once.

Spec: server-server-api#get_matrixfederationv1hierarchyroomid
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from homebody.core.federation import asking, remote_summaries
from homebody.core.rooms import spaces, summary
from homebody.core.rooms.spaces import OtherRoom, OtherRooms
from homebody.errors import MatrixError
from homebody.outside.expiring import Expiring
from homebody.outside.federation import FederationClient, path_of
from homebody.runtime import event_loop
from homebody.runtime.single_flight import Repeats
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database

KEPT_SECONDS: Final = 300.0
FAILURE_SECONDS: Final = 60.0
MAX_KEPT: Final = 500
MAX_KEPT_BYTES: Final = 128 * 1024
"""Larger responses are asked for each time."""
MAX_BYTES: Final = 2 * 2**20
PAGE_SECONDS: Final = 15.0
"""For all servers that are asked for one page; what has not come by then is left out."""
SERVER_SECONDS: Final = 8.0
AT_ONCE: Final = 10
MAX_ASKED: Final = 100
"""Rooms that others are asked about for one page."""
MAX_SERVERS: Final = 3
"""Asked about one room, one after the other."""


class _Request(NamedTuple):
    """What is kept belongs to the server that said it: users choose the servers to ask."""

    server: str
    room_id: str
    is_suggested_only: bool


class RemoteRooms:
    """Asks other servers. Its methods wait, so none may be called inside a transaction."""

    def __init__(self, db: Database, client: FederationClient) -> None:
        self._db = db
        self._client = client
        self._kept: Expiring[_Request, bytes] = Expiring(MAX_KEPT)
        self._under_way = Repeats()

    def hierarchy(self, user_id: str, room_id: str, query: spaces.Query) -> Json:
        """Return a page of the tree of a space, as `spaces.page` does, with rooms elsewhere."""
        others, asked = OtherRooms(), 0
        until = time.monotonic() + PAGE_SECONDS
        while True:
            with self._db.read() as tx:
                page = spaces.page(tx, user_id, room_id, query, others)
            if not page.missing:
                return page.response
            if asked >= MAX_ASKED or time.monotonic() >= until:
                others.settled.update(page.missing)
                continue
            some = dict(islice(page.missing.items(), AT_ONCE))
            asked += len(some)
            self._learn(others, some, until, is_suggested_only=query.is_suggested_only)

    def summary(self, user_id: str | None, room_id: str, servers: Iterable[str]) -> Json:
        """Return the summary of a room with the user's membership, if any. user_id None: nobody.

        Raises M_NOT_FOUND where no server tells, or the user may not see the room.
        """
        wanted = [*servers, room_id.partition(":")[2]]
        found = self._ask(room_id, wanted, is_suggested_only=False)
        with self._db.read() as tx:
            if found is None:  # an invited user may know some of its state
                return summary.preview(tx, room_id, user_id)
            return summary.shown_to(tx, found["room"], user_id)

    def _learn(
        self,
        others: OtherRooms,
        wanted: Mapping[str, Sequence[str]],
        until: float,
        *,
        is_suggested_only: bool,
    ) -> None:
        """Ask about rooms, and add what comes in time."""
        asking_for = {
            room_id: event_loop.spawn(
                self._ask, room_id, servers, is_suggested_only=is_suggested_only
            )
            for room_id, servers in wanted.items()
        }
        for room_id, answer in asking_for.items():
            others.settled.add(room_id)
            try:
                found = answer.result(max(until - time.monotonic(), 0.0))
            except TimeoutError:
                continue
            if found is None:
                continue
            others.rooms[room_id] = OtherRoom(found["room"], found["children_state"])
            for child in found["children"]:
                is_space = child.get("room_type") == spaces.SPACE
                described = OtherRoom(child, None if is_space else [])
                others.rooms.setdefault(child["room_id"], described)
            others.settled.update(found["inaccessible_children"])

    def _ask(self, room_id: str, servers: Iterable[str], *, is_suggested_only: bool) -> Json | None:
        """Return what the first of some servers says that knows a room, None if none does."""
        own = self._db.server.name
        valid = (it for it in dict.fromkeys(servers) if identifiers.is_server_name(it))
        for server in islice((it for it in valid if it != own), MAX_SERVERS):
            key = _Request(server, room_id, is_suggested_only)
            kept = self._kept.get(key)
            if kept is None:
                kept = self._under_way.once(key, functools.partial(self._ask_one, key))
            found: Json | None = orjson.loads(kept)
            if found is not None:
                return found
        return None

    def _ask_one(self, key: _Request) -> bytes:
        """Return what a server says about a room as JSON, `null` if nothing; keep it."""
        found: Json | None = None
        is_absent = False
        try:
            answer = asking.ask(
                self._client,
                key.server,
                "GET",
                path_of("hierarchy", key.room_id),
                query={"suggested_only": str(key.is_suggested_only).lower()},
                max_bytes=MAX_BYTES,
                seconds=SERVER_SECONDS,
            )
            found = _checked(key.room_id, answer)
        except MatrixError as error:
            # it may be shown soon: to a server with a user who has just joined a space
            is_absent = error.errcode == "M_NOT_FOUND"
        encoded = orjson.dumps(found)
        if len(encoded) <= MAX_KEPT_BYTES and not is_absent:
            self._kept.put(key, encoded, FAILURE_SECONDS if found is None else KEPT_SECONDS)
        return encoded


def _checked(room_id: str, answer: Json) -> Json | None:
    """Return a response without what is not valid, None if it does not describe the room."""
    room = answer.get("room")
    described = remote_summaries.checked(room)
    if described is None or described["room_id"] != room_id or not isinstance(room, dict):
        return None
    children_state = remote_summaries.checked_children(room.get("children_state"))
    named = {it["state_key"] for it in children_state}
    children = map(remote_summaries.checked, _list(answer.get("children")))
    return {
        "room": described,
        "children_state": children_state,
        "children": [it for it in children if it is not None and it["room_id"] in named],
        "inaccessible_children": [
            it
            for it in _list(answer.get("inaccessible_children"))
            if isinstance(it, str) and it in named
        ],
    }


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
