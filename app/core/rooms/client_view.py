"""Events as one user is told of them: with their bundles, and what the user was when they came.

/sync does the same in its own way, as it has all rooms at once.
Spec: client-server-api#room-event-format, client-server-api#aggregations-of-child-events
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from app.caches import ClientEvent, Requester
from app.core.rooms import aggregations, encoding, visibility
from app.db import Reader
from app.spec.events import Json


def encode_all(
    tx: Reader,
    requester: Requester,
    events: Sequence[ClientEvent],
    bundles: Mapping[str, Json] | None = None,
) -> list[orjson.Fragment]:
    """Events as JSON for one device; `bundles` where they are known already."""
    if bundles is None:
        bundles = aggregations.bundles(tx, requester, events)
    by_room: dict[str, list[ClientEvent]] = {}
    for event in events:
        by_room.setdefault(event.room_id, []).append(event)
    memberships: dict[int, str] = {}
    for room_id, some in by_room.items():
        memberships |= visibility.memberships(tx, requester.user_id, room_id, some)
    return encoding.encode_all(tx, requester, events, bundles=bundles, memberships=memberships)


def as_json(tx: Reader, requester: Requester, event: ClientEvent) -> Json:
    """The same for one event, as an object."""
    decoded: Json = orjson.loads(orjson.dumps(encode_all(tx, requester, [event])[0]))
    return decoded
