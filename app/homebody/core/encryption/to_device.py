"""Send-to-device messages, stored until the device has received them.

A sync token acknowledges all messages up to its position. For a response that had no room for all
messages, the table to_device_cut_answers has the position of its last message.

Most devices have no messages. The number of messages is cached, so that /sync only queries the
database for devices that have some.

This module alone writes the tables to_device_messages, to_device_cut_answers and
to_device_transactions.
Spec: client-server-api#send-to-device-messaging
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, func, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.appservices import bridged_devices
from homebody.errors import MatrixError
from homebody.models.devices import Device
from homebody.models.to_device import PartialSync, ToDeviceMessage, ToDeviceTransaction
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, Requester, declare
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

ALL_DEVICES: Final = "*"
MAX_BYTES: Final = 65536
"""The size of a message's content, like that of an event."""
MAX_MESSAGES: Final = 10_000
"""In one request. Bridges send a key to all devices in a large room."""
MAX_WAITING: Final = 20_000
"""Undelivered messages per device."""
MAX_FROM_ONE: Final = 2_000
"""Messages from one sender, or from all guests together: enough room keys for a year or two. Beyond
that the sender's oldest are dropped, so that a flood only displaces its own messages."""
LARGE_BYTES: Final = 8192
"""Larger messages have a limit of their own; clients' messages have about 2 KiB."""
MAX_LARGE_FROM_ONE: Final = 100
MAX_TOTAL_BYTES: Final = 32 * 2**20
"""The size of one request, after expanding "*" to all devices."""
GUESTS: Final = ""
AT_ONCE: Final = 100
"""Messages per response, as the spec recommends."""
PUT_AT_ONCE: Final = 300
PUT_BYTES_AT_ONCE: Final = 2 * 2**20
"""Per transaction, which blocks other writers for some 30 ms."""
DROPPED_AT_ONCE: Final = 200
"""Per transaction. SQLite takes 0.5 ms for a large message."""
TRANSACTIONS_KEPT_MS: Final = 24 * 3_600_000
"""How long transaction IDs are kept. Clients repeat requests within minutes."""
_USERS_AT_ONCE: Final = 500

Recipient = tuple[str, str]
"""(user_id, device_id)"""
Message = tuple[Recipient, str]
"""A message to a device: its JSON as sent in /sync."""


@dataclass(frozen=True, slots=True)
class Inbox:
    """The undelivered messages of a device."""

    count: int
    newest: int
    """The position of the last message, or 0."""


INBOXES: CacheKind[Recipient, Inbox] = declare("inboxes", 1, lambda _: 100)

_OF_DEVICE = (
    ToDeviceMessage.user_id == bindparam("user_id"),
    ToDeviceMessage.device_id == bindparam("device_id"),
)
_BEGIN = insert(ToDeviceTransaction).on_conflict_do_nothing()
_DONE = select(ToDeviceTransaction.ts).where(
    ToDeviceTransaction.user_id == bindparam("user_id"),
    ToDeviceTransaction.device_id == bindparam("device_id"),
    ToDeviceTransaction.event_type == bindparam("event_type"),
    ToDeviceTransaction.txn_id == bindparam("txn_id"),
)
_TRANSACTION = tuple_(*ToDeviceTransaction.__table__.primary_key)
_DELETE_OLD = delete(ToDeviceTransaction).where(
    _TRANSACTION.in_(
        select(*_TRANSACTION.clauses)
        .where(ToDeviceTransaction.ts < bindparam("before"))
        .limit(bindparam("count"))
    )
)
_DEVICES = select(Device.user_id, Device.device_id).where(
    Device.user_id.in_(bindparam("user_ids", expanding=True))
)
_INSERT = insert(ToDeviceMessage)
_INBOXES = (
    select(
        ToDeviceMessage.user_id,
        ToDeviceMessage.device_id,
        func.count(),
        func.max(ToDeviceMessage.position),
    )
    .where(ToDeviceMessage.user_id.in_(bindparam("user_ids", expanding=True)))
    .group_by(ToDeviceMessage.user_id, ToDeviceMessage.device_id)
)
_INBOX = select(func.count(), func.coalesce(func.max(ToDeviceMessage.position), 0)).where(
    *_OF_DEVICE
)
_AFTER = (
    select(ToDeviceMessage.position, ToDeviceMessage.event)
    .where(*_OF_DEVICE, ToDeviceMessage.position > bindparam("seen"))
    .order_by(ToDeviceMessage.position)
    .limit(bindparam("count"))
)
_FROM_SOURCE = select(func.count()).where(
    *_OF_DEVICE, ToDeviceMessage.source == bindparam("source")
)
_LARGEST_SOURCE = (
    select(ToDeviceMessage.source, func.count())
    .where(*_OF_DEVICE)
    .group_by(ToDeviceMessage.source)
    .order_by(func.count().desc())
    .limit(1)
)
_OLDEST_OF_SOURCE = (
    select(ToDeviceMessage.position)
    .where(*_OF_DEVICE, ToDeviceMessage.source == bindparam("source"))
    .order_by(ToDeviceMessage.position)
    .limit(bindparam("count"))
)
_FIRST = select(func.min(ToDeviceMessage.position)).where(*_OF_DEVICE)
_OLDEST = (
    select(ToDeviceMessage.position)
    .where(*_OF_DEVICE, ToDeviceMessage.position <= bindparam("upto"))
    .order_by(ToDeviceMessage.position)
    .limit(bindparam("count"))
)
_TRUNCATED = select(PartialSync.last_message).where(
    PartialSync.user_id == bindparam("user_id"),
    PartialSync.device_id == bindparam("device_id"),
    PartialSync.token == bindparam("token"),
)
_NOTE_TRUNCATED = insert(PartialSync)
# Of two responses with the same token the shorter one counts: a message may arrive twice, but must
# not be lost
_NOTE_TRUNCATED = _NOTE_TRUNCATED.on_conflict_do_update(
    index_elements=["user_id", "device_id", "token"],
    set_={
        "last_message": func.min(PartialSync.last_message, _NOTE_TRUNCATED.excluded.last_message)
    },
)


@dataclass(frozen=True, slots=True)
class Messages:
    """The messages of a /sync response."""

    events: list[orjson.Fragment]
    truncated_after: int | None = None
    """The position of the last message in the response, if there are more."""


NONE: Final = Messages([])


def check(messages: Mapping[str, Mapping[str, Json]]) -> None:
    """Raise M_TOO_LARGE for a message over the limit or too many."""
    contents = [content for of_user in messages.values() for content in of_user.values()]
    if max(len(contents), len(messages)) > MAX_MESSAGES:  # each user is looked up
        raise errors.too_large(f"A request has at most {MAX_MESSAGES} messages")
    if any(len(orjson.dumps(content)) > MAX_BYTES for content in contents):
        raise errors.too_large(f"A message may have at most {MAX_BYTES} bytes")


def parts(
    tx: Reader, sender: str, event_type: str, messages: Mapping[str, Mapping[str, Json]]
) -> list[list[Message]]:
    """Split messages, {user_id: {device_id or "*": content}}, into parts for one transaction each.

    There is at least one part. Unknown devices and users of other servers are ignored. Raises
    M_TOO_LARGE for too many devices.
    """
    found: list[list[Message]] = [[]]
    count = total = bytes_of_part = 0
    for recipient, content in tx.pausing(_by_recipient(tx, messages), PUT_AT_ONCE):
        event = {"content": content, "sender": sender, "type": event_type}
        encoded = orjson.dumps(event).decode()
        count, total = count + 1, total + len(encoded)
        if count > MAX_MESSAGES:
            raise errors.too_large(f"A request has at most {MAX_MESSAGES} messages")
        if total > MAX_TOTAL_BYTES:
            raise errors.too_large(f"Messages may have at most {MAX_TOTAL_BYTES} bytes")
        if len(found[-1]) >= PUT_AT_ONCE or bytes_of_part > PUT_BYTES_AT_ONCE:
            found.append([])
            bytes_of_part = 0
        found[-1].append((recipient, encoded))
        bytes_of_part += len(encoded)
    return found


def send(
    tx: Tx,
    requester: Requester,
    event_type: str,
    txn_id: str,
    part: list[Message],
    *,
    is_last: bool,
) -> None:
    """Store one part of the messages of a request.

    Does nothing if the request was completed before, which is recorded with the last part. If a
    client repeats it after a crash in between, some messages arrive twice, but none is lost. Raises
    M_INVALID_PARAM for a long type or transaction ID.
    """
    if not all(map(identifiers.has_at_most_255_bytes, (event_type, txn_id))):
        raise errors.invalid_param("Event type and transaction ID may have at most 255 bytes")
    if is_last:
        is_new = _begin(tx, _transaction(requester, event_type, txn_id))
    else:
        is_new = not is_done(tx, requester, event_type, txn_id)
    if is_new:
        store(tx, GUESTS if requester.is_guest else requester.user_id, part)


def is_done(tx: Reader, requester: Requester, event_type: str, txn_id: str) -> bool:
    """Return whether the request was completed before."""
    transaction = _transaction(requester, event_type, txn_id)
    return tx.sql.execute(_DONE, transaction).first() is not None


def store(tx: Tx, source: str, part: list[Message]) -> None:
    """Store messages for those devices that still exist; `source` has a share of each inbox."""
    existing = set(_devices(tx, {user_id for (user_id, _), _ in part}))  # not removed
    events = bridged_devices.take_messages(tx, [it for it in part if it[0] in existing])
    if events:
        _put(tx, source, events)


def after(tx: Reader, user_id: str, device_id: str, token: int) -> Messages:
    """Return the oldest messages that a device with this token has not received."""
    if _inbox(tx, user_id, device_id).count == 0:
        return NONE
    values = {
        "user_id": user_id,
        "device_id": device_id,
        "seen": _seen(tx, user_id, device_id, token),
        "count": AT_ONCE + 1,
    }
    rows = tx.sql.execute(_AFTER, values).all()
    shown = rows[:AT_ONCE]
    events = [orjson.Fragment(row.event) for row in shown]
    return Messages(events, shown[-1].position if len(rows) > AT_ONCE else None)


def note_truncated(tx: Tx, user_id: str, device_id: str, token: int, last_message: int) -> None:
    """Record that the response with this token only had messages up to `last_message`."""
    row = {"user_id": user_id, "device_id": device_id, "token": token}
    tx.sql.execute(_NOTE_TRUNCATED, {**row, "last_message": last_message})


def has_acknowledged_messages(tx: Reader, user_id: str, device_id: str, token: int) -> bool:
    """Return whether there are stored messages that the device has received."""
    if token == 0 or _inbox(tx, user_id, device_id).count == 0:
        return False
    first = tx.sql.execute(_FIRST, {"user_id": user_id, "device_id": device_id}).scalar()
    return first is not None and first <= _seen(tx, user_id, device_id, token)


def acknowledge_if_possible(db: Database, user_id: str, device_id: str, token: int) -> None:
    """Delete received messages if the database is writable, as /sync must work on a full disk.

    Otherwise they are deleted with a later token; the device does not receive them again.
    """
    try:
        with db.write() as tx:
            acknowledge(tx, user_id, device_id, token)
    except MatrixError as problem:
        LOG.warning("could not delete the messages received by device %s: %s", device_id, problem)


def acknowledge(tx: Tx, user_id: str, device_id: str, token: int) -> None:
    """Delete messages that the device has received.

    At most DROPPED_AT_ONCE are deleted; the rest follow with the next requests.
    """
    _drop_first(tx, user_id, device_id, _seen(tx, user_id, device_id, token))
    tx.sql.execute(
        delete(PartialSync).where(
            PartialSync.user_id == user_id,
            PartialSync.device_id == device_id,
            PartialSync.token < token,
        )
    )


def empty(db: Database, user_id: str, device_ids: Collection[str]) -> None:
    """Delete most messages of devices that are about to be removed, in several transactions.

    `remove` deletes the rest. For a full inbox it alone would block other writers for seconds.
    """
    for device_id in device_ids:
        with db.read() as reading:
            waiting = _inbox(reading, user_id, device_id).count
        for _ in range(waiting // DROPPED_AT_ONCE):
            with db.write() as tx:
                _drop_first(tx, user_id, device_id, tx.position)


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Delete the messages and transaction IDs of removed devices."""
    for table in (ToDeviceMessage, PartialSync, ToDeviceTransaction):
        tx.sql.execute(
            delete(table).where(table.user_id == user_id, table.device_id.in_(device_ids))
        )
    for device_id in device_ids:
        tx.forget(INBOXES, (user_id, device_id))


def _transaction(requester: Requester, event_type: str, txn_id: str) -> Json:
    return {
        "user_id": requester.user_id,
        "device_id": requester.device_id,
        "event_type": event_type,
        "txn_id": txn_id,
    }


def _begin(tx: Tx, transaction: Json) -> bool:
    """Record the request; return False if it was recorded before."""
    # two for each new one, so that those of a flood aren't deleted in one transaction a day later
    tx.sql.execute(_DELETE_OLD, {"before": tx.now_ms - TRANSACTIONS_KEPT_MS, "count": 2})
    return tx.sql.execute(_BEGIN, transaction | {"ts": tx.now_ms}).rowcount == 1


def _by_recipient(
    tx: Reader, messages: Mapping[str, Mapping[str, Json]]
) -> Iterator[tuple[Recipient, Json]]:
    """Yield each message with an existing device."""
    for user_id, device_id in _devices(tx, messages):
        of_user = messages[user_id]
        content = of_user.get(device_id, of_user.get(ALL_DEVICES))
        if content is not None:
            yield (user_id, device_id), content


def _devices(tx: Reader, user_ids: Collection[str]) -> Iterator[Recipient]:
    """Yield the devices of these users."""
    for some in batches(user_ids, _USERS_AT_ONCE):
        yield from map(tuple, tx.sql.execute(_DEVICES, {"user_ids": some}))


def _put(tx: Tx, source: str, events: list[Message]) -> None:
    rows = []
    inboxes = _inboxes(tx, [recipient for recipient, _ in events])
    for recipient, event in events:
        user_id, device_id = recipient
        row = {"position": tx.next_position(), "user_id": user_id, "device_id": device_id}
        rows.append(row | {"event": event, "source": _source_of(source, event)})
        inboxes[recipient] = Inbox(inboxes[recipient].count + 1, tx.position)
    tx.sql.execute(_INSERT, rows)
    for recipient, event in events:
        most = MAX_LARGE_FROM_ONE if len(event) > LARGE_BYTES else MAX_FROM_ONE
        _enforce_limits(tx, recipient, inboxes[recipient], _source_of(source, event), most)
    tx.wake(*{user_id for user_id, _ in inboxes})


def _source_of(source: str, event: str) -> str:
    """Return the source whose limit applies to a message."""
    return f"large {source}" if len(event) > LARGE_BYTES else source


def _enforce_limits(tx: Tx, recipient: Recipient, inbox: Inbox, source: str, most: int) -> None:
    """Drop messages over the limits and cache the number of messages.

    At most `most` are kept from the source. If the inbox is still full, the oldest messages of the
    source with the most messages are dropped.
    """
    count = inbox.count
    device = dict(zip(("user_id", "device_id"), recipient, strict=True))
    if count > most:
        own = tx.sql.execute(_FROM_SOURCE, {**device, "source": source}).scalar_one()
        count -= _drop_oldest(tx, device, source, own - most)
    while count > MAX_WAITING:
        largest, number = tx.sql.execute(_LARGEST_SOURCE, device).one()
        count -= _drop_oldest(tx, device, largest, min(count - MAX_WAITING, number))
    tx.remember(INBOXES, recipient, Inbox(count, inbox.newest))


def _drop_first(tx: Tx, user_id: str, device_id: str, upto: int) -> None:
    """Delete the oldest messages of a device up to a position."""
    before = _inbox(tx, user_id, device_id)
    device = {"user_id": user_id, "device_id": device_id}
    values = {**device, "upto": upto, "count": DROPPED_AT_ONCE}
    positions = list(tx.sql.execute(_OLDEST, values).scalars())
    tx.sql.execute(delete(ToDeviceMessage).where(ToDeviceMessage.position.in_(positions)))
    left = before.count - len(positions)
    tx.remember(INBOXES, (user_id, device_id), Inbox(left, before.newest if left else 0))


def _drop_oldest(tx: Tx, device: Json, source: str, count: int) -> int:
    """Delete the oldest `count` messages of a source and return how many were deleted."""
    if count <= 0:
        return 0
    values = {**device, "source": source, "count": count}
    positions = list(tx.sql.execute(_OLDEST_OF_SOURCE, values).scalars())
    tx.sql.execute(delete(ToDeviceMessage).where(ToDeviceMessage.position.in_(positions)))
    return len(positions)


def _inboxes(tx: Reader, recipients: Collection[Recipient]) -> dict[Recipient, Inbox]:
    """Return the inboxes of these devices."""
    known = {recipient: tx.cached(INBOXES, recipient) for recipient in recipients}
    users = {user_id for (user_id, _), inbox in known.items() if inbox is None}
    found: dict[Recipient, Inbox] = {}
    for some in batches(users, _USERS_AT_ONCE):
        rows = tx.sql.execute(_INBOXES, {"user_ids": some})
        for user_id, device_id, count, newest in rows:
            found[user_id, device_id] = Inbox(count, newest)
    return {
        recipient: inbox or found.get(recipient) or Inbox(0, 0)
        for recipient, inbox in known.items()
    }


def _inbox(tx: Reader, user_id: str, device_id: str) -> Inbox:
    """Return the inbox of a device."""
    found = tx.cached(INBOXES, (user_id, device_id))
    if found is None:
        device = {"user_id": user_id, "device_id": device_id}
        found = Inbox(*tx.sql.execute(_INBOX, device).one())
        tx.fill(INBOXES, (user_id, device_id), found)
    return found


def _seen(tx: Reader, user_id: str, device_id: str, token: int) -> int:
    """Return the position of the last message acknowledged by a token."""
    values = {"user_id": user_id, "device_id": device_id, "token": token}
    cut: int | None = tx.sql.execute(_TRUNCATED, values).scalar()
    return token if cut is None else cut
