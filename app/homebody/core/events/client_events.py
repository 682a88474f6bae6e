"""The form in which clients see events, built once and embedded into all answers.

What is the same for everybody is encoded once and cached. What differs between readers is put
around it as bytes, by encoding.py.
Spec: client-server-api#room-event-format
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from sqlalchemy import bindparam, select
from sqlalchemy.orm import aliased

from homebody.core.events import state
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, ClientEvent, PreviousState, declare
from homebody.storage.database import Reader

CLIENT_EVENTS: CacheKind[int, ClientEvent] = declare(
    "client_events", 21, lambda event: event.size_bytes
)
"""Events in the form for clients, by position; written by timeline.py."""

_Replaced = aliased(StoredEvent)
_COLUMNS = (
    StoredEvent.position,
    StoredEvent.event_id,
    StoredEvent.room_id,
    StoredEvent.pdu,
    StoredEvent.relates_to,
    StoredEvent.rel_type,
    StoredEvent.thread_id,
    StoredEvent.device_id,
    StoredEvent.txn_id,
    StoredEvent.replaces,
    StoredEvent.redacted_by,
    _Replaced.event_id.label("replaces_state"),
    _Replaced.pdu.label("replaced_pdu"),
)
_LOAD = (
    select(*_COLUMNS)
    .outerjoin(_Replaced, _Replaced.position == StoredEvent.replaces)
    .where(StoredEvent.position.in_(bindparam("positions", expanding=True)))
)
_POSITION = select(StoredEvent.position, StoredEvent.room_id).where(
    StoredEvent.event_id == bindparam("event_id")
)
_LOADED_AT_ONCE = 100
"""Each may have 64 KiB; other requests go on between two parts."""


def load(tx: Reader, positions: Sequence[int]) -> list[ClientEvent]:
    """The events at these positions, in this order; positions without an event are left out."""
    if not positions:
        return []
    found, missing = tx.cached_many(CLIENT_EVENTS, positions)
    for at in tx.breathing(range(0, len(missing), _LOADED_AT_ONCE), every=1):
        some = missing[at : at + _LOADED_AT_ONCE]
        for row in tx.sql.execute(_LOAD, {"positions": some}):
            event = _from_row(row)
            found[event.position] = event
            tx.fill(CLIENT_EVENTS, event.position, event)
    return [found[position] for position in positions if position in found]


def find(tx: Reader, event_id: str) -> ClientEvent | None:
    """The event of this id, or None."""
    row = tx.sql.execute(_POSITION, {"event_id": event_id}).first()
    if row is None:
        return None
    events = load(tx, [row.position])
    return events[0] if events else None


def render(
    event: ClientEvent, now_ms: int, unsigned: bytes = b"", *, with_room_id: bool = True
) -> orjson.Fragment:
    """Return the event as JSON, with these members of `unsigned` beside those that all may see.

    Only encoding.py calls this: it decides for each reader what else belongs into `unsigned`.
    """
    room = b',"room_id":' + orjson.dumps(event.room_id) if with_room_id else b""
    age = max(0, now_ms - event.origin_server_ts)
    return orjson.Fragment(
        b'%b%b,"unsigned":{"age":%d%b%b}}' % (event.body, room, age, event.unsigned, unsigned)
    )


def is_redacted(event: ClientEvent) -> bool:
    """Whether the event has been redacted."""
    return event.redacted_by is not None


def stripped(pdu: Json) -> Json:
    """The parts of a state event that are shown to who is not in the room yet.

    Spec: client-server-api#stripped-state
    """
    return {key: pdu[key] for key in ("content", "sender", "state_key", "type")}


def build(
    position: int,
    event_id: str,
    room_id: str,
    pdu: Json,
    *,
    replaces_state: str | None = None,
    previous: PreviousState | None = None,
    redacted_by: int | None = None,
    relation: tuple[str | None, str | None, str | None] = (None, None, None),
    transaction: tuple[str | None, str | None] = (None, None),
) -> ClientEvent:
    """Return the cached form of an event.

    `replaces_state` is the id of the state event that it replaced, `redacted_by` the position of
    its redaction; `relation` is (relates_to, rel_type, thread_id), `transaction` (device_id,
    txn_id).
    """
    shown = {
        "content": pdu["content"],
        "event_id": event_id,
        "origin_server_ts": pdu["origin_server_ts"],
        "sender": pdu["sender"],
        "type": pdu["type"],
    }
    if "state_key" in pdu:
        shown["state_key"] = pdu["state_key"]
    if pdu["type"] == "m.room.member":  # also where the r0 tutorial, and clients of its time, look
        shown["membership"] = pdu["content"]["membership"]
    redacts = pdu.get("redacts") or (
        pdu["content"].get("redacts") if pdu["type"] == "m.room.redaction" else None
    )
    if redacts is not None:  # both places, whatever the room version, as clients look for either
        shown["redacts"] = redacts
        shown["content"] = {**pdu["content"], "redacts": redacts}
    unsigned = b""
    if replaces_state is not None:  # "included regardless of history visibility"
        unsigned = b',"replaces_state":' + orjson.dumps(replaces_state)
    return ClientEvent(
        position=position,
        event_id=event_id,
        room_id=room_id,
        type=pdu["type"],
        state_key=pdu.get("state_key"),
        sender=pdu["sender"],
        origin_server_ts=pdu["origin_server_ts"],
        content=pdu["content"],
        body=orjson.dumps(shown)[:-1],
        unsigned=unsigned,
        relation=relation,
        transaction=transaction,
        previous=previous,
        redacted_by=redacted_by,
    )


def _previous(row: state.AnyRow) -> PreviousState | None:
    if row.replaces is None or row.replaced_pdu is None:
        return None
    pdu = orjson.loads(row.replaced_pdu)
    told = orjson.dumps({"prev_content": pdu["content"], "prev_sender": pdu["sender"]})
    return PreviousState(row.replaces, pdu["sender"], b"," + told[1:-1])


def _from_row(row: state.AnyRow) -> ClientEvent:
    return build(
        row.position,
        row.event_id,
        row.room_id,
        orjson.loads(row.pdu),
        replaces_state=row.replaces_state,
        previous=_previous(row),
        redacted_by=row.redacted_by,
        relation=(row.relates_to, row.rel_type, row.thread_id),
        transaction=(row.device_id, row.txn_id),
    )
