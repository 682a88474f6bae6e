"""What is sent to which application service, and in which form.

Each event is a row of the outbox for every service that is interested in it, written with the
event. So is ephemeral data (typing, presence), which is left out where it would be sent too late.
`background/appservices.py` makes transactions of the rows.

Spec: application-service-api#pushing-events, application-service-api#pushing-ephemeral-data,
application-service-api#pinging
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core import audit, outbox
from homebody.core.events import client_events, state
from homebody.core.outbox import Row
from homebody.errors import MatrixError
from homebody.models.base import EventNumber
from homebody.models.rooms import RoomAlias
from homebody.outside import RemoteError, appservice
from homebody.spec.appservices import Service
from homebody.spec.events import Event, Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Database, Reader, Server, Tx

LOG = logging.getLogger(__name__)

KIND: Final = "appservice"
MAX_ROWS: Final = 50
"""Per transaction."""
EPHEMERAL_MS: Final = 60_000
"""Age at which typing and presence are no longer sent."""

_ALIASES = select(RoomAlias.alias).where(RoomAlias.room_id == bindparam("room_id"))


def note(tx: Tx, event: Event, number: EventNumber) -> None:
    """Queue an event that has just been stored for the services that are interested in it."""
    target = (event.state_key or "",) if event.type == state.MEMBER else ()
    payload: Json = {"number": number}
    interested = _interested(tx, list(tx.server.appservices.all), event.room_id, target)
    outbox.add_all(tx, KIND, [(service.id, payload) for service in interested])


def note_receipt(tx: Tx, room_id: str, user_id: str, content: Json, *, is_private: bool) -> None:
    """Queue a receipt; private ones only for the service that the reader belongs to."""
    services = _with_ephemeral(tx)
    if not services:
        return
    interested: Iterable[Service] = _interested(tx, services, room_id)
    if is_private:
        every = tx.server.appservices
        interested = [it for it in interested if every.has_user(it, user_id)]
    _add(tx, interested, {"type": "m.receipt", "room_id": room_id, "content": content})


def note_typing(db: Database, room_id: str, user_ids: Sequence[str]) -> None:
    """Queue who is typing in a room."""
    _note_ephemeral(
        db,
        lambda tx, services: _interested(tx, services, room_id),
        {"type": "m.typing", "room_id": room_id, "content": {"user_ids": list(user_ids)}},
    )


def note_presence(db: Database, user_id: str, content: Json) -> None:
    """Queue a user's presence for the services of whose users one shares a room with them."""
    _note_ephemeral(
        db,
        lambda tx, services: sharing_rooms(tx, services, user_id),
        {"type": "m.presence", "sender": user_id, "content": content},
    )


def sharing_rooms(tx: Reader, services: list[Service], user_id: str) -> Iterator[Service]:
    """Yield the services of which the user, or a user in a room with them, is one."""
    its_own = tx.server.appservices.of_user(user_id)
    yield from (it for it in services if it in its_own and it.url is not None)
    others = [it for it in services if it not in its_own]
    for room_id in state.joined_rooms(tx, user_id):
        if not others:  # a user may be in hundreds of rooms with thousands of members
            return
        found = list(_interested(tx, others, room_id))
        yield from found
        others = [it for it in others if it not in found]


def events_of(tx: Reader, rows: Sequence[Row]) -> list[ClientEvent]:
    """Return the events among the rows of a transaction."""
    numbers = [row.payload["number"] for row in rows if "number" in row.payload]
    return client_events.load(tx, numbers)


def body(tx: Reader, rows: Sequence[Row], events: list[ClientEvent], further: Json) -> Json | None:
    """Return the transaction that these rows make; None when nothing is left to send.

    `further` are sections that other modules make of the rows.
    """
    ephemeral = [
        row.payload["ephemeral"]
        for row in rows
        if "ephemeral" in row.payload
        and (not row.payload["is_moment"] or row.created_ts + EPHEMERAL_MS > tx.now_ms)
    ]
    if not events and not ephemeral and not further:
        return None
    sent: Json = {"events": client_events.encode_all(tx, None, events), **further}
    if ephemeral:  # bridges from before version 1.13 look under the older name
        sent |= {"ephemeral": ephemeral, "de.sorunome.msc2409.ephemeral": ephemeral}
    return sent


def first_of(rows: Sequence[Row]) -> list[Row]:
    """Return the oldest rows that make a transaction: those that have been tried together."""
    first = rows[0].tries, rows[0].next_try_ts
    return list(takewhile(lambda row: (row.tries, row.next_try_ts) == first, rows))


def skip(tx: Tx, actor: str, service_id: str) -> list[Row]:
    """Give up the transaction that a service refuses, on an administrator's order; return its rows.

    Raises M_NOT_FOUND when nothing has been refused: what is being sent must not be lost.
    """
    rows = outbox.first(tx, KIND, service_id, MAX_ROWS)
    if not rows or not rows[0].tries:
        raise errors.not_found(f"{service_id} has not refused a transaction")
    skipped = first_of(rows)
    outbox.remove(tx, [row.id for row in skipped])
    audit.note(tx, actor, "appservice.skip", service_id, rows=len(skipped))
    return skipped


def hurry(db: Database, service_id: str) -> bool:
    """Retry at once what a service has refused, as it is back; return whether there is anything."""
    with db.read() as tx:
        rows = outbox.first(tx, KIND, service_id, 1)
    if not rows or not rows[0].tries:
        return False
    with db.write() as writing:
        outbox.make_due(writing, KIND, service_id)
    return True


def event_ids(tx: Reader, rows: Sequence[Row]) -> list[str]:
    """Return the ids of the events among the rows of a transaction."""
    return [event.event_id for event in events_of(tx, rows)]


def ping(server: Server, service: Service, body: Json) -> int:
    """Ping a service; return how long it takes to respond (ms).

    Raises M_URL_NOT_SET, M_BAD_STATUS, M_CONNECTION_FAILED, M_CONNECTION_TIMEOUT.
    """
    if service.url is None:
        raise errors.url_not_set()
    began = time.monotonic()
    try:
        status, text = appservice.ping(server.config, service, body)
    except RemoteError as error:
        if error.kind == "timeout":
            raise errors.connection_timeout() from error
        raise errors.connection_failed(str(error)) from error
    if status != 200:
        raise errors.bad_status(status, text)
    return round((time.monotonic() - began) * 1000)


def _note_ephemeral(
    db: Database, interested: Callable[[Reader, list[Service]], Iterable[Service]], event: Json
) -> None:
    """Write rows for ephemeral data, which is not in the database otherwise."""
    if not db.server.appservices.wants_ephemeral:
        return
    with db.read() as tx:
        services = list(interested(tx, _with_ephemeral(tx)))
    if not services:
        return
    try:
        with db.write() as writing:
            _add(writing, services, event, is_moment=True)
    except MatrixError as error:  # a full disk: no request should fail for this
        LOG.warning("cannot queue %s for application services: %s", event["type"], error)


def _add(tx: Tx, services: Iterable[Service], event: Json, *, is_moment: bool = False) -> None:
    payload: Json = {"ephemeral": event, "is_moment": is_moment}
    outbox.add_all(tx, KIND, [(service.id, payload) for service in services])


def _with_ephemeral(tx: Reader) -> list[Service]:
    """Return the services that want ephemeral data."""
    services = tx.server.appservices
    return [it for it in services.all if it.wants_ephemeral] if services.wants_ephemeral else []


def _interested(
    tx: Reader, services: list[Service], room_id: str, also: Sequence[str] = ()
) -> Iterator[Service]:
    """Yield services with a user in the room or among `also`, or with the room or its alias."""
    members: set[Service] = set()
    for user_id in (*state.joined(tx, room_id).local, *also):
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
