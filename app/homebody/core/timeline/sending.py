"""How a local user's event is made: drafted, checked, signed, and stored.

`send_message` serves a client's request: it is sent once however often it is repeated. `send` makes
a PDU of a draft that names its predecessors and the state that allows it, hashed and signed, and
hands it to `store.store`.

Spec: client-server-api#sending-events-to-a-room, client-server-api#redactions,
client-server-api#transaction-identifiers
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import state
from homebody.core.timeline import (
    cited_ends,
    forks,
    guest_access,
    local_rules,
    outside_rooms,
    policies,
    receiving,
    shadow_bans,
    store,
)
from homebody.errors import MatrixError
from homebody.models.events import StoredEvent
from homebody.spec import (
    canonical_json,
    event_auth,
    events,
    identifiers,
    room_state,
    signing,
    sticky,
)
from homebody.spec.event_auth import AuthError, ContentError
from homebody.spec.events import Event, Json, StateKey
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import unindexed

LOG = logging.getLogger(__name__)

MAX_REDACTIONS_ALIKE = 20
"""Redactions by one device with the same transaction ID that are compared with a new one."""

# A client may use a transaction ID for thousands of redactions, and their content is read: so only
# the newest are compared.
_SENT = (
    select(StoredEvent.event_id, StoredEvent.pdu)
    .where(
        StoredEvent.sender == bindparam("sender"),
        StoredEvent.device_id == bindparam("device_id"),
        StoredEvent.txn_id == bindparam("txn_id"),
        unindexed(StoredEvent.room_id) == bindparam("room_id"),  # else all of the room is read
        unindexed(StoredEvent.type) == bindparam("type"),
    )
    .order_by(StoredEvent.number.desc())
    .limit(bindparam("count"))
)
# without the room, as SQLite would go through all of it instead of the index of transactions
_SENT_AS = (
    select(StoredEvent.event_id, StoredEvent.room_id, StoredEvent.type)
    .where(StoredEvent.sender == bindparam("sender"), StoredEvent.txn_id == bindparam("txn_id"))
    .order_by(StoredEvent.number)
)


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of an event that its sender chooses."""

    room_id: str
    sender: str
    type: str
    content: Json
    state_key: str | None = None
    redacts: str | None = None
    device_id: str | None = None
    txn_id: str | None = None  # without a device: the delay_id of one that was scheduled
    origin_server_ts: int | None = None  # ms; None: now. Application services may say otherwise
    requester: Requester | None = None
    """The requester, if that may give more rights than the sender has in the room."""
    sticky_ms: int | None = None
    """How long it is sticky."""


def send_message(
    tx: Tx,
    requester: Requester,
    room_id: str,
    event_type: str,
    content: Json,
    txn_id: str | None = None,
    ts: int | None = None,
    delay_id: str | None = None,
    sticky_ms: int | None = None,
) -> str:
    """Send a client's message event; return its id, also if the request was made before.

    `ts` is the time in ms at which an application service wants it to have been sent. `delay_id`
    is that of an event that was scheduled, which is not of the requester's device; `sticky_ms`
    makes it sticky (MSC4354).

    Raises M_FORBIDDEN when the rules of the room refuse it, M_NOT_FOUND for an unknown room,
    M_DUPLICATE_ANNOTATION for a second reaction with the same key, M_UNKNOWN (400) for a thread
    that begins where none can, M_USER_SUSPENDED.
    """
    redacts, sender = None, requester.user_id
    device_id: str | None = requester.device_id
    if event_type == store.REDACTION:
        content, redacts = _split_redaction(content)
    if delay_id is not None:
        device_id, txn_id = None, delay_id
    draft = Draft(
        *(room_id, sender, event_type, content, None, redacts, device_id, txn_id, ts, requester),
        sticky_ms=sticky_ms,
    )
    if txn_id is not None and delay_id is None:
        known = sent_before(tx, requester, draft)
        if known is not None:
            return known
    if redacts is None and requester.is_suspended:
        raise errors.user_suspended()
    if requester.is_shadow_banned:
        return shadow_bans.event_id(tx, requester, room_id, txn_id)
    if isinstance(relation := content.get("m.relates_to"), dict):
        local_rules.check_relation(tx, draft, relation)
    had_guests = redacts is not None and guest_access.is_open(tx, room_id)
    event_id = send(tx, draft)
    if had_guests:
        send_guests_away(tx, room_id)
    return event_id


def send(tx: Tx, draft: Draft, *, is_forced: bool = False) -> str:
    """Send an event to a room; return its id.

    A state event that repeats what its sender has already set is not sent again: the id of the
    first one is returned, if the sender could send it now. `is_forced`: the room's policy server is
    not asked.
    Raises M_FORBIDDEN when the room's rules refuse it, UnapprovedError until its policy server has
    signed it, M_NOT_FOUND for an unknown room, M_TOO_LARGE, M_BAD_JSON for what no event can hold,
    and what local_rules.check raises.
    """
    check_form(draft)
    if tx.approved and (event := policies.approved(tx, draft)) is not None:
        return _send_approved(tx, draft, event)
    head = state.head(tx, draft.room_id)
    version = VERSIONS[head.version]
    keys = event_auth.auth_types(version, draft.type, draft.state_key, draft.sender, draft.content)
    auth_state = current = state.current_many(tx, draft.room_id, {room_state.CREATE, *keys})
    before = None
    if len(head.forward_extremities) > cited_ends.MAX_CITED:
        head, before = cited_ends.choose(tx, draft.room_id, head, {room_state.CREATE, *keys})
        if before is not None:
            auth_state = forks.events(tx, draft.room_id, before, {room_state.CREATE, *keys})
    pdu = _build(tx, version, head, draft, auth_state)
    try:  # before hashing and signing, which take longest
        event_auth.check(Event(pdu.get("event_id", ""), pdu, version), auth_state)
        if auth_state is not current:
            event_auth.check(Event(pdu.get("event_id", ""), pdu, version), current)
    except ContentError as refusal:
        raise errors.bad_json(str(refusal)) from None
    except AuthError as refusal:
        raise errors.forbidden(str(refusal)) from None
    if (rule := local_rules.RULES.get(draft.type)) is not None:
        rule(tx, draft, auth_state)
    if draft.state_key is not None and (known := _unchanged(tx, draft)) is not None:
        return known
    event, encoded = _sign(tx, version, pdu)
    if tx.server.config.federation and not is_forced:
        policies.check(tx, draft, event)
    store.store(tx, event, encoded, (draft.device_id, draft.txn_id), before)
    return event.event_id


def _send_approved(tx: Tx, draft: Draft, event: Event) -> str:
    """Store an event that was built in an earlier write, if it is still allowed; return its id.

    The room has gone on while its policy server was asked.
    """
    keys = event_auth.auth_types(
        event.version, draft.type, draft.state_key, draft.sender, draft.content
    )
    current = state.current_many(tx, draft.room_id, {room_state.CREATE, *keys})
    try:
        event_auth.check(event, current)
    except AuthError as refusal:
        raise errors.forbidden(str(refusal)) from None
    if (rule := local_rules.RULES.get(draft.type)) is not None:
        rule(tx, draft, current)
    if draft.state_key is not None and (known := _unchanged(tx, draft)) is not None:
        return known
    before, present = receiving.state_before(tx, event), forks.current(tx)
    is_current = before == present or not forks.conflicts(tx, event.room_id, [before, present])
    encoded, transaction = events.encode(event.pdu, event.version), (draft.device_id, draft.txn_id)
    store.store(tx, event, encoded, transaction, None if is_current else before)
    return event.event_id


def template(tx: Reader, draft: Draft) -> Json:
    """Return the draft as a PDU that its sender's server completes, hashes and signs.

    Raises M_FORBIDDEN when the room's rules refuse it, M_NOT_FOUND for an unknown room.
    """
    head = state.head(tx, draft.room_id)
    head = head._replace(forward_extremities=head.forward_extremities[-cited_ends.MAX_CITED :])
    version = VERSIONS[head.version]
    keys = event_auth.auth_types(version, draft.type, draft.state_key, draft.sender, draft.content)
    auth_state = state.current_many(tx, draft.room_id, {room_state.CREATE, *keys})
    pdu = _build(tx, version, head, draft, auth_state)
    try:
        event_auth.check(Event(pdu.pop("event_id", ""), pdu, version), auth_state)
    except AuthError as refusal:
        raise errors.forbidden(str(refusal)) from None
    return pdu


def make(tx: Reader, draft: Draft) -> Event:
    """Return the draft as a signed event that is not stored yet: another server signs it first.

    Raises as `send` does.
    """
    check_form(draft)
    pdu, version = template(tx, draft), state.version(tx, draft.room_id)
    if (rule := local_rules.RULES.get(draft.type)) is not None:
        keys = event_auth.auth_types(
            version, draft.type, draft.state_key, draft.sender, draft.content
        )
        rule(tx, draft, state.current_many(tx, draft.room_id, {room_state.CREATE, *keys}))
    if version.event_ids == "given":
        pdu["event_id"] = _new_id(tx.server.name)
    return _sign(tx, version, pdu)[0]


def create(tx: Tx, version: RoomVersion, draft: Draft) -> str:
    """Create a room by its first event; return the room's id.

    `draft.room_id` is the id that the room gets in versions before 12, where its create event
    makes the id.
    """
    check_form(draft)
    head = state.RoomHead(version.name, [], 0)
    event, encoded = _sign(tx, version, _build(tx, version, head, draft, {}))
    try:
        event_auth.check(event, {})
    except AuthError as refusal:
        raise errors.invalid_room_state(str(refusal)) from None
    store.add_room(tx, event.room_id, head)
    store.store(tx, event, encoded, (draft.device_id, draft.txn_id))
    return event.room_id


def send_guests_away(tx: Tx, room_id: str) -> None:
    """Make all guests leave a room that does not allow guests any more.

    "the server MUST set those users' m.room.member state to leave."
    """
    if guest_access.is_open(tx, room_id):
        return
    for user_id in guest_access.joined_guests(tx, room_id):
        force_leave(tx, room_id, user_id)


def force_leave(tx: Tx, room_id: str, user_id: str) -> None:
    """Make a user leave a room. Errors are logged, so that a broken room prevents nothing else."""
    if outside_rooms.is_outside(tx, room_id, user_id):
        outside_rooms.leave(tx, room_id, user_id, {})
        return
    draft = Draft(room_id, user_id, state.MEMBER, {"membership": "leave"}, user_id)
    try:
        send(tx, draft, is_forced=True)
    except MatrixError as refusal:
        LOG.warning("%s could not leave %s: %s", user_id, room_id, refusal)


def sent_before(tx: Reader, requester: Requester, draft: Draft) -> str | None:
    """Return the id of the event that this device sent to the same path by this transaction ID.

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
        pdu = orjson.loads(row.pdu)
        targets = (pdu.get("redacts"), pdu["content"].get("redacts"))
        # before version 11, a redaction that was redacted itself does not name its target any more
        if draft.redacts is None or draft.redacts in targets or targets == (None, None):
            return str(row.event_id)
    return None


def sent_as(tx: Reader, room_id: str, sender: str, event_type: str, txn_id: str) -> str | None:
    """Return the id of the last event that a user sent by this transaction ID, from any device.

    Devices may use the same ids; only the API of 2014 takes them for addresses of messages.
    """
    found = tx.sql.execute(_SENT_AS, {"sender": sender, "txn_id": txn_id})
    ids = [it.event_id for it in found if (it.room_id, it.type) == (room_id, event_type)]
    return ids[-1] if ids else None


def check_size(content: Json) -> None:
    """Raise M_TOO_LARGE for content that fits into no event.

    Hashing and signing go through every value, while nobody else can write. This takes a hundredth
    of their time; views call it before they write.
    """
    if len(orjson.dumps(content)) > events.MAX_BYTES:
        raise errors.too_large(f"The event is larger than {events.MAX_BYTES} bytes")


def check_form(draft: Draft) -> None:
    """Check what can be checked cheaply, before the room's state is read.

    Raises M_TOO_LARGE, M_INVALID_PARAM for an event without a type.
    """
    check_size(draft.content)
    if not draft.type:
        raise errors.invalid_param("The type of an event can't be empty")
    for name in ("type", "state_key", "room_id"):
        value: str = getattr(draft, name) or ""
        if len(value.encode(errors="surrogatepass")) > identifiers.MAX_BYTES:
            raise errors.too_large(f"{name} is longer than {identifiers.MAX_BYTES} bytes")


def _split_redaction(content: Json) -> tuple[Json, str]:
    """Return a redaction's content without its target, whose place depends on the room version."""
    target = content.get("redacts")
    if not isinstance(target, str):
        raise errors.missing_param("A redaction says in `redacts` which event it is about")
    return {key: value for key, value in content.items() if key != "redacts"}, target


def _unchanged(tx: Reader, draft: Draft) -> str | None:
    """Return the id of the current state event if it has the same content and sender."""
    event = state.current(tx, draft.room_id, draft.type, draft.state_key or "")
    if event is None or event.sender != draft.sender or event.content != draft.content:
        return None
    # 1 == True == 1.0 to Python, but not to JSON
    is_same = orjson.dumps(event.content) == orjson.dumps(draft.content)
    return event.event_id if is_same else None


def _build(
    tx: Reader,
    version: RoomVersion,
    head: state.RoomHead,
    draft: Draft,
    auth_state: dict[StateKey, Event],
) -> Json:
    """Return the draft as a PDU that follows everything that the room has so far.

    Raises M_BAD_JSON for what no event can hold.
    """
    if version.has_privileged_creators:  # every event cites the create event by its room's id
        auth_state = {key: event for key, event in auth_state.items() if key != room_state.CREATE}
    has_room_id = not (version.has_privileged_creators and draft.type == "m.room.create")
    auth_events: list[Any] = [event.event_id for event in auth_state.values()]
    prev_events: list[Any] = head.forward_extremities
    event_id = None
    if version.event_ids == "given":  # versions 1 and 2: the sender invents ids, and cites by pairs
        auth_events = _references(tx, version, auth_events)
        prev_events = _references(tx, version, prev_events)
        event_id = _new_id(tx.server.name)
    pdu = events.build(
        version,
        room_id=draft.room_id if has_room_id else None,
        sender=draft.sender,
        event_type=draft.type,
        content=draft.content,
        auth_events=auth_events,
        prev_events=prev_events,
        depth=head.depth + 1,
        origin_server_ts=tx.now_ms if draft.origin_server_ts is None else draft.origin_server_ts,
        state_key=draft.state_key,
        redacts=draft.redacts,
        event_id=event_id,
    )
    if draft.sticky_ms is not None:
        pdu[sticky.KEY] = {"duration_ms": draft.sticky_ms}
    try:
        canonical_json.check(pdu["content"], is_strict=True)
    except ValueError as problem:
        raise errors.bad_json(str(problem)) from None
    return pdu


def _new_id(server_name: str) -> str:
    """Return a random event ID, as room versions 1 and 2 have them."""
    return f"${secrets.token_urlsafe(18)}:{server_name}"


def _references(tx: Reader, version: RoomVersion, event_ids: list[str]) -> list[Any]:
    """Return ids as events of room versions 1 and 2 cite them, with the hash of the event."""
    found = state.find_many(tx, event_ids)  # state of before a join has no position
    return [signing.reference(found[event_id].event.pdu, version) for event_id in event_ids]


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
