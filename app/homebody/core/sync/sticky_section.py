"""The section of sticky events (MSC4354): those that no timeline of a response has."""

from __future__ import annotations

from collections.abc import Iterable

from homebody.core.events import client_events
from homebody.core.sync.memberships import Memberships
from homebody.core.sync.spans import Span
from homebody.core.timeline import sticky_events
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader


def load(
    tx: Reader, user_id: str, mine: Memberships, joined: Iterable[Span], since: int
) -> dict[str, list[ClientEvent]]:
    """Return {room ID: its sticky events since a position}, of rooms new to the client all.

    Rules of history visibility do not apply: "any joined user is authorised to see sticky events".
    """
    shown = {event.number for span in joined for event in span.timeline}
    places = sticky_events.since(tx, user_id, mine.joined, mine.newly_joined, since)
    missing = [it.number for it in places if it.number not in shown]
    found: dict[str, list[ClientEvent]] = {}
    # Deviates: further ones should come with the next request, but a token is one position for
    # all, so the oldest are left out
    events = client_events.load(tx, missing[-sticky_events.MAX_AT_ONCE :])
    for event in client_events.hide(tx, user_id, events):
        found.setdefault(event.room_id, []).append(event)
    return found
