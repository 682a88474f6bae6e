"""The one door by which events leave for a reader: what `unsigned` says is decided here.

An event in memory is the same for all readers, but parts of other events stand in its `unsigned`:
the content that a state event replaced, the redaction. A reader may be allowed to see the event and
not those, so each part is decided per reader:

    prev_content, prev_sender   if the reader may see the replaced event, or knew it as state
    redacted_because            the redaction; only what a redaction leaves of it, if the reader
                                may not see it, ignores its sender, or its sender is erased
    transaction_id              for the device that sent the event
    m.relations                 as aggregations.py has decided for this reader
    membership                  of the reader

Most events have none of the first two, and for most of the others the cache of current state says
that the reader was in the room already, so mostly the database is not asked.
Spec: client-server-api#room-event-format
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import orjson

from homebody.core.accounts import accounts
from homebody.core.events import client_events, erasure, state, visibility
from homebody.core.user_data import ignored_users
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader

NO_BUNDLES: Final[Mapping[str, Json]] = MappingProxyType({})
_BETWEEN_BREATHS: Final = 200
"""Events. In a large room the section of state has thousands."""
NO_MEMBERSHIPS: Final[Mapping[int, str]] = MappingProxyType({})

_MEMBERSHIPS: Final = {
    membership: b',"membership":"%b"' % membership.encode()
    for membership in ("invite", "join", "knock", "leave", "ban")
}


class _Replaced(NamedTuple):
    """What erasure.py has to know of the state event that another one replaced."""

    position: int
    room_id: str
    type: str
    state_key: str | None
    sender: str


def encode_all(
    tx: Reader,
    requester: Requester | None,
    events: Collection[ClientEvent],
    *,
    with_room_id: bool = True,
    bundles: Mapping[str, Json] = NO_BUNDLES,
    memberships: Mapping[int, str] | None = None,
) -> list[orjson.Fragment]:
    """Return events as JSON for one device. /sync leaves out the room, as it stands above them.

    `bundles` is what aggregations.bundles found, by event id, `memberships` what
    visibility.memberships found, where an answer has asked for all of its rooms at once. Without a
    requester the reader is an application service, which the administrator has let see all of the
    rooms that concern it.
    """
    if memberships is None:
        memberships = NO_MEMBERSHIPS
        if requester is not None:
            memberships = visibility.memberships(tx, requester.user_id, events)
    hidden = _hidden_previous(tx, requester, events)
    redactions = _redactions(tx, requester, events)
    encoded = []
    for event in tx.breathing(events, _BETWEEN_BREATHS):
        unsigned = b""
        if event.previous is not None and event.position not in hidden:
            unsigned = event.previous.body
        if event.redacted_by in redactions:
            unsigned += redactions[event.redacted_by]
        if requester is not None and _is_own(event, requester):
            unsigned += b',"transaction_id":' + orjson.dumps(event.txn_id)
        if event.event_id in bundles:
            unsigned += b',"m.relations":' + orjson.dumps(bundles[event.event_id])
        if event.position in memberships:
            unsigned += _MEMBERSHIPS[memberships[event.position]]
        rendered = client_events.render(event, tx.now_ms, unsigned, with_room_id=with_room_id)
        encoded.append(rendered)
    return encoded


def encode_state(
    tx: Reader, requester: Requester, events: Collection[ClientEvent], *, with_room_id: bool = True
) -> list[orjson.Fragment]:
    """Return the events of a section of state as JSON, without what the reader was at each.

    "Homeservers … MAY omit it if necessary (for example, if calculating the value is expensive)":
    such a section has what holds now, in a large room thousands of events from all of its history.
    """
    return encode_all(tx, requester, events, with_room_id=with_room_id, memberships=NO_MEMBERSHIPS)


def encode(
    tx: Reader,
    requester: Requester | None,
    event: ClientEvent,
    *,
    bundles: Mapping[str, Json] = NO_BUNDLES,
) -> orjson.Fragment:
    """Return one event as JSON."""
    return encode_all(tx, requester, [event], bundles=bundles)[0]


def as_json(tx: Reader, requester: Requester | None, event: ClientEvent) -> Json:
    """Return the event as an object, for the rare answer that has to take it apart again."""
    decoded: Json = orjson.loads(orjson.dumps(encode(tx, requester, event)))
    return decoded


def _is_own(event: ClientEvent, requester: Requester) -> bool:
    return (
        event.txn_id is not None
        and event.device_id == requester.device_id
        and event.sender == requester.user_id
    )


def _hidden_previous(
    tx: Reader, requester: Requester | None, events: Iterable[ClientEvent]
) -> set[int]:
    """Return the positions of the events whose previous content the reader may not see."""
    by_room: dict[str, list[ClientEvent]] = {}
    for event in events:
        if event.previous is not None:
            by_room.setdefault(event.room_id, []).append(event)
    if not by_room or requester is None:
        return set()
    user_id = requester.user_id
    hidden = {at for some in by_room.values() for at in _unseen(tx, user_id, some)}
    if accounts.erased(tx):
        replaced = {it: at for some in by_room.values() for at, it in _replaced(some)}
        of_erased = erasure.hidden(tx, user_id, replaced)
        hidden |= {at for it, at in replaced.items() if it.position in of_erased}
    return hidden


def _replaced(events: Iterable[ClientEvent]) -> Iterator[tuple[int, _Replaced]]:
    """Yield the position of each event, and what it replaced."""
    for event in events:
        before = event.previous
        if before is not None:
            key = (event.type, event.state_key)
            yield event.position, _Replaced(before.position, event.room_id, *key, before.sender)


def _unseen(tx: Reader, user_id: str, events: list[ClientEvent]) -> Iterator[int]:
    """Yield the positions of those of a room's events whose previous one the user may not see.

    A replaced event was the room's state until the event that replaced it. Whoever could know the
    state at any time between the two has been sent it, though it may be older than their join.
    """
    room_id = events[0].room_id
    if visibility.sees_all_since(tx, user_id, room_id, min(it.position for it in events) - 1):
        return
    known = visibility.history(tx, user_id, room_id)
    for event in events:
        if event.previous is None or (event.type, event.state_key) == (state.MEMBER, user_id):
            continue  # users hear of each change of their own membership, even from outside
        seen = known.first_seen(event.previous.position)
        if seen is None or seen >= event.position:
            yield event.position


def _redactions(
    tx: Reader, requester: Requester | None, events: Iterable[ClientEvent]
) -> dict[int | None, bytes]:
    """Return `redacted_because` as a member of `unsigned`, by the position of the redaction."""
    wanted = {event.redacted_by for event in events if event.redacted_by is not None}
    if not wanted:
        return {}
    redactions = client_events.load(tx, sorted(wanted))
    whole = redactions if requester is None else _whole(tx, requester.user_id, redactions)
    shown = {event.position: event for event in whole}
    found: dict[int | None, bytes] = {}
    for event in redactions:
        seen = shown.get(event.position) or erasure.redacted(tx, event)
        rendered = orjson.dumps(client_events.render(seen, tx.now_ms))
        found[event.position] = b',"redacted_because":' + rendered
    return found


def _whole(tx: Reader, user_id: str, redactions: list[ClientEvent]) -> list[ClientEvent]:
    """Return those redactions of which the user may read what was said with them."""
    by_room: dict[str, list[ClientEvent]] = {}
    for event in redactions:
        by_room.setdefault(event.room_id, []).append(event)
    seen = [
        event
        for room_id, some in by_room.items()
        for event in visibility.visible(tx, user_id, room_id, some)
    ]
    return erasure.hide(tx, user_id, ignored_users.without(tx, user_id, seen))
