"""The extension for sticky events (MSC4354): those that no timeline of the response has."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import orjson

from homebody.core.events import client_events
from homebody.core.sync.spans import SyncToken
from homebody.core.timeline import sticky_events
from homebody.spec.events import Json
from homebody.storage.caches import Requester
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
    request, by `next_batch`. Raises M_INVALID_PARAM for a token that is not of this server.
    """
    after = SyncToken.parse(since, tx.position).position if since else 0
    places = sticky_events.since(tx, requester.user_id, rooms, new_rooms, after)
    if not places:
        return {}
    limit = min(limit, sticky_events.MAX_AT_ONCE)
    in_timeline = _ids(shown, {it.room_id for it in places})
    some = [it.number for it in places[: limit + len(in_timeline) + 1]]
    events = client_events.hide(tx, requester.user_id, client_events.load(tx, some))
    events = [it for it in events if it.event_id not in in_timeline]
    upto = events[limit - 1].position if len(events) > limit else tx.position
    found: dict[str, Any] = {}
    events = events[:limit]
    encoded = client_events.encode_all(tx, requester, events, with_room_id=False)
    for event, one in zip(events, encoded, strict=True):
        found.setdefault(event.room_id, {"events": []})["events"].append(one)
    return {"rooms": found, "next_batch": str(SyncToken(upto))}


def _ids(shown: Mapping[str, Json], rooms: Set[str]) -> set[str]:
    timelines = [shown.get(room_id, {}).get("timeline", ()) for room_id in rooms]
    return {orjson.loads(orjson.dumps(event))["event_id"] for some in timelines for event in some}
