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
from dataclasses import dataclass

from sqlalchemy import Select, and_, select

from homebody.core.events import client_events, state
from homebody.core.sync.spans import Span
from homebody.models.base import EventNumber
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import filters
from homebody.spec.filters import RoomEventFilter
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader
from homebody.storage.expressions import in_effect, item, listed

_WANTED = listed("wanted")
"""(room_id, after position, upto position) or (room_id, user_id, position)."""
_HELD = (
    select(Room.room_id, StateInterval.event_number)
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
    select(Room.room_id, StateInterval.event_number)
    .select_from(_WANTED)
    .join(Room, Room.room_id == item(_WANTED, 0))
    .join(
        StateInterval,
        and_(
            StateInterval.room_number == Room.number,
            StateInterval.type == state.MEMBER,
            StateInterval.state_key == item(_WANTED, 1),
            in_effect(StateInterval, item(_WANTED, 2)),
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
    """Per device; beyond it, those of the device are forgotten."""
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


@dataclass(frozen=True, slots=True)
class StateRequest:
    """The state that a client needs of the rooms of a response."""

    requester: Requester
    event_filter: RoomEventFilter
    lazy_members: LazyMembers
    heroes: Mapping[str, Iterable[str]]
    """{room_id: members by whom the room is called}"""
    since: int
    """The last position that the client has seen; 0: none."""
    is_full: bool
    """The client wants all state, whatever it knows."""
    is_after: bool
    """The client wants the state at the end of the timeline."""


def load(tx: Reader, wanted: StateRequest, spans: Collection[Span]) -> dict[str, list[ClientEvent]]:
    """Return {room_id: events of its state section, in their order}."""
    is_lazy, is_full = wanted.event_filter.lazy_load_members, wanted.is_full
    # with lazy loading, members who have changed are sent too after a rejoin, or with all state
    known = [
        (span.room_id, span.since or wanted.since, _end(span, is_after=wanted.is_after))
        for span in spans
        if _may_have_gap(span, is_after=wanted.is_after)
        and (not (span.is_new or is_full) or (is_lazy and wanted.since > 0))
    ]
    new = [
        (span.room_id, -1, _end(span, is_after=wanted.is_after))
        for span in spans
        if span.is_new or is_full
    ]
    numbers = _numbers(tx, _HELD, known) if known else set()
    if new:
        numbers |= _numbers(tx, _HELD_WITHOUT_MEMBERS if is_lazy else _HELD, new)
    if is_lazy:
        new_rooms = {span.room_id for span in spans if span.is_new}
        wanted.lazy_members.forget_after(wanted.requester, wanted.since)
        wanted.lazy_members.forget_rooms(wanted.requester, new_rooms)
        members = [
            (span.room_id, user_id, _end(span, is_after=wanted.is_after))
            for span in spans
            for user_id in _wanted_members(tx, wanted, span)
        ]
        numbers |= _numbers(tx, _MEMBERS_HELD, members) if members else set()
    return _sections(tx, wanted, spans, numbers)


def at(
    tx: Reader, room_id: str, position: int, members: Collection[str] | None
) -> list[ClientEvent]:
    """Return the state of a room at a position, of its members only these; None: of all."""
    query = _HELD if members is None else _HELD_WITHOUT_MEMBERS
    numbers = _numbers(tx, query, [(room_id, -1, position)])
    if members:
        numbers |= _numbers(tx, _MEMBERS_HELD, [(room_id, it, position) for it in members])
    return client_events.load(tx, sorted(numbers))


def _end(span: Span, *, is_after: bool) -> int:
    """Return the position of the state to send: the beginning of a timeline with all changes.

    Users who have left are sent nothing that came after.
    """
    end = span.upto if is_after or span.has_hidden_changes else span.boundary
    return end if span.state_upto is None else min(end, span.state_upto)


def _may_have_gap(span: Span, *, is_after: bool) -> bool:
    """Return whether there may be changes that the timeline does not contain."""
    if is_after:
        return (
            span.is_limited
            or span.is_filtered
            or span.reset_at > 0
            or any(event.state_key is not None for event in span.timeline)
        )
    return span.is_limited or span.is_filtered or span.reset_at > 0


def _numbers(
    tx: Reader, query: Select[str, EventNumber], wanted: Sequence[tuple[str, str | int, int]]
) -> set[EventNumber]:
    """Return the numbers of the events of a section, which `query` selects."""
    return {row.event_number for row in tx.sql.execute(query, {"wanted": wanted})}


def _wanted_members(tx: Reader, wanted: StateRequest, span: Span) -> list[str]:
    """Return the members whom the client needs for timeline and name, and has not been sent."""
    users = {event.sender for event in span.timeline}.union(wanted.heroes.get(span.room_id, ()))
    is_whole = span.is_new or wanted.is_full
    if is_whole:
        users.add(wanted.requester.user_id)
    members = list(users)
    if not (is_whole or wanted.event_filter.include_redundant_members):
        members = wanted.lazy_members.unsent(wanted.requester, span.room_id, users)
    if members:
        wanted.lazy_members.add(wanted.requester, tx.position, span.room_id, members)
    return members


def _sections(
    tx: Reader, wanted: StateRequest, spans: Collection[Span], numbers: Collection[EventNumber]
) -> dict[str, list[ClientEvent]]:
    """Return the events that the filter admits by room, without those of the timelines."""
    sections: dict[str, list[ClientEvent]] = {span.room_id: [] for span in spans}
    timelines = [] if wanted.is_after else [span.timeline for span in spans]
    shown = {event.number for timeline in timelines for event in timeline}
    for event in client_events.load(tx, sorted(numbers)):
        is_admitted = filters.matches(
            wanted.event_filter, event.type, event.sender, event.room_id, event.content
        )
        if is_admitted and event.number not in shown:
            sections[event.room_id].append(event)
    return sections
