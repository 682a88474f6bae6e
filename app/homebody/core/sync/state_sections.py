"""The state section of a room: what the client has to know before its timeline, and no more.

For a room that is new to the client, the state at the start of the timeline. After a gap, what
changed in the gap. Else nothing: the timeline itself tells of every change. With `use_state_after`
all is told as of the end of the timeline instead.

Lazy loading leaves out the members who have nothing to do with the timeline. Which members were
sent to a device is remembered by the token they came with. A client that shows an older token has
not got that answer, so the members in it count as not sent.
Spec: client-server-api#syncing, client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import Select, and_, select

from homebody.core.events import client_events, state
from homebody.core.sync.spans import Span
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader
from homebody.storage.expressions import item, listed

_SPANS = listed("spans")
_HELD_AT_BOUNDARY = (
    select(Room.room_id, StateInterval.event_position)
    .select_from(_SPANS)
    .join(Room, Room.room_id == item(_SPANS, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.to_position > item(_SPANS, 2),
            StateInterval.from_position > item(_SPANS, 1),
            StateInterval.from_position <= item(_SPANS, 2),
        ),
    )
)
_HELD_WITHOUT_MEMBERS = _HELD_AT_BOUNDARY.where(StateInterval.membership.is_(None))
_WANTED = listed("wanted")
_MEMBERS_AT_BOUNDARY = (
    select(Room.room_id, StateInterval.event_position)
    .select_from(_WANTED)
    .join(Room, Room.room_id == item(_WANTED, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.type == state.MEMBER,
            StateInterval.state_key == item(_WANTED, 1),
            StateInterval.from_position <= item(_WANTED, 2),
            StateInterval.to_position > item(_WANTED, 2),
        ),
    )
)


class _SentMembers:
    """The members that were sent to a device."""

    __slots__ = ("members", "newest_token")

    def __init__(self) -> None:
        self.members: dict[tuple[str, str], int] = {}
        """{(room_id, member): the token with which it was sent}"""
        self.newest_token = 0


class LazyMembers:
    """Which members were sent to each device, and with which token: the newest devices only."""

    MAX_DEVICES = 500
    MAX_MEMBERS = 5000
    """Of a device; one that knows more starts anew."""
    MAX_IN_ALL = 60_000
    """About 20 MB; beyond it the devices go that were told the longest ago."""

    def __init__(self) -> None:
        self._in_all = 0
        self._sent: OrderedDict[tuple[str, str], _SentMembers] = OrderedDict()
        """By (user_id, device_id)."""

    def forget_after(self, asker: Requester, token: int) -> None:
        """Forget the answers that a device has not got, as it shows the token from before them."""
        sent = self._sent.get((asker.user_id, asker.device_id))
        if sent is not None and sent.newest_token > token:
            self._drop(sent, [key for key, since in sent.members.items() if since > token])
            sent.newest_token = token

    def unknown(self, asker: Requester, room_id: str, user_ids: Iterable[str]) -> list[str]:
        """Return those who were not sent to the device."""
        sent = self._sent.get((asker.user_id, asker.device_id))
        if sent is None:
            return list(user_ids)
        return [user for user in user_ids if (room_id, user) not in sent.members]

    def tell(self, asker: Requester, token: int, room_id: str, user_ids: Iterable[str]) -> None:
        """Remember who is sent with this token."""
        device = (asker.user_id, asker.device_id)
        sent = self._sent.setdefault(device, _SentMembers())
        self._sent.move_to_end(device)
        if len(sent.members) > self.MAX_MEMBERS:
            self._drop(sent, list(sent.members))
        before = len(sent.members)
        for user_id in user_ids:
            sent.members.setdefault((room_id, user_id), token)
        sent.newest_token = max(sent.newest_token, token)
        self._in_all += len(sent.members) - before
        self._keep_small()

    def begin_anew(self, asker: Requester, room_ids: Collection[str]) -> None:
        """Take it that the device knows nobody of these rooms: it may have dropped what it knew.

        So does who starts anew, or comes back into a room; and names have changed meanwhile.
        """
        sent = self._sent.get((asker.user_id, asker.device_id))
        if sent is not None and room_ids:
            self._drop(sent, [key for key in sent.members if key[0] in room_ids])

    def _drop(self, sent: _SentMembers, gone: Collection[tuple[str, str]]) -> None:
        for key in gone:
            del sent.members[key]
        self._in_all -= len(gone)

    def _keep_small(self) -> None:
        while len(self._sent) > self.MAX_DEVICES or (
            self._in_all > self.MAX_IN_ALL and len(self._sent) > 1
        ):
            _, gone = self._sent.popitem(last=False)
            self._in_all -= len(gone.members)


def load(
    tx: Reader,
    asker: Requester,
    spans: Collection[Span],
    event_filter: RoomEventFilter,
    lazy_members: LazyMembers,
    *,
    heroes: Mapping[str, Iterable[str]],
    since: int,
    is_full: bool,
    is_after: bool,
) -> dict[str, list[ClientEvent]]:
    """{room_id: events of its state section, in their order}.

    `heroes`: the members by whom rooms are called. `since`: what the client has seen. `is_full`:
    the client wants all state, whatever it knows. `is_after`: as of the end.
    """
    positions: dict[str, set[int]] = {span.room_id: set() for span in spans}
    is_lazy = event_filter.lazy_load_members
    new = [span for span in spans if span.is_new or is_full]
    if is_lazy:
        lazy_members.forget_after(asker, since)
        lazy_members.begin_anew(asker, {span.room_id for span in spans if span.is_new})
    # lazy loading: who comes back, or asks for all, is told also of members who have changed
    known = [
        span
        for span in spans
        if _may_have_gap(span, is_after=is_after)
        and (not (span.is_new or is_full) or (is_lazy and since > 0))
    ]
    _collect(
        tx,
        _HELD_WITHOUT_MEMBERS if is_lazy else _HELD_AT_BOUNDARY,
        [(span.room_id, -1, _end(span, is_after=is_after)) for span in new],
        positions,
    )
    _collect(
        tx,
        _HELD_AT_BOUNDARY,
        [(span.room_id, span.since or since, _end(span, is_after=is_after)) for span in known],
        positions,
    )
    if is_lazy:
        wanted = _wanted_members(
            tx, asker, spans, event_filter, lazy_members, heroes, is_full=is_full
        )
        at = {span.room_id: _end(span, is_after=is_after) for span in spans}
        asked = [(room, user, at[room]) for room, users in wanted.items() for user in users]
        _collect_members(tx, asked, positions)
    found = client_events.load(tx, sorted(set().union(*positions.values())))
    admitted = [
        event
        for event in found
        if filters.matches(event_filter, event.type, event.sender, event.room_id, event.content)
    ]
    return _by_room(spans, admitted, is_after=is_after)


def _end(span: Span, *, is_after: bool) -> int:
    """As of when state is told: a filtered timeline may hide changes between its events too.

    Who has left is told of nothing that came after.
    """
    end = span.upto if is_after or span.is_filtered else span.boundary
    return end if span.state_upto is None else min(end, span.state_upto)


def _may_have_gap(span: Span, *, is_after: bool) -> bool:
    """Whether anything may have changed that the timeline does not tell."""
    if is_after:
        return (
            span.is_limited
            or span.is_filtered
            or any(event.state_key is not None for event in span.timeline)
        )
    return span.is_limited or span.is_filtered


def _collect(
    tx: Reader,
    query: Select[str, int],
    spans: list[tuple[str, int, int]],
    positions: dict[str, set[int]],
) -> None:
    if not spans:
        return
    result = tx.sql.execute(query, {"spans": spans})
    for room_id, position in result:
        positions[room_id].add(position)


def _collect_members(
    tx: Reader, wanted: list[tuple[str, str, int]], positions: dict[str, set[int]]
) -> None:
    if not wanted:
        return
    result = tx.sql.execute(_MEMBERS_AT_BOUNDARY, {"wanted": wanted})
    for room_id, position in result:
        positions[room_id].add(position)


def _wanted_members(
    tx: Reader,
    asker: Requester,
    spans: Collection[Span],
    event_filter: RoomEventFilter,
    lazy_members: LazyMembers,
    heroes: Mapping[str, Iterable[str]],
    *,
    is_full: bool,
) -> dict[str, list[str]]:
    """{room_id: members whom the client needs for timeline and name, and does not know}."""
    wanted: dict[str, list[str]] = {}
    for span in spans:
        users = {event.sender for event in span.timeline}.union(heroes.get(span.room_id, ()))
        if span.is_new or is_full:
            users.add(asker.user_id)
        if event_filter.include_redundant_members or span.is_new or is_full:
            wanted[span.room_id] = list(users)
        else:
            wanted[span.room_id] = lazy_members.unknown(asker, span.room_id, users)
        if wanted[span.room_id]:
            lazy_members.tell(asker, tx.position, span.room_id, wanted[span.room_id])
    return wanted


def _by_room(
    spans: Collection[Span], events: Iterable[ClientEvent], *, is_after: bool
) -> dict[str, list[ClientEvent]]:
    """The events of each room's section: without those that its timeline has."""
    sections: dict[str, list[ClientEvent]] = {span.room_id: [] for span in spans}
    timelines = [] if is_after else [span.timeline for span in spans]
    told = {event.position for timeline in timelines for event in timeline}
    for event in events:
        if event.position not in told:
            sections[event.room_id].append(event)
    return sections
