"""Messages from device to device: kept until the device has them, then gone.

A token acknowledges all messages up to its position, as /sync showed them with it or before. Only
an answer that could not hold all of them tells less than its position says; of such an answer the
table to_device_cut_answers notes up to which message it went.

Most devices have nothing waiting. How much there is, is kept in memory, so that a /sync asks the
database only for a device that has messages.

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
from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.errors import MatrixError
from homebody.models.devices import Device
from homebody.models.to_device import CutAnswer, ToDeviceMessage, ToDeviceTransaction
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.caches import CacheKind, Requester, declare
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

ALL_DEVICES: Final = "*"
MAX_BYTES: Final = 65536
"""Of the content of a message, as of an event."""
MAX_MESSAGES: Final = 10_000
"""In one request: a key for all devices in a large room, as bridges send it."""
MAX_WAITING: Final = 20_000
"""For one device."""
MAX_FROM_ONE: Final = 2_000
"""Of these from one sender, or from all guests together: keys of its rooms for a year or two. Of a
sender with more the oldest go, so that a flood pushes out nothing but itself."""
LARGE_BYTES: Final = 8192
"""Messages with more are counted apart: what clients send has about 2 KiB."""
MAX_LARGE_FROM_ONE: Final = 100
MAX_TOTAL_BYTES: Final = 32 * 2**20
"""Of one request, where "*" stands for many devices."""
GUESTS: Final = ""
AT_ONCE: Final = 100
"""In one answer, as the spec recommends."""
PUT_AT_ONCE: Final = 300
PUT_BYTES_AT_ONCE: Final = 2 * 2**20
"""In one write: for some 30 ms nobody else can write."""
DROPPED_AT_ONCE: Final = 200
"""In one write. SQLite takes half a millisecond for a large one."""
REMEMBERED_MS: Final = 24 * 3_600_000
"""How long a transaction id is known. Clients repeat a request within minutes."""
_USERS_AT_ONCE: Final = 500

Address = tuple[str, str]
"""(user_id, device_id)"""
Sent = tuple[Address, str]
"""A message for a device, encoded as /sync shows it."""


class Inbox:
    """What waits for a device."""

    __slots__ = ("count", "newest")

    def __init__(self, count: int, newest: int) -> None:
        self.count = count
        self.newest = newest
        """The position of the last message; 0 where there is none."""


INBOXES: CacheKind[Address, Inbox] = declare("inboxes", 1, lambda _: 100)

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
_FORGET = text(
    "DELETE FROM to_device_transactions WHERE rowid IN (SELECT rowid FROM to_device_transactions"
    " WHERE ts < :before LIMIT :count)"
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
_CUT = select(CutAnswer.last_message).where(
    CutAnswer.user_id == bindparam("user_id"),
    CutAnswer.device_id == bindparam("device_id"),
    CutAnswer.token == bindparam("token"),
)
_NOTE_CUT = insert(CutAnswer)
# Of two answers with the same token the one that went less far counts: better twice than never
_NOTE_CUT = _NOTE_CUT.on_conflict_do_update(
    index_elements=["user_id", "device_id", "token"],
    set_={"last_message": func.min(CutAnswer.last_message, _NOTE_CUT.excluded.last_message)},
)


@dataclass(frozen=True, slots=True)
class Messages:
    """What an answer of /sync brings to a device."""

    events: list[orjson.Fragment]
    cut_after: int | None = None
    """The position of the last one, if there are more."""


NONE: Final = Messages([])


def check(messages: Mapping[str, Mapping[str, Json]]) -> None:
    """Raises M_TOO_LARGE for a message over the limit, or too many."""
    contents = [content for of_user in messages.values() for content in of_user.values()]
    if max(len(contents), len(messages)) > MAX_MESSAGES:  # each user is looked for
        raise errors.too_large(f"A request has at most {MAX_MESSAGES} messages")
    if any(len(orjson.dumps(content)) > MAX_BYTES for content in contents):
        raise errors.too_large(f"A message has at most {MAX_BYTES} bytes")


def parts(
    tx: Reader, requester: Requester, event_type: str, messages: Mapping[str, Mapping[str, Json]]
) -> list[list[Sent]]:
    """Return checked messages, {user_id: {device_id or "*": content}}, in parts for one write each.

    There is at least one part. Devices that are unknown get nothing.
    Raises M_TOO_LARGE for too many devices.
    """
    found: list[list[Sent]] = [[]]
    count = total = bytes_of_part = 0
    for address, content in tx.breathing(_addressed(tx, messages), PUT_AT_ONCE):
        event = {"content": content, "sender": requester.user_id, "type": event_type}
        encoded = orjson.dumps(event).decode()
        count, total = count + 1, total + len(encoded)
        if count > MAX_MESSAGES:
            raise errors.too_large(f"A request has at most {MAX_MESSAGES} messages")
        if total > MAX_TOTAL_BYTES:
            raise errors.too_large(f"A request has messages of at most {MAX_TOTAL_BYTES} bytes")
        if len(found[-1]) >= PUT_AT_ONCE or bytes_of_part > PUT_BYTES_AT_ONCE:
            found.append([])
            bytes_of_part = 0
        found[-1].append((address, encoded))
        bytes_of_part += len(encoded)
    return found


def send(
    tx: Tx, requester: Requester, event_type: str, txn_id: str, part: list[Sent], *, is_last: bool
) -> None:
    """Put a part of the messages of a request into the devices' inboxes.

    Does nothing when the device has made this request before: it has when the last part is written.
    A client that repeats it after a crash in between has some messages arrive twice, but none lost.
    Raises M_INVALID_PARAM for a long type or transaction id.
    """
    if not all(map(identifiers.has_at_most_255_bytes, (event_type, txn_id))):
        raise errors.invalid_param("The type and the transaction id have at most 255 bytes")
    is_new = _begin if is_last else _is_new
    if not is_new(tx, requester, event_type, txn_id):
        return
    there = set(_devices(tx, {user_id for (user_id, _), _ in part}))  # some may have ended since
    events = [it for it in part if it[0] in there]
    if events:
        _put(tx, GUESTS if requester.is_guest else requester.user_id, events)


def after(tx: Reader, user_id: str, device_id: str, token: int) -> Messages:
    """The oldest messages that a device does not have, which shows a token; 0: it has none."""
    if _inbox(tx, user_id, device_id).count == 0:
        return NONE
    asked = {
        "user_id": user_id,
        "device_id": device_id,
        "seen": _seen(tx, user_id, device_id, token),
        "count": AT_ONCE + 1,
    }
    rows = tx.sql.execute(_AFTER, asked).all()
    shown = rows[:AT_ONCE]
    events = [orjson.Fragment(row.event) for row in shown]
    return Messages(events, shown[-1].position if len(rows) > AT_ONCE else None)


def note_cut(tx: Tx, user_id: str, device_id: str, token: int, last_message: int) -> None:
    """Remember that the answer with this token ended with that message, and did not hold all."""
    row = {"user_id": user_id, "device_id": device_id, "token": token}
    tx.sql.execute(_NOTE_CUT, {**row, "last_message": last_message})


def is_to_acknowledge(tx: Reader, user_id: str, device_id: str, token: int) -> bool:
    """Whether messages are kept that the device has received, as its token says."""
    if token == 0 or _inbox(tx, user_id, device_id).count == 0:
        return False
    first = tx.sql.execute(_FIRST, {"user_id": user_id, "device_id": device_id}).scalar()
    return first is not None and first <= _seen(tx, user_id, device_id, token)


def acknowledge_if_possible(db: Database, user_id: str, device_id: str, token: int) -> None:
    """The same as below, unless nothing can be written now: /sync works on a full disk too.

    The messages don't come again, as the token is behind them, and go with a later one.
    """
    try:
        with db.write() as tx:
            acknowledge(tx, user_id, device_id, token)
    except MatrixError as problem:
        LOG.warning("messages that %s has got are kept for now: %s", device_id, problem)


def acknowledge(tx: Tx, user_id: str, device_id: str, token: int) -> None:
    """Drop the messages that the device has received, as its token says.

    Of many the oldest: the others go when the device comes again.
    """
    _drop_first(tx, user_id, device_id, _seen(tx, user_id, device_id, token))
    tx.sql.execute(
        delete(CutAnswer).where(
            CutAnswer.user_id == user_id, CutAnswer.device_id == device_id, CutAnswer.token < token
        )
    )


def empty(db: Database, user_id: str, device_ids: Collection[str]) -> None:
    """Drop most of what waits for devices that are about to end, some in each write.

    `remove` drops the rest. Of a full inbox it would take seconds, in which nobody else can write.
    """
    for device_id in device_ids:
        with db.read() as reading:
            waiting = _inbox(reading, user_id, device_id).count
        for _ in range(waiting // DROPPED_AT_ONCE):
            with db.write() as tx:
                _drop_first(tx, user_id, device_id, tx.position)


def remove(tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
    """Drop what waits for devices that are no more, and what they have sent as what."""
    tx.sql.execute(
        delete(ToDeviceMessage).where(
            ToDeviceMessage.user_id == user_id, ToDeviceMessage.device_id.in_(device_ids)
        )
    )
    tx.sql.execute(
        delete(CutAnswer).where(CutAnswer.user_id == user_id, CutAnswer.device_id.in_(device_ids))
    )
    tx.sql.execute(
        delete(ToDeviceTransaction).where(
            ToDeviceTransaction.user_id == user_id, ToDeviceTransaction.device_id.in_(device_ids)
        )
    )
    for device_id in device_ids:
        tx.forget(INBOXES, (user_id, device_id))


def _begin(tx: Tx, requester: Requester, event_type: str, txn_id: str) -> bool:
    """Whether the device makes this request for the first time."""
    row = {
        "user_id": requester.user_id,
        "device_id": requester.device_id,
        "event_type": event_type,
        "txn_id": txn_id,
        "ts": tx.now_ms,
    }
    # two for each that comes, so that those of a flood don't all go in one write a day later
    tx.sql.execute(_FORGET, {"before": tx.now_ms - REMEMBERED_MS, "count": 2})
    return tx.sql.execute(_BEGIN, row).rowcount == 1


def _is_new(tx: Reader, requester: Requester, event_type: str, txn_id: str) -> bool:
    """Return whether the device has not made this request yet."""
    known = {
        "user_id": requester.user_id,
        "device_id": requester.device_id,
        "event_type": event_type,
        "txn_id": txn_id,
    }
    return tx.sql.execute(_DONE, known).first() is None


def _addressed(
    tx: Reader, messages: Mapping[str, Mapping[str, Json]]
) -> Iterator[tuple[Address, Json]]:
    """Each message with one device that exists."""
    for user_id, device_id in _devices(tx, messages):
        of_user = messages[user_id]
        content = of_user.get(device_id, of_user.get(ALL_DEVICES))
        if content is not None:
            yield (user_id, device_id), content


def _devices(tx: Reader, user_ids: Collection[str]) -> Iterator[Address]:
    """Yield the devices of these users."""
    users = list(user_ids)
    for at in range(0, len(users), _USERS_AT_ONCE):
        asked = {"user_ids": users[at : at + _USERS_AT_ONCE]}
        yield from map(tuple, tx.sql.execute(_DEVICES, asked))


def _put(tx: Tx, source: str, events: list[Sent]) -> None:
    rows = []
    inboxes = _inboxes(tx, [address for address, _ in events])
    for address, event in events:
        user_id, device_id = address
        row = {"position": tx.next_position(), "user_id": user_id, "device_id": device_id}
        rows.append(row | {"event": event, "source": _share(source, event)})
        inboxes[address] = Inbox(inboxes[address].count + 1, tx.position)
    tx.sql.execute(_INSERT, rows)
    for address, event in events:
        most = MAX_LARGE_FROM_ONE if len(event) > LARGE_BYTES else MAX_FROM_ONE
        _keep_small(tx, address, inboxes[address], _share(source, event), most)
    tx.wake(*{user_id for user_id, _ in inboxes})


def _share(source: str, event: str) -> str:
    """Return from whose share of an inbox a message takes."""
    return f"large {source}" if len(event) > LARGE_BYTES else source


def _keep_small(tx: Tx, address: Address, inbox: Inbox, source: str, most: int) -> None:
    """Remember how much waits for a device, once that is not too much, and `most` from the source.

    Where the inbox is full all the same, the source that has most in it loses its oldest messages.
    """
    count = inbox.count
    device = dict(zip(("user_id", "device_id"), address, strict=True))
    if count > most:
        own = tx.sql.execute(_FROM_SOURCE, {**device, "source": source}).scalar_one()
        count -= _drop_oldest(tx, device, source, own - most)
    while count > MAX_WAITING:
        largest, number = tx.sql.execute(_LARGEST_SOURCE, device).one()
        count -= _drop_oldest(tx, device, largest, min(count - MAX_WAITING, number))
    tx.remember(INBOXES, address, Inbox(count, inbox.newest))


def _drop_first(tx: Tx, user_id: str, device_id: str, upto: int) -> None:
    """Drop the oldest messages for a device, up to a position."""
    before = _inbox(tx, user_id, device_id)
    device = {"user_id": user_id, "device_id": device_id}
    asked = {**device, "upto": upto, "count": DROPPED_AT_ONCE}
    positions = list(tx.sql.execute(_OLDEST, asked).scalars())
    tx.sql.execute(delete(ToDeviceMessage).where(ToDeviceMessage.position.in_(positions)))
    left = before.count - len(positions)
    tx.remember(INBOXES, (user_id, device_id), Inbox(left, before.newest if left else 0))


def _drop_oldest(tx: Tx, device: Json, source: str, count: int) -> int:
    """Drop so many messages of one source; how many that were."""
    if count <= 0:
        return 0
    asked = {**device, "source": source, "count": count}
    positions = list(tx.sql.execute(_OLDEST_OF_SOURCE, asked).scalars())
    tx.sql.execute(delete(ToDeviceMessage).where(ToDeviceMessage.position.in_(positions)))
    return len(positions)


def _inboxes(tx: Reader, addresses: Collection[Address]) -> dict[Address, Inbox]:
    """How much waits for each of these devices."""
    known = {address: tx.cached(INBOXES, address) for address in addresses}
    asked = list({user_id for (user_id, _), inbox in known.items() if inbox is None})
    found: dict[Address, Inbox] = {}
    for at in range(0, len(asked), _USERS_AT_ONCE):
        some = {"user_ids": asked[at : at + _USERS_AT_ONCE]}
        for user_id, device_id, count, newest in tx.sql.execute(_INBOXES, some):
            found[user_id, device_id] = Inbox(count, newest)
    return {address: inbox or found.get(address) or Inbox(0, 0) for address, inbox in known.items()}


def _inbox(tx: Reader, user_id: str, device_id: str) -> Inbox:
    """How much waits for a device."""
    found = tx.cached(INBOXES, (user_id, device_id))
    if found is None:
        device = {"user_id": user_id, "device_id": device_id}
        found = Inbox(*tx.sql.execute(_INBOX, device).one())
        tx.fill(INBOXES, (user_id, device_id), found)
    return found


def _seen(tx: Reader, user_id: str, device_id: str, token: int) -> int:
    """Up to which message the device has got all, as its token says."""
    asked = {"user_id": user_id, "device_id": device_id, "token": token}
    cut: int | None = tx.sql.execute(_CUT, asked).scalar()
    return token if cut is None else cut
