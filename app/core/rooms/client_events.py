"""The form in which clients see events, built once and embedded into all answers.

What is the same for everybody is encoded once and cached; what differs (`age`, the transaction id
for the device that sent the event, whether the room is named) is put around it as bytes.
Spec: client-server-api#room-event-format
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import orjson
from sqlalchemy import bindparam, select
from sqlalchemy.orm import aliased

from app.caches import ClientEvent, Requester
from app.core.rooms import rows
from app.db import Reader
from app.models.events import StoredEvent
from app.spec.events import Json

NO_BUNDLES: Final[Mapping[str, Json]] = MappingProxyType({})
NO_MEMBERSHIPS: Final[Mapping[int, str]] = MappingProxyType({})

_Replaced = aliased(StoredEvent)
_Redaction = aliased(StoredEvent)
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
    _Replaced.event_id.label("replaces_state"),
    _Replaced.pdu.label("replaced_pdu"),
    _Redaction.position.label("redaction_position"),
)
_LOAD = (
    select(*_COLUMNS)
    .outerjoin(_Replaced, _Replaced.position == StoredEvent.replaces)
    .outerjoin(_Redaction, _Redaction.position == StoredEvent.redacted_by)
    .where(StoredEvent.position.in_(bindparam("positions", expanding=True)))
)
_POSITION = select(StoredEvent.position, StoredEvent.room_id).where(
    StoredEvent.event_id == bindparam("event_id")
)
_LOADED_AT_ONCE = 500
_MEMBERSHIPS: Final = {
    membership: b',"membership":"%b"' % membership.encode()
    for membership in ("invite", "join", "knock", "leave", "ban")
}


def load(tx: Reader, positions: Sequence[int]) -> list[ClientEvent]:
    """The events at these positions, in this order; positions without an event are left out."""
    found, missing = tx.caches.client_events.get_many(positions)
    for at in range(0, len(missing), _LOADED_AT_ONCE):
        some = missing[at : at + _LOADED_AT_ONCE]
        for row in tx.sql.execute(_LOAD, {"positions": some}):
            event = _from_row(tx, row)
            found[event.position] = event
            tx.fill(tx.caches.client_events, event.position, event)
    return [found[position] for position in positions if position in found]


def find(tx: Reader, event_id: str) -> ClientEvent | None:
    """The event of this id, or None."""
    row = tx.sql.execute(_POSITION, {"event_id": event_id}).first()
    if row is None:
        return None
    events = load(tx, [row.position])
    return events[0] if events else None


def encode(
    event: ClientEvent,
    now_ms: int,
    requester: Requester | None,
    *,
    with_room_id: bool = True,
    relations: Json | None = None,
    membership: str | None = None,
) -> orjson.Fragment:
    """The event as JSON for one device. /sync leaves out the room, as it stands above the event.

    `relations` is what aggregations.bundles tells of the event, `membership` what its reader was
    in the room then.
    """
    unsigned = event.unsigned
    if (
        event.txn_id is not None
        and requester is not None
        and event.device_id == requester.device_id
        and event.sender == requester.user_id
    ):
        unsigned += b',"transaction_id":' + orjson.dumps(event.txn_id)
    if relations is not None:
        unsigned += b',"m.relations":' + orjson.dumps(relations)
    if membership is not None:
        unsigned += _MEMBERSHIPS[membership]
    room = b',"room_id":' + orjson.dumps(event.room_id) if with_room_id else b""
    age = max(0, now_ms - event.origin_server_ts)
    return orjson.Fragment(b'%b%b,"unsigned":{"age":%d%b}}' % (event.body, room, age, unsigned))


def encode_all(
    events: Collection[ClientEvent],
    now_ms: int,
    requester: Requester | None,
    *,
    with_room_id: bool = True,
    bundles: Mapping[str, Json] = NO_BUNDLES,
    memberships: Mapping[int, str] = NO_MEMBERSHIPS,
) -> list[orjson.Fragment]:
    """The same for many, with `bundles` by event id and `memberships` by position."""
    return [
        encode(
            event,
            now_ms,
            requester,
            with_room_id=with_room_id,
            relations=bundles.get(event.event_id) if bundles else None,
            membership=memberships.get(event.position) if memberships else None,
        )
        for event in events
    ]


def as_json(event: ClientEvent, now_ms: int, requester: Requester | None) -> Json:
    """The event as an object, for the rare answer that has to take it apart again."""
    decoded: Json = orjson.loads(orjson.dumps(encode(event, now_ms, requester)))
    return decoded


def is_redacted(event: ClientEvent) -> bool:
    """Whether a message event has been redacted; nothing else is in the `unsigned` of all."""
    return b'"redacted_because"' in event.unsigned


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
    unsigned: Json,
    relation: tuple[str | None, str | None, str | None] = (None, None, None),
    transaction: tuple[str | None, str | None] = (None, None),
) -> ClientEvent:
    """The cached form of an event.

    `unsigned` is the part that everybody sees; `relation` is (relates_to, rel_type, thread_id),
    `transaction` (device_id, txn_id).
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
    encoded = orjson.dumps(unsigned)
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
        unsigned=b"," + encoded[1:-1] if unsigned else b"",
        relation=relation,
        transaction=transaction,
    )


def unsigned_of_state(replaces_state: str, replaced_pdu: Json) -> Json:
    """What a state event tells about the one that it took the place of."""
    return {
        "prev_content": replaced_pdu["content"],
        "prev_sender": replaced_pdu["sender"],
        "replaces_state": replaces_state,
    }


def _from_row(tx: Reader, row: rows.AnyRow) -> ClientEvent:
    unsigned: Json = {}
    if row.replaces_state is not None:
        unsigned = unsigned_of_state(row.replaces_state, orjson.loads(row.replaced_pdu))
    if row.redaction_position is not None:
        redaction = load(tx, [row.redaction_position])
        unsigned["redacted_because"] = encode(redaction[0], tx.now_ms, None)
    return build(
        row.position,
        row.event_id,
        row.room_id,
        orjson.loads(row.pdu),
        unsigned=unsigned,
        relation=(row.relates_to, row.rel_type, row.thread_id),
        transaction=(row.device_id, row.txn_id),
    )
