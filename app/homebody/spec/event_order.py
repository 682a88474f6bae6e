"""The order of events that another server sends: by what they cite, whatever it says.

Depths, times and the order of a response are chosen by others. Only that an event comes after those
that it cites can't be false: event IDs are hashes (of newer room versions).
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping

from homebody.spec.events import Event


def oldest_first(events: Iterable[Event]) -> list[Event]:
    """Return events, each after those that it cites.

    Events that cite each other in a circle are left out, and so are those that cite them.
    """
    by_id = {event.event_id: event for event in events}
    waits = {event_id: len(_cited(event, by_id)) for event_id, event in by_id.items()}
    citing: dict[str, list[str]] = {event_id: [] for event_id in by_id}
    for event_id, event in by_id.items():
        for cited in _cited(event, by_id):
            citing[cited].append(event_id)
    order = {event_id: place for place, event_id in enumerate(by_id)}
    return [by_id[it] for it in _sorted(waits, citing, order)]


def newest_first(events: Iterable[Event], starts: Collection[str]) -> list[Event]:
    """Return the events that are reached from `starts` by prev_events, each before those it cites.

    Where that leaves a choice, the order of `events` decides. Circles are left out.
    """
    by_id = {event.event_id: event for event in events}
    order = {event_id: place for place, event_id in enumerate(by_id)}
    reached: dict[str, Event] = {}
    waiting = [it for it in starts if it in by_id]
    while waiting:
        event_id = waiting.pop()
        if event_id not in reached:
            reached[event_id] = by_id[event_id]
            waiting += [it for it in by_id[event_id].prev_event_ids if it in by_id]
    cited_by = dict.fromkeys(reached, 0)
    cites = {event_id: _cited(event, reached) for event_id, event in reached.items()}
    for cited in cites.values():
        for event_id in cited:
            cited_by[event_id] += 1
    return [reached[it] for it in _sorted(cited_by, cites, order)]


def certain(ordered: Iterable[Event], missing: Collection[str]) -> list[Event]:
    """Return the events of `newest_first` that no missing event follows, as depths tell.

    An event is deeper than what it follows; so a missing one is less deep than those that follow
    it, and follows only what is still less deep.
    """
    events = list(ordered)
    lacking = [it for it in events if any(prev in missing for prev in it.prev_event_ids)]
    bound = max((it.depth - 1 for it in lacking), default=-1)
    uncertain: set[str] = set()
    found = []
    for event in events:
        if event.depth < bound or event.event_id in uncertain:
            uncertain.update(event.prev_event_ids)
        else:
            found.append(event)
    return found


def _cited(event: Event, among: Mapping[str, Event]) -> set[str]:
    return {it for it in (*event.prev_event_ids, *event.auth_event_ids) if it in among}


def _sorted(
    waits: dict[str, int], then: Mapping[str, Collection[str]], order: Mapping[str, int]
) -> Iterable[str]:
    """Yield what waits for nothing, and then what `then` names when all that it waits for came."""
    ready = [(order[event_id], event_id) for event_id, count in waits.items() if not count]
    heapq.heapify(ready)
    while ready:
        _, event_id = heapq.heappop(ready)
        yield event_id
        for other in then[event_id]:
            waits[other] -= 1
            if not waits[other]:
                heapq.heappush(ready, (order[other], other))
