"""Events as one user sees them: with their bundles.

/sync does the same in its own way, as it has all rooms at once.
Spec: client-server-api#room-event-format, client-server-api#aggregations-of-child-events
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson

from homebody.core.events import aggregations, encoding
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader


def encode_all(
    tx: Reader,
    requester: Requester,
    events: Sequence[ClientEvent],
    bundles: Mapping[str, Json] | None = None,
) -> list[orjson.Fragment]:
    """Events as JSON for one device; `bundles` where they are known already."""
    if bundles is None:
        bundles = aggregations.bundles(tx, requester, events)
    return encoding.encode_all(tx, requester, events, bundles=bundles)


def as_json(tx: Reader, requester: Requester, event: ClientEvent) -> Json:
    """The same for one event, as an object."""
    decoded: Json = orjson.loads(orjson.dumps(encode_all(tx, requester, [event])[0]))
    return decoded
