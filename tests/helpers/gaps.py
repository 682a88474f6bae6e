"""Rooms of which a server lacks events: making gaps, and looking at what it has."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from sqlalchemy import select

from homebody.core.events import state
from homebody.models.events import StoredEvent
from homebody.models.federation import Gap, InboundPdu
from homebody.spec.events import Event
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.remote import Remote
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
MISSING = "/get_missing_events/"


def wait_until_done(app: Application) -> None:
    """Wait until no PDU waits, or all wait for a later try."""

    def is_done() -> bool:
        with app.homeserver.database.read() as tx:
            times = tx.sql.execute(select(InboundPdu.next_try_ts)).scalars().all()
        return all(it > time.time() * 1000 for it in times)

    wait_for(is_done)


def standing(app: Application, event: Event | str) -> str | None:
    event_id = event if isinstance(event, str) else event.event_id
    with app.homeserver.database.read() as tx:
        known = state.find_any(tx, event_id)
    return None if known is None else known.standing


def timeline(app: Application, room_id: str) -> list[str]:
    """Return the ids of the events in a room, oldest first."""
    events = (
        select(StoredEvent.event_id)
        .where(StoredEvent.room_id == room_id, StoredEvent.position.is_not(None))
        .order_by(StoredEvent.position)
    )
    with app.homeserver.database.read() as tx:
        return list(tx.sql.execute(events).scalars())


def ends(app: Application, room: RemoteRoom) -> set[str]:
    with app.homeserver.database.read() as tx:
        return set(state.head(tx, room.id).forward_extremities)


def gaps(app: Application) -> dict[str, int | None]:
    with app.homeserver.database.read() as tx:
        return {row[0]: row[1] for row in tx.sql.execute(select(Gap.event_id, Gap.position))}


def leave_gap(app: Application, b: Remote, room: RemoteRoom) -> Event:
    """Send the newest event of the room, but none of those before it."""
    b.fail(MISSING, 404)
    last = room.message("after the gap")
    b.send(last)
    wait_until_done(app)
    return last


def page(person: Person, room_id: str, **query: Any) -> Json:
    query = {"dir": "b", "limit": 1000, **query}
    response = person.get(f"rooms/{quote(room_id)}/messages", query_string=query)
    assert response.status_code == 200, response.get_json()
    found: Json = response.get_json()
    return found


def ids(found: Json) -> list[str]:
    """Return the ids of the events of a page, the oldest first."""
    return [it["event_id"] for it in found["chunk"]][::-1]


def pages(person: Person, room_id: str, limit: int) -> list[str]:
    """Return the ids of all events, the oldest first, read page by page."""
    found: list[str] = []
    start = None
    for _ in range(200):
        one = page(person, room_id, limit=limit, **({"from": start} if start else {}))
        found = ids(one) + found
        start = one.get("end")
        if start is None:
            return found
    raise AssertionError("there is no end")
