"""Rooms with thousands of members, put into the tables of state without a request for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from sqlalchemy import insert, select

from homebody.core.events import state
from homebody.core.timeline import store
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import ACCEPTED, StoredEvent
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec import canonical_json
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from homebody.storage.database import Tx
from homebody.web import Application


def remote_users(count: int, servers: int = 400) -> list[str]:
    """Return the ids of users of other servers."""
    return [f"@user{number}:server{number % servers}.test" for number in range(count)]


def add_members(app: Application, room_id: str, user_ids: Sequence[str]) -> None:
    """Let users join a room, as events of the time before this server was in it."""
    database = app.homeserver.database
    with database.write() as tx:
        room_number = tx.sql.execute(select(Room.number).where(Room.room_id == room_id)).scalar()
        rows = [_rows(tx, room_id, user_id) for user_id in user_ids]
        intervals = [{**interval, "room_number": room_number} for _, interval in rows]
        tx.sql.execute(insert(StoredEvent), [event for event, _ in rows])
        tx.sql.execute(insert(StateInterval), intervals)
    database.caches.clear(database.writer.last_position)


def member_pdu(room_id: str, user_id: str, membership: str) -> dict[str, object]:
    """Return a PDU as far as the server reads one that it has stored."""
    return {
        "type": "m.room.member",
        "state_key": user_id,
        "sender": user_id,
        "room_id": room_id,
        "origin_server_ts": 1,
        "depth": 1,
        "auth_events": [],
        "prev_events": [],
        "hashes": {"sha256": "x"},
        "signatures": {},
        "content": {"membership": membership, "displayname": user_id[1:8].title()},
    }


def store_event(
    tx: Tx,
    room_id: str,
    sender: str,
    event_type: str,
    content: Mapping[str, object],
    state_key: str | None = None,
    prev_events: Sequence[str] = (),
) -> Event:
    """Store an event of another server as if it had been received, and return it.

    It follows all events of the room, or those given.
    """
    head = state.head(tx, room_id)
    pdu = {
        **member_pdu(room_id, sender, "join"),
        "type": event_type,
        "state_key": state_key,
        "content": content,
        "depth": head.depth + 1,
        "prev_events": [*prev_events] or head.forward_extremities,
    }
    if state_key is None:
        del pdu["state_key"]
    event = Event(f"$received{tx.position}", pdu, VERSIONS[head.version])
    store.store(tx, event, canonical_json.encode(pdu), (None, None))
    return event


def store_member(tx: Tx, room_id: str, user_id: str, membership: str) -> Event:
    """Store a change of membership as if it had been received."""
    content: dict[str, object] = {"membership": membership}
    return store_event(tx, room_id, user_id, state.MEMBER, content, user_id)


def _rows(tx: Tx, room_id: str, user_id: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return the rows of the event and of the interval, without the number of the room."""
    number, position = tx.next_event()
    event: dict[str, object] = dict.fromkeys(StoredEvent.__table__.columns.keys())
    event |= {
        "number": number,
        "position": position,
        "standing": ACCEPTED,
        "event_id": f"$member{position}",
        "room_id": room_id,
        "type": "m.room.member",
        "state_key": user_id,
        "sender": user_id,
        "origin_server_ts": 1,
        "pdu": orjson.dumps(member_pdu(room_id, user_id, "join")).decode(),
    }
    interval: dict[str, object] = {
        "type": "m.room.member",
        "state_key": user_id,
        "from_position": position,
        "to_position": NOW_AND_LATER,
        "event_number": number,
        "membership": "join",
    }
    return event, interval
