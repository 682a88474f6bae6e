"""The extension for sticky events (MSC4354): those that no timeline of the response has."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import orjson

from homebody.core.events import client_events
from homebody.core.sync.spans import SyncToken
from homebody.core.timeline import sticky_events
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader


def load(
    tx: Reader,
    requester: Requester,
    rooms: Set[str],
    new_rooms: Set[str],
    shown: Mapping[str, Json],
    since: str | None,
    limit: int,
) -> Json:
    """Return the section, {} if there was nothing new; of new rooms, and without `since`, all.

    `shown` are the rooms of the response. If there are more than `limit`, the rest is for the next
    request, by `next_batch`. Raises M_UNKNOWN_POS for a token that is not of this server.
    """
    after = SyncToken.parse(since, tx.position).position if since else 0
    by_room = sticky_events.since(tx, requester.user_id, rooms, new_rooms, after)
    events: list[ClientEvent] = []
    for room_id, numbers in by_room.items():
        in_timeline = _ids(shown.get(room_id, {}).get("timeline", ()))
        loaded = client_events.hide(tx, requester.user_id, client_events.load(tx, numbers))
        events += [it for it in loaded if it.event_id not in in_timeline]
    events.sort(key=lambda it: it.position)
    if not by_room:
        return {}
    upto = events[limit - 1].position if len(events) > limit else tx.position
    found: dict[str, Any] = {}
    some = events[:limit]
    encoded = client_events.encode_all(tx, requester, some, with_room_id=False)
    for event, one in zip(some, encoded, strict=True):
        found.setdefault(event.room_id, {"events": []})["events"].append(one)
    return {"rooms": found, "next_batch": str(SyncToken(upto))}


def _ids(timeline: Any) -> set[str]:
    return {orjson.loads(orjson.dumps(event))["event_id"] for event in timeline}
