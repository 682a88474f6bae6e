"""The state section of a room: what the client has to know before its timeline, and no more.

For a room that is new to the client, that is the state at the start of the timeline; after a gap,
what changed in the gap; else nothing, as the timeline itself contains every change. With
`use_state_after` it is the state at the end of the timeline instead.

Lazy loading leaves out members who do not occur in the timeline. The members sent to a device are
kept with the token of their response. A client that sends an older token has not received that
response, so its members count as not sent.
Spec: client-server-api#syncing, client-server-api#lazy-loading-room-members
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence

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

_WANTED = listed("wanted")
"""(room_id, after position, upto position) or (room_id, user_id, position)."""
_HELD = (
    select(Room.room_id, StateInterval.event_position)
    .select_from(_WANTED)
    .join(Room, Room.room_id == item(_WANTED, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.to_position > item(_WANTED, 2),
            StateInterval.from_position > item(_WANTED, 1),
            StateInterval.from_position <= item(_WANTED, 2),
        ),
    )
)
_HELD_WITHOUT_MEMBERS = _HELD.where(StateInterval.membership.is_(None))
_MEMBERS_HELD = (
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
        """{(room_id, member): position of the token of the response}"""
        self.newest_token = 0


class LazyMembers:
    """The members sent to each device, of a bounded number of devices."""

    MAX_DEVICES = 500
    MAX_MEMBERS = 5000
    """Of a device; beyond it, those of the device are forgotten."""
    MAX_IN_ALL = 60_000
    """About 20 MB; beyond it, the least recently used devices are forgotten."""

    def __init__(self) -> None:
        self._in_all = 0
        self._sent: OrderedDict[tuple[str, str], _SentMembers] = OrderedDict()
        """By (user_id, device_id)."""

    def forget_after(self, requester: Requester, token: int) -> None:
        """Forget responses that the device has not received, as it sends an older token."""
        sent = self._sent.get((requester.user_id, requester.device_id))
        if sent is not None and sent.newest_token > token:
            self._drop(sent, [key for key, since in sent.members.items() if since > token])
            sent.newest_token = token

    def unsent(self, requester: Requester, room_id: str, user_ids: Iterable[str]) -> list[str]:
        """Return those members that were not sent to the device."""
        sent = self._sent.get((requester.user_id, requester.device_id))
        if sent is None:
            return list(user_ids)
        return [user for user in user_ids if (room_id, user) not in sent.members]

    def add(self, requester: Requester, token: int, room_id: str, user_ids: Iterable[str]) -> None:
        """Note the members that are sent in the response with this token."""
        device = (requester.user_id, requester.device_id)
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

    def forget_rooms(self, requester: Requester, room_ids: Collection[str]) -> None:
        """Forget the members of rooms that are new to the client, which may have dropped them.

        Clients drop them on a restart or after a leave; and names have changed meanwhile.
        """
        sent = self._sent.get((requester.user_id, requester.device_id))
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
    requester: Requester,
    spans: Collection[Span],
    event_filter: RoomEventFilter,
    lazy_members: LazyMembers,
    *,
    heroes: Mapping[str, Iterable[str]],
    since: int,
    is_full: bool,
    is_after: bool,
) -> dict[str, list[ClientEvent]]:
    """Return {room_id: events of its state section, in their order}.

    `heroes` are the members by whom rooms are called, `since` what the client has seen. `is_full`:
    it wants all state, whatever it knows; `is_after`: as of the end of the timeline.
    """
    is_lazy = event_filter.lazy_load_members
    # with lazy loading, members who have changed are sent too after a rejoin, or with all state
    known = [
        (span.room_id, span.since or since, _end(span, is_after=is_after))
        for span in spans
        if _may_have_gap(span, is_after=is_after)
        and (not (span.is_new or is_full) or (is_lazy and since > 0))
    ]
    new = [
        (span.room_id, -1, _end(span, is_after=is_after))
        for span in spans
        if span.is_new or is_full
    ]
    positions = _positions(tx, _HELD, known) if known else set()
    if new:
        positions |= _positions(tx, _HELD_WITHOUT_MEMBERS if is_lazy else _HELD, new)
    if is_lazy:
        lazy_members.forget_after(requester, since)
        lazy_members.forget_rooms(requester, {span.room_id for span in spans if span.is_new})
        asked = [
            (span.room_id, user_id, _end(span, is_after=is_after))
            for span in spans
            for user_id in _wanted_members(
                tx, requester, span, event_filter, lazy_members, heroes, is_full=is_full
            )
        ]
        positions |= _positions(tx, _MEMBERS_HELD, asked) if asked else set()
    sections: dict[str, list[ClientEvent]] = {span.room_id: [] for span in spans}
    if positions:
        _fill(tx, sections, spans, positions, event_filter, is_after=is_after)
    return sections


def _end(span: Span, *, is_after: bool) -> int:
    """Return the position of the state to send. A filtered timeline may hide changes in between.

    Users who have left are sent nothing that came after.
    """
    end = span.upto if is_after or span.is_filtered else span.boundary
    return end if span.state_upto is None else min(end, span.state_upto)


def _may_have_gap(span: Span, *, is_after: bool) -> bool:
    """Return whether there may be changes that the timeline does not contain."""
    if is_after:
        return (
            span.is_limited
            or span.is_filtered
            or any(event.state_key is not None for event in span.timeline)
        )
    return span.is_limited or span.is_filtered


def _positions(
    tx: Reader, query: Select[str, int], wanted: Sequence[tuple[str, str | int, int]]
) -> set[int]:
    """Return the positions of the events of a section, which `query` selects."""
    return {row.event_position for row in tx.sql.execute(query, {"wanted": wanted})}


def _wanted_members(
    tx: Reader,
    requester: Requester,
    span: Span,
    event_filter: RoomEventFilter,
    lazy_members: LazyMembers,
    heroes: Mapping[str, Iterable[str]],
    *,
    is_full: bool,
) -> list[str]:
    """Return the members whom the client needs for timeline and name, and has not been sent."""
    users = {event.sender for event in span.timeline}.union(heroes.get(span.room_id, ()))
    if span.is_new or is_full:
        users.add(requester.user_id)
    wanted = list(users)
    if not (event_filter.include_redundant_members or span.is_new or is_full):
        wanted = lazy_members.unsent(requester, span.room_id, users)
    if wanted:
        lazy_members.add(requester, tx.position, span.room_id, wanted)
    return wanted


def _fill(
    tx: Reader,
    sections: dict[str, list[ClientEvent]],
    spans: Collection[Span],
    positions: Collection[int],
    event_filter: RoomEventFilter,
    *,
    is_after: bool,
) -> None:
    """Add the events that the filter admits to the sections, without those of the timelines."""
    timelines = [] if is_after else [span.timeline for span in spans]
    shown = {event.position for timeline in timelines for event in timeline}
    for event in client_events.load(tx, sorted(positions)):
        is_admitted = filters.matches(
            event_filter, event.type, event.sender, event.room_id, event.content
        )
        if is_admitted and event.position not in shown:
            sections[event.room_id].append(event)
