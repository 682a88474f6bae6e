"""History from before what this server has of a room, fetched when somebody reads that far.

A page of /messages that reaches a gap (timeline/gaps.py) waits while other servers are asked for
the events before it. What comes is checked like every event, except for the room's state at that
time, which this server can't know: the auth events of each decide. If no server has them in time,
the page ends at the gap, and the client may ask again. The next page passes over it, until it is to
be tried again.

Spec: server-server-api#backfilling-and-retrieving-missing-events
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from homebody.core.events import auth_chains, history, paging, state
from homebody.core.events.paging import Page, PageRequest
from homebody.core.federation import outliers, pdus, room_requests
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received, Refused
from homebody.core.federation.room_requests import RoomRequests
from homebody.core.timeline import gaps, older_events
from homebody.core.timeline.gaps import Gap
from homebody.core.timeline.older_events import Encoded
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.runtime.single_flight import Repeats
from homebody.spec import event_order
from homebody.spec.events import Event
from homebody.spec.room_state import domain_of
from homebody.storage.database import Database, Reader

READER_SECONDS: Final = 10.0
"""For a reader who waits."""
EVENTS_AT_ONCE: Final = 100
MAX_SERVERS: Final = 6
MAX_REQUESTS: Final = 20
ENOUGH_SERVERS: Final = 2
"""To ask for events whose signatures can't be verified."""
SECONDS_PER_REQUEST: Final = 4.0
MAX_STARTS: Final = 50
"""Missing events that are named in one request."""
MAX_AUTH_CHAINS: Final = 5
"""That are fetched for events of one response."""
MAX_AUTH_CHAIN: Final = 1000
FIRST_DELAY_MS: Final = 10_000
"""Until the next try, if no server could be reached."""
NOT_THERE_DELAY_MS: Final = 3_600_000
"""The same, if servers have responded but don't have the events."""
MAX_DOUBLINGS: Final = 10

MAX_RESPONSES: Final = 12
"""Of servers, for one page: a filter may admit few of a room's events."""

Checked = Received | Refused
Requested = Callable[[Reader], PageRequest]
Read = Callable[[Reader, PageRequest], Page]


class Backfill:
    """Fills gaps. Its methods wait, so none may run inside a transaction."""

    def __init__(self, db: Database, keys: ServerKeys, client: FederationClient) -> None:
        self._db = db
        self._keys = keys
        self._client = client
        self._under_way = Repeats()

    @contextmanager
    def page(self, requested: Requested, read: Read) -> Iterator[tuple[Reader, Page]]:
        """Yield a page of a room's events, with the snapshot that it is from.

        Gaps that it reaches are filled before. Raises what `requested` and `read` raise.
        """
        until = time.monotonic() + READER_SECONDS
        left, failed = MAX_RESPONSES, 0
        while True:
            with self._db.read() as tx:
                request = requested(tx)
                page, gap = self._read(tx, request, read, failed)
                if gap is None or failed or not left or time.monotonic() > until:
                    yield tx, page
                    return
            left -= 1
            if not self._fill(request.room_id, gap, until):
                failed = gap.position

    def before(self, user_id: str, room_id: str, event_id: str, limit: int) -> None:
        """Fill the gaps that the page of events before an event reaches.

        Raises M_NOT_FOUND for an event that the user may not see.
        """
        if not self._db.server.config.federation:
            return
        with self._db.read() as tx:
            at = history.event(tx, user_id, event_id, room_id).position
            if gaps.newest(tx, room_id, 0, at) is None:
                return
        request = PageRequest(room_id, user_id, 0, at - 1, is_backwards=True, limit=limit)
        with self.page(lambda _: request, paging.page):
            pass

    def reach(self, room_id: str, event_id: str) -> None:
        """Fill the newest gaps until an event is in the timeline, or a reader waits too long."""
        until = time.monotonic() + READER_SECONDS
        for _ in range(MAX_RESPONSES):
            with self._db.read() as tx:
                known = state.find_any(tx, event_id)
                gap = _due(tx, room_id, 0, tx.position, 0)
            is_there = known is not None and known.position is not None
            if is_there or gap is None or time.monotonic() > until:
                return
            if not self._fill(room_id, gap, until):
                return

    def go_on(self, room_id: str, after: int, seconds: float) -> bool:
        """Fill the newest gap after a position by one response; return whether events came."""
        with self._db.read() as tx:
            gap = _due(tx, room_id, after, tx.position, 0)
        return gap is not None and self._fill(room_id, gap, time.monotonic() + seconds)

    def _read(
        self, tx: Reader, request: PageRequest, read: Read, failed: int
    ) -> tuple[Page, Gap | None]:
        """Return a page that ends at the first gap, and the gap if the page needs what is in it.

        `failed`: the position of a gap that could not be filled just now; 0: none.
        """
        if not tx.server.config.federation:
            return read(tx, request), None
        if not request.is_backwards:
            page = read(tx, request)
            last = request.end(page.events)
            return page, _due(tx, request.room_id, request.after, last, failed)
        gap = _due(tx, request.room_id, request.after + 1, request.upto + 1, failed)
        if gap is None:
            return read(tx, request), None
        page = read(tx, replace(request, after=gap.position - 1))
        if page.end is not None:
            return page, None
        page = page._replace(end=gap.position - 1)
        return page, None if len(page.events) >= request.limit else gap

    def _fill(self, room_id: str, gap: Gap, until: float) -> bool:
        """Fill a gap, together with all who wait for the same; return whether there are events."""
        return self._under_way.once(
            (room_id, gap.position, gap.tries), lambda: self.fill(room_id, gap, until)
        )

    def fill(self, room_id: str, gap: Gap, until: float) -> bool:
        """Fetch events into a gap, until a time of the monotonic clock; return whether some came.

        If not, the gap is tried again later.
        """
        with self._db.read() as tx:
            servers = self._servers(tx, room_id, gap)
        requests = RoomRequests(self._client, room_id, servers[:MAX_SERVERS], MAX_REQUESTS, until)
        requests.seconds = SECONDS_PER_REQUEST
        delay_ms = FIRST_DELAY_MS
        found: dict[str, Encoded] = {}
        asked = 0
        for server in list(requests.servers):
            try:
                some = self._ask(requests, server, room_id, gap)
            except RemoteError as problem:
                if problem.status is not None and problem.status < 500:
                    delay_ms = NOT_THERE_DELAY_MS
                continue
            delay_ms = NOT_THERE_DELAY_MS
            found = {**some, **{key: it for key, it in found.items() if it[1] is not None}}
            asked += 1
            if asked < ENOUGH_SERVERS and any(encoded is None for _, encoded in found.values()):
                continue  # another one may have them with their signatures
            if self._store(requests, room_id, gap, found):
                return True
        if found and self._store(requests, room_id, gap, found, is_last=True):
            return True
        delay_ms *= 2 ** min(gap.tries, MAX_DOUBLINGS)
        with self._db.write() as tx:
            gaps.put_off(tx, room_id, gap.position, tx.now_ms + delay_ms)
        return False

    def _servers(self, tx: Reader, room_id: str, gap: Gap) -> list[str]:
        """Return the servers to ask: that of the sender of what follows the gap, then others."""
        sender = older_events.sender_at(tx, room_id, gap.position)
        first = [] if sender is None else [domain_of(sender)]
        found = room_requests.servers_of(tx, room_id, first)
        return sorted(found, key=self._client.is_failing)

    def _ask(
        self, requests: RoomRequests, server: str, room_id: str, gap: Gap
    ) -> dict[str, Encoded]:
        """Return what a server has before the gap, checked, by event ID."""
        query = {"v": gap.event_ids[:MAX_STARTS], "limit": str(EVENTS_AT_ONCE)}
        response = requests.of_server(server, "backfill", room_id, query=query)
        given = room_requests.pdus_of(response, "pdus", EVENTS_AT_ONCE)
        found = self._checked(room_id, given)
        by_id: dict[str, Encoded] = {
            event.event_id: (event, None) for event in _unverified(found, room_id)
        }
        by_id |= {it.event.event_id: (it.event, it.encoded) for it in pdus.of_room(found, room_id)}
        return by_id

    def _checked(self, room_id: str, given: list[Any]) -> list[Checked]:
        with self._db.read() as tx:
            version = state.version(tx, room_id)
        return pdus.receive(self._keys, [(pdu, version) for pdu in given], is_limited=False)

    def _store(
        self,
        requests: RoomRequests,
        room_id: str,
        gap: Gap,
        found: dict[str, Encoded],
        *,
        is_last: bool = False,
    ) -> bool:
        """Put the events into the gap, as far as they are before it; return whether it is another.

        Those that are in the timeline already have others before them. `is_last`: no other server
        will be asked for what is missing among them.
        """
        with self._db.read() as tx:
            new = older_events.without_place(tx, found)
            events = [event for event, _ in found.values() if event.event_id in new]
            ordered = event_order.newest_first(events, gap.event_ids)
            known = {it.event_id for it in ordered}
            cited = {it for event in ordered for it in event.prev_event_ids} - known
            missing = older_events.without_place(tx, cited)
            wanted = older_events.without_place(tx, gap.event_ids[:MAX_STARTS])
        if not is_last and not known >= wanted:
            return False
        received = [found[it.event_id] for it in event_order.certain(ordered, missing)]
        self._fetch_auth_events(requests, room_id, received)
        with self._db.write() as tx:
            now = gaps.at(tx, room_id, gap.position)
            return now is not None and older_events.store(tx, room_id, gap.position, received)

    def _fetch_auth_events(
        self, requests: RoomRequests, room_id: str, received: list[Encoded]
    ) -> None:
        """Fetch the auth chains of events whose auth events are neither stored nor among them."""
        for _ in range(MAX_AUTH_CHAINS):
            event = self._lacking(received)
            if event is None:
                return
            try:
                response = requests.about_room("event_auth", event.event_id)
            except RemoteError:
                return
            chain = room_requests.pdus_of(response, "auth_chain", MAX_AUTH_CHAIN)
            outliers.store(self._db, pdus.of_room(self._checked(room_id, chain), room_id))

    def _lacking(self, received: list[Encoded]) -> Event | None:
        """Return the newest event that lacks auth events, or None."""
        verified = [event for event, encoded in received if encoded is not None]
        cited = {event_id for event in verified for event_id in event.auth_event_ids}
        cited -= {event.event_id for event in verified}
        with self._db.read() as tx:
            missing = cited - auth_chains.numbers_of(tx, cited).keys()
        lacking = (it for it in verified if not missing.isdisjoint(it.auth_event_ids))
        return next(lacking, None)


def _unverified(found: Iterable[Checked], room_id: str) -> Iterator[Event]:
    """Yield events of dead servers whose keys nobody has, to go on to what is before them.

    Their ids are hashes, and others follow them, so what they follow is true.
    """
    for it in found:
        event = it.event if isinstance(it, Refused) else None
        if event is None or event.room_id != room_id:
            continue
        if event.version.event_ids != "given":
            yield event


def _due(tx: Reader, room_id: str, after: int, upto: int, failed: int) -> Gap | None:
    """Return the newest gap in (after, upto] that may be filled now, or could not be just now."""
    while (gap := gaps.newest(tx, room_id, after, upto)) is not None:
        if gap.next_try_ts <= tx.now_ms or gap.position == failed:
            return gap
        upto = gap.position - 1
    return None
