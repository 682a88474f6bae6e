"""What application services get to know of: which of them, and in which form.

Each event is a row of the outbox for every service whom it concerns, written with the event; what
is true for moments only (typing, presence) is one too, and left out where it comes too late.
`background/appservices.py` makes transactions of the rows.

Spec: application-service-api#pushing-events, application-service-api#pushing-ephemeral-data
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core import outbox
from homebody.core.events import client_events, state
from homebody.core.outbox import Row
from homebody.errors import MatrixError
from homebody.models.rooms import RoomAlias
from homebody.spec.appservices import Service
from homebody.spec.events import Event, Json
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

KIND: Final = "appservice"
MAX_ROWS: Final = 50
"""Of a transaction."""
MOMENTS_MS: Final = 60_000
"""After that, nobody wants to know who was typing or came online."""

_ALIASES = select(RoomAlias.alias).where(RoomAlias.room_id == bindparam("room_id"))


def note(tx: Tx, event: Event, position: int) -> None:
    """Queue an event that has just been stored for the services that it concerns."""
    target = (event.state_key or "",) if event.type == state.MEMBER else ()
    payload: Json = {"position": position}
    concerned = _concerned(tx, list(tx.server.appservices.all), event.room_id, target)
    outbox.add_all(tx, KIND, [(service.id, payload) for service in concerned])


def note_receipt(tx: Tx, room_id: str, user_id: str, content: Json, *, is_private: bool) -> None:
    """Tell them of a receipt; of private ones only the service that the reader belongs to."""
    wanting = _wanting(tx)
    if not wanting:
        return
    concerned: Iterable[Service] = _concerned(tx, wanting, room_id)
    if is_private:
        services = tx.server.appservices
        concerned = [it for it in concerned if services.has_user(it, user_id)]
    _add(tx, concerned, {"type": "m.receipt", "room_id": room_id, "content": content})


def note_typing(db: Database, room_id: str, user_ids: Sequence[str]) -> None:
    """Tell them who is typing in a room now."""
    _note_moment(
        db,
        lambda tx, wanting: _concerned(tx, wanting, room_id),
        {"type": "m.typing", "room_id": room_id, "content": {"user_ids": list(user_ids)}},
    )


def note_presence(db: Database, user_id: str, content: Json) -> None:
    """Tell them how a user is: those of whose users one shares a room with them."""
    _note_moment(
        db,
        lambda tx, wanting: _acquainted(tx, wanting, user_id),
        {"type": "m.presence", "sender": user_id, "content": content},
    )


def body(tx: Reader, rows: Sequence[Row]) -> Json | None:
    """The transaction that these rows make; None when there is nothing left to tell."""
    payloads = [row.payload for row in rows]
    positions = [it["position"] for it in payloads if "position" in it]
    events = client_events.load(tx, positions)
    ephemeral = [
        row.payload["ephemeral"]
        for row in rows
        if "ephemeral" in row.payload
        and (not row.payload["is_moment"] or row.created_ts + MOMENTS_MS > tx.now_ms)
    ]
    if not events and not ephemeral:
        return None
    told: Json = {"events": client_events.encode_all(tx, None, events)}
    if ephemeral:  # bridges from before version 1.13 look under the older name
        told |= {"ephemeral": ephemeral, "de.sorunome.msc2409.ephemeral": ephemeral}
    return told


def first_of(rows: Sequence[Row]) -> list[Row]:
    """Those of a service's oldest rows that make a transaction: they have been tried together."""
    first = rows[0].tries, rows[0].next_try_ts
    return list(takewhile(lambda row: (row.tries, row.next_try_ts) == first, rows))


def skip(tx: Tx, service_id: str) -> list[Row]:
    """Give up the transaction that a service refuses; its rows.

    Raises M_NOT_FOUND when nothing has been refused: what is under way shall not be lost.
    """
    rows = outbox.first(tx, KIND, service_id, MAX_ROWS)
    if not rows or not rows[0].tries:
        raise errors.not_found(f"{service_id} has refused nothing")
    skipped = first_of(rows)
    outbox.done(tx, [row.id for row in skipped])
    return skipped


def hurry(db: Database, service_id: str) -> bool:
    """A service is there again: try at once what it has refused; whether there is anything."""
    with db.read() as tx:
        rows = outbox.first(tx, KIND, service_id, 1)
    if not rows or not rows[0].tries:
        return False
    with db.write() as writing:
        outbox.hurry(writing, KIND, service_id)
    return True


def event_ids(tx: Reader, rows: Sequence[Row]) -> list[str]:
    """The events among the rows of a transaction."""
    positions = [row.payload["position"] for row in rows if "position" in row.payload]
    return [event.event_id for event in client_events.load(tx, positions)]


def _note_moment(
    db: Database, concerned: Callable[[Reader, list[Service]], Iterable[Service]], event: Json
) -> None:
    """Write rows for what is not in the database otherwise."""
    if not db.server.appservices.wants_ephemeral:
        return
    with db.read() as tx:
        services = list(concerned(tx, _wanting(tx)))
    if not services:
        return
    try:
        with db.write() as writing:
            _add(writing, services, event, is_moment=True)
    except MatrixError as error:  # a full disk: nobody's request should fail for this
        LOG.warning("application services do not hear of %s: %s", event["type"], error)


def _add(tx: Tx, services: Iterable[Service], event: Json, *, is_moment: bool = False) -> None:
    payload: Json = {"ephemeral": event, "is_moment": is_moment}
    outbox.add_all(tx, KIND, [(service.id, payload) for service in services])


def _wanting(tx: Reader) -> list[Service]:
    """The services that want to know what is no event."""
    services = tx.server.appservices
    return [it for it in services.all if it.wants_ephemeral] if services.wants_ephemeral else []


def _concerned(
    tx: Reader, services: list[Service], room_id: str, also: Sequence[str] = ()
) -> Iterator[Service]:
    """Those with a user in the room, or among `also`, and those with the room or an alias of it."""
    members: set[Service] = set()
    for user_id in (*state.joined_users(tx, room_id), *also):
        members.update(tx.server.appservices.of_user(user_id))
    names: list[str] | None = None
    for service in services:
        if service.url is None:
            continue
        if service in members or any(it.has(room_id) for it in service.rooms):
            yield service
        elif service.aliases:
            if names is None:
                names = list(tx.sql.execute(_ALIASES, {"room_id": room_id}).scalars())
            if any(it.has(name) for it in service.aliases for name in names):
                yield service


def _acquainted(tx: Reader, services: list[Service], user_id: str) -> Iterator[Service]:
    """Those of which the user, or somebody in a room with them, is a user."""
    found = set(tx.server.appservices.of_user(user_id))
    for room_id in state.joined_rooms(tx, user_id):
        found.update(_concerned(tx, services, room_id))
    return (it for it in services if it in found and it.url is not None)
