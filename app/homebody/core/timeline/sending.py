"""What clients send into rooms: each request once, reactions once, redactions where allowed.

Spec: client-server-api#sending-events-to-a-room, client-server-api#redactions,
client-server-api#transaction-identifiers
"""

from __future__ import annotations

from sqlalchemy import bindparam, select

from homebody import errors
from homebody.core.events import relating
from homebody.core.timeline import guest_access, store
from homebody.models.events import StoredEvent
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

# without the room, as SQLite would go through all of it instead of the index of reactions
_ANNOTATIONS = select(StoredEvent.room_id).where(
    StoredEvent.relates_to == bindparam("relates_to"),
    StoredEvent.sender == bindparam("sender"),
    StoredEvent.type == bindparam("event_type"),
    StoredEvent.annotation_key == bindparam("annotation_key"),
)
_REL_TYPE = select(StoredEvent.rel_type).where(
    StoredEvent.event_id == bindparam("event_id"),
    StoredEvent.room_id == bindparam("room_id"),
    StoredEvent.redacted_by.is_(None),
)
# without the room, as SQLite would go through all of it instead of the index of transactions
_SENT_AS = (
    select(StoredEvent.event_id, StoredEvent.room_id, StoredEvent.type)
    .where(StoredEvent.sender == bindparam("sender"), StoredEvent.txn_id == bindparam("txn_id"))
    .order_by(StoredEvent.position)
)


def send(
    tx: Tx,
    requester: Requester,
    room_id: str,
    event_type: str,
    content: Json,
    txn_id: str | None = None,
    ts: int | None = None,
) -> str:
    """The id of the event that was sent by this request, now or when it was made before.

    `ts` is when it shall have been sent (ms), where an application service says so.

    Raises M_FORBIDDEN when the rules of the room refuse it, M_NOT_FOUND for an unknown room,
    M_DUPLICATE_ANNOTATION for a second reaction with the same key, M_UNKNOWN (400) for a thread
    that begins where none can, M_USER_SUSPENDED.
    """
    redacts = None
    if event_type == store.REDACTION:
        content, redacts = _split_redaction(content)
    draft = store.Draft(
        room_id,
        requester.user_id,
        event_type,
        content,
        redacts=redacts,
        device_id=requester.device_id,
        txn_id=txn_id,
        origin_server_ts=ts,
        requester=requester,
    )
    if txn_id is not None:
        known = store.sent_before(tx, requester, draft)
        if known is not None:
            return known
    if redacts is None and requester.is_suspended:
        raise errors.user_suspended()
    _check_is_no_duplicate(tx, draft)
    _check_may_have_a_thread(tx, draft)
    had_guests = redacts is not None and guest_access.is_open(tx, room_id)
    event_id = store.send(tx, draft)
    if had_guests:
        guest_access.send_away(tx, room_id)
    return event_id


def sent_as(tx: Reader, room_id: str, sender: str, event_type: str, txn_id: str) -> str | None:
    """The id of the last event that a user sent with this transaction id, from any device.

    Devices may use the same ids; only the API of 2014 takes them for addresses of messages.
    """
    rows = tx.sql.execute(_SENT_AS, {"sender": sender, "txn_id": txn_id})
    found = [it.event_id for it in rows if (it.room_id, it.type) == (room_id, event_type)]
    return found[-1] if found else None


def _split_redaction(content: Json) -> tuple[Json, str]:
    """The content of a redaction without its target, whose place depends on the room version."""
    target = content.get("redacts")
    if not isinstance(target, str):
        raise errors.missing_param("A redaction says in `redacts` which event it is about")
    return {key: value for key, value in content.items() if key != "redacts"}, target


def _check_is_no_duplicate(tx: Reader, draft: store.Draft) -> None:
    """Raises M_DUPLICATE_ANNOTATION.

    Spec: client-server-api#avoiding-duplicate-annotations
    """
    relation = draft.content.get("m.relates_to")
    if not isinstance(relation, dict) or relation.get("rel_type") != relating.ANNOTATION:
        return
    asked = {
        "relates_to": str(relation.get("event_id")),
        "sender": draft.sender,
        "event_type": draft.type,
        "annotation_key": relating.key_digest(relation.get("key")),
    }
    if draft.room_id in tx.sql.execute(_ANNOTATIONS, asked).scalars():
        raise errors.duplicate_annotation()


def _check_may_have_a_thread(tx: Reader, draft: store.Draft) -> None:
    """Raises M_UNKNOWN (400) for a reply in a thread whose root is related to an event itself.

    Spec: client-server-api#validation-of-mthread-relationships
    """
    relation = draft.content.get("m.relates_to")
    if not isinstance(relation, dict) or relation.get("rel_type") != relating.THREAD:
        return
    root = {"event_id": str(relation.get("event_id")), "room_id": draft.room_id}
    if tx.sql.execute(_REL_TYPE, root).scalar() is not None:
        raise errors.unknown("An event that is related to another can't begin a thread")
