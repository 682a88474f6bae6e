"""How an event comes into being, and the one door by which it enters the database.

`send` makes an event of what a local user wants to say: a PDU that names its predecessors and the
state that allows it, hashed and signed. `store` writes it together with everything that must follow
from it, in one transaction. Events of other servers will take the same door; after it nothing asks
where an event came from.

This module writes the table events, in which redactions.py empties what was redacted and
leaving_threads.py takes events out of their threads, and rooms but
for its column is_published.
Spec: client-server-api#sending-events-to-a-room, server-server-api#pdus
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, insert, select, text, update

from homebody import errors
from homebody.core.appservices import transactions
from homebody.core.events import client_events, member_names, relating, rows, search_index, state
from homebody.core.events.relating import Relation
from homebody.core.push import counts
from homebody.core.timeline import local_rules, redactions
from homebody.models.events import StoredEvent
from homebody.models.rooms import Room
from homebody.spec import canonical_json, event_auth, events, room_state, signing
from homebody.spec.event_auth import AuthError, ContentError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

REDACTION = "m.room.redaction"
MAX_REDACTIONS_ALIKE = 20
"""Of one device with the same transaction id, among which a repeated one is looked for."""

_INSERT = insert(StoredEvent)
_NEW_ROOM = insert(Room)
_ADVANCE = (
    update(Room)
    .where(Room.room_id == bindparam("in_room"))
    .values(
        forward_extremities=bindparam("extremities"),
        depth=bindparam("new_depth"),
        last_position=bindparam("position"),
    )
)
# The plus signs keep SQLite from reading all of the room. A client may use a transaction id for
# thousands of redactions, and their content is read: so only the newest are looked at.
_SENT = text(
    "SELECT event_id, pdu FROM events WHERE sender = :sender AND device_id = :device_id"
    " AND txn_id = :txn_id AND +room_id = :room_id AND +type = :type"
    " ORDER BY position DESC LIMIT :count"
)
_REMOVE_ROOM = delete(Room).where(Room.room_id == bindparam("the_room"))
_SOME_EVENTS = (
    select(StoredEvent.position)
    .where(StoredEvent.room_id == bindparam("room_id"))
    .order_by(StoredEvent.position)
    .limit(bindparam("count"))
)
_REMOVE_EVENT = delete(StoredEvent).where(StoredEvent.position == bindparam("at"))


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody wants to say: the parts of an event that are theirs to choose."""

    room_id: str
    sender: str
    type: str
    content: Json
    state_key: str | None = None
    redacts: str | None = None
    device_id: str | None = None
    txn_id: str | None = None
    origin_server_ts: int | None = None  # ms; None: now. Application services may say otherwise
    requester: Requester | None = None
    """Whose request it is, where that may give more rights than the sender has in the room."""


def send(tx: Tx, draft: Draft) -> str:
    """Return the id of the event that says what the draft says, now in the room.

    A state event that repeats what its sender has set already is not sent again: the id of the
    first one comes back, to whoever could send it now.
    Raises M_FORBIDDEN when the room's rules refuse it, M_NOT_FOUND for an unknown room,
    M_TOO_LARGE, M_BAD_JSON for what no event can hold, and what local_rules.check raises.
    """
    local_rules.check_form(draft)
    head = rows.head(tx, draft.room_id)
    version = VERSIONS[head.version]
    auth_state = _auth_state(tx, version, draft)
    pdu = _build(tx, version, head, draft, auth_state)
    try:  # before hashing and signing, which take longest
        event_auth.check(Event(pdu.get("event_id", ""), pdu, version), auth_state)
    except ContentError as refusal:
        raise errors.bad_json(str(refusal)) from None
    except AuthError as refusal:
        raise errors.forbidden(str(refusal)) from None
    local_rules.check(tx, draft, auth_state)
    if (known := _unchanged(tx, draft)) is not None:
        return known
    event, text = _sign(tx, version, pdu)
    store(tx, event, text, draft)
    return event.event_id


def create(tx: Tx, version: RoomVersion, draft: Draft) -> str:
    """The id of a new room, made by its first event.

    `draft.room_id` is what the room shall be called; since version 12 its create event says that.
    """
    local_rules.check_form(draft)
    head = rows.RoomHead(version.name, [], 0)
    event, text = _sign(tx, version, _build(tx, version, head, draft, {}))
    try:
        event_auth.check(event, {})
    except AuthError as refusal:
        raise errors.invalid_room_state(str(refusal)) from None
    tx.sql.execute(
        _NEW_ROOM,
        {
            "room_id": event.room_id,
            "version": version.name,
            "forward_extremities": [],
            "depth": 0,
            "last_position": 0,
            "is_published": False,
        },
    )
    tx.remember(rows.ROOMS, event.room_id, head)
    store(tx, event, text, draft)
    return event.room_id


def sent_before(tx: Reader, requester: Requester, draft: Draft) -> str | None:
    """The id of the event that this device sent to the same path with this transaction id.

    Spec: client-server-api#transaction-identifiers
    """
    asked = {
        "sender": draft.sender,
        "device_id": requester.device_id,
        "txn_id": draft.txn_id,
        "room_id": draft.room_id,
        "type": draft.type,
        "count": 1 if draft.redacts is None else MAX_REDACTIONS_ALIKE,
    }
    for row in tx.sql.execute(_SENT, asked):
        targets = _redacts(orjson.loads(row.pdu))
        # before version 11, a redaction that was redacted itself does not name its target any more
        if draft.redacts is None or draft.redacts in targets or targets == (None, None):
            return str(row.event_id)
    return None


def store(tx: Tx, event: Event, encoded: bytes, draft: Draft) -> int:
    """Write an allowed event with all that follows from it; return its position.

    `encoded` is its PDU in canonical JSON.
    """
    position = tx.next_position()
    joined_before = state.joined_users(tx, event.room_id)
    replaces = state.replace(tx, event, position) if event.state_key is not None else None
    if event.type == state.MEMBER:
        member_names.follow(tx, event)
    relation = relating.of(tx, event)
    _insert(tx, event, encoded, draft, position, replaces, relation)
    tx.caches.lately.add(position, event.room_id)
    _advance(tx, event, position)
    _keep_client_form(tx, event, draft, position, replaces, relation)
    if event.type == REDACTION and event.redacts is not None:
        redactions.apply(tx, event, position)
    counts.count(tx, event, position, relation.thread_id, joined_before)
    transactions.note(tx, event, position)
    search_index.follow(tx, position)
    tx.wake_all(state.joined_users(tx, event.room_id))
    tx.wake(event.room_id)  # who looks into the room without being in it
    if event.type == state.MEMBER:
        tx.wake_all(joined_before)
        tx.wake(event.state_key or "")
        _note_leave(tx, event, joined_before)
    return position


def remove_room(tx: Tx, room_id: str) -> None:
    """Let nobody send anything to a room any more; called by purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})
    tx.forget(rows.ROOMS, room_id)
    member_names.forget(tx, room_id)


def remove_events(tx: Tx, room_id: str, count: int) -> int:
    """Delete the oldest events of a room that is no more, so many at most; how many there were."""
    positions = tx.sql.execute(_SOME_EVENTS, {"room_id": room_id, "count": count}).scalars().all()
    if positions:
        tx.sql.execute(_REMOVE_EVENT, [{"at": position} for position in positions])
    for position in positions:
        tx.forget(client_events.CLIENT_EVENTS, position)
        search_index.forget(tx, position)
    return len(positions)


def _auth_state(tx: Reader, version: RoomVersion, draft: Draft) -> dict[StateKey, Event]:
    keys = event_auth.auth_types(version, draft.type, draft.state_key, draft.sender, draft.content)
    return state.current_many(tx, draft.room_id, {room_state.CREATE, *keys})


def _unchanged(tx: Reader, draft: Draft) -> str | None:
    """The id of the state event that says the same already, by the same sender."""
    if draft.state_key is None:
        return None
    event = state.current(tx, draft.room_id, draft.type, draft.state_key)
    if event is None or event.sender != draft.sender or event.content != draft.content:
        return None
    # 1 == True == 1.0 to Python, but not to JSON
    is_same = orjson.dumps(event.content) == orjson.dumps(draft.content)
    return event.event_id if is_same else None


def _build(
    tx: Reader,
    version: RoomVersion,
    head: rows.RoomHead,
    draft: Draft,
    auth_state: dict[StateKey, Event],
) -> Json:
    """Return the draft as a PDU that follows everything that the room has so far.

    Raises M_BAD_JSON for what no event can hold.
    """
    if version.has_privileged_creators:  # every event cites the create event by its room's id
        auth_state = {key: event for key, event in auth_state.items() if key != room_state.CREATE}
    has_room_id = not (version.has_privileged_creators and draft.type == "m.room.create")
    pdu = events.build(
        version,
        room_id=draft.room_id if has_room_id else None,
        sender=draft.sender,
        event_type=draft.type,
        content=draft.content,
        auth_events=_references(tx, version, [event.event_id for event in auth_state.values()]),
        prev_events=_references(tx, version, head.forward_extremities),
        depth=head.depth + 1,
        origin_server_ts=tx.now_ms if draft.origin_server_ts is None else draft.origin_server_ts,
        state_key=draft.state_key,
        redacts=draft.redacts,
        event_id=_given_event_id(tx, version),
    )
    try:
        canonical_json.check(pdu["content"], is_strict=True)
    except ValueError as problem:
        raise errors.bad_json(str(problem)) from None
    return pdu


def _sign(tx: Reader, version: RoomVersion, pdu: Json) -> tuple[Event, bytes]:
    """Return the event that a PDU makes, once it is hashed and signed, and its canonical JSON.

    Raises M_TOO_LARGE: only now is its whole size known.
    Spec: client-server-api#size-limits
    """
    try:
        event_id, pdu = signing.add_hashes_and_signatures(
            pdu, version, tx.server.name, tx.server.signing_key
        )
    except ValueError as problem:
        raise errors.bad_json(str(problem)) from None
    encoded = canonical_json.encode(pdu)
    if len(encoded) > events.MAX_BYTES:
        raise errors.too_large(f"The event is larger than {events.MAX_BYTES} bytes")
    return Event(event_id, pdu, version), encoded


def _given_event_id(tx: Reader, version: RoomVersion) -> str | None:
    """In versions 1 and 2 the sender thinks the id up."""
    if version.event_ids != "given":
        return None
    return f"${secrets.token_urlsafe(18)}:{tx.server.name}"


def _references(tx: Reader, version: RoomVersion, event_ids: list[str]) -> list[Any]:
    """Ids as events of this version cite them: versions 1 and 2 add the hash."""
    if version.event_ids != "given":
        return event_ids
    found = (rows.find(tx, event_id) for event_id in event_ids)
    return [signing.reference(event.pdu, version) for _, event in filter(None, found)]


def _insert(
    tx: Tx,
    event: Event,
    encoded: bytes,
    draft: Draft,
    position: int,
    replaces: int | None,
    relation: Relation,
) -> None:
    tx.sql.execute(
        _INSERT,
        {
            "position": position,
            "event_id": event.event_id,
            "room_id": event.room_id,
            "type": event.type,
            "state_key": event.state_key,
            "sender": event.sender,
            "origin_server_ts": event.origin_server_ts,
            "pdu": encoded.decode(),
            "replaces": replaces,
            "redacted_by": None,
            "relates_to": relation.relates_to,
            "rel_type": relation.rel_type,
            "thread_id": relation.thread_id,
            "edit_of": relation.edit_of,
            "annotation_key": relation.annotation_key,
            "device_id": draft.device_id,
            "txn_id": draft.txn_id,
        },
    )


def _advance(tx: Tx, event: Event, position: int) -> None:
    """The room's new end: this event, instead of those that it names as its predecessors."""
    head = rows.head(tx, event.room_id)
    left = [known for known in head.forward_extremities if known not in event.prev_event_ids]
    new_head = rows.RoomHead(head.version, [*left, event.event_id], max(head.depth, event.depth))
    tx.sql.execute(
        _ADVANCE,
        {
            "in_room": event.room_id,
            "extremities": new_head.forward_extremities,
            "new_depth": new_head.depth,
            "position": position,
        },
    )
    tx.remember(rows.ROOMS, event.room_id, new_head)


def _keep_client_form(
    tx: Tx,
    event: Event,
    draft: Draft,
    position: int,
    replaces: int | None,
    relation: Relation,
) -> None:
    """Put the event where all who wait for it will look first."""
    if replaces is not None:
        return  # it tells about the one it replaces: built when somebody reads it
    form = client_events.build(
        position,
        event.event_id,
        event.room_id,
        event.pdu,
        relation=relation[:3],
        transaction=(draft.device_id, draft.txn_id),
    )
    tx.remember(client_events.CLIENT_EVENTS, position, form)


def _note_leave(tx: Tx, event: Event, joined_before: frozenset[str]) -> None:
    user_id = event.state_key or ""
    if user_id in joined_before and event.content.get("membership") != "join":
        tx.note_departure(user_id, event.room_id)


def _redacts(pdu: Json) -> tuple[object, object]:
    return pdu.get("redacts"), pdu["content"].get("redacts")
