"""Messages to devices of users of other servers, and from them.

Messages are sent by EDUs in the outbox, so that none is lost and their order is kept. Each has a
message ID that follows from the client's transaction: a server that gets one twice, as the request
was repeated after a crash, recognizes it. The ids that others send are remembered for that as well.

This module alone writes the table received_messages.
Spec: server-server-api#send-to-device-messaging
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import orjson
from sqlalchemy import bindparam, delete, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core import outgoing
from homebody.core.encryption import remote_devices, to_device
from homebody.models.to_device import ReceivedMessage
from homebody.spec import canonical_json, edus, identifiers
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Database, Tx

KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long ids are remembered, as servers repeat for days what was not accepted."""
MAX_EDU_BYTES: Final = 65_536
_OVERHEAD_BYTES: Final = 256
_EDU: Final = "m.direct_to_device"

Messages = Mapping[str, Mapping[str, Json]]
"""{user_id: {device_id or "*": content}}"""

_ADD = insert(ReceivedMessage).on_conflict_do_nothing()
_FIND = select(ReceivedMessage.ts).where(
    ReceivedMessage.origin == bindparam("origin"),
    ReceivedMessage.message_id == bindparam("message_id"),
)
_ID = tuple_(*ReceivedMessage.__table__.primary_key)
_DELETE_OLD = delete(ReceivedMessage).where(
    _ID.in_(
        select(*_ID.clauses)
        .where(ReceivedMessage.ts < bindparam("before"))
        .limit(bindparam("count"))
    )
)


def batches_of_edus(
    server_name: str, requester: Requester, event_type: str, txn_id: str, messages: Messages
) -> list[list[tuple[str, Json]]]:
    """Return (server, EDU) for the messages to users of other servers, for one transaction each.

    Raises M_BAD_JSON for content that can't be sent to other servers.
    """
    batches: list[list[tuple[str, Json]]] = []
    left_bytes = 0
    for server, of_server in _by_server(server_name, messages).items():
        for content in _split(requester.user_id, event_type, of_server):
            encoded = orjson.dumps(content["messages"])
            content["message_id"] = _message_id(requester, event_type, txn_id, server, encoded)
            left_bytes -= len(encoded)
            if left_bytes < 0:
                batches.append([])
                left_bytes = to_device.PUT_BYTES_AT_ONCE
            batches[-1].append((server, content))
    return batches


def send(
    tx: Tx, requester: Requester, event_type: str, txn_id: str, batch: list[tuple[str, Json]]
) -> None:
    """Send EDUs to their servers, unless the client's request was completed before."""
    if not to_device.is_done(tx, requester, event_type, txn_id):
        for server, content in batch:
            outgoing.send_edu(tx, [server], _EDU, content)


def receive(db: Database, origin: str, message: edus.ToDeviceMessages) -> Callable[[], None]:
    """Store the messages of an EDU for the devices of local users, once.

    Return what waits until they are on the disk. Raises M_TOO_LARGE for a message over the limit or
    too many.
    """
    local = {
        user_id: by_device
        for user_id, by_device in message.messages.items()
        if db.server.is_local(user_id)
    }
    to_device.check(local)
    key = {"origin": origin, "message_id": message.message_id}
    with db.read() as reading:
        parts = to_device.parts(reading, message.sender, message.type, local)
        # anyone can have a server with any number of users
        is_known = bool(remote_devices.sharing(reading, [message.sender]))
    source = message.sender if is_known else origin
    for number, part in enumerate(parts, start=1):
        with db.write(is_awaited=False) as tx:
            if tx.sql.execute(_FIND, key).first() is not None:
                break
            to_device.store(tx, source, part)
            if number == len(parts):
                _record(tx, key)
    return tx.wait_for_commit


def _record(tx: Tx, key: dict[str, str]) -> None:
    """Remember an id, and forget two old ones, so that a flood isn't forgotten all at once."""
    tx.sql.execute(_DELETE_OLD, {"before": tx.now_ms - KEPT_MS, "count": 2})
    tx.sql.execute(_ADD, {**key, "ts": tx.now_ms})


def _by_server(server_name: str, messages: Messages) -> dict[str, dict[str, Mapping[str, Json]]]:
    found: dict[str, dict[str, Mapping[str, Json]]] = {}
    for user_id, by_device in messages.items():
        server = identifiers.server_name(user_id)
        if server != server_name and by_device:
            try:
                canonical_json.check(by_device)
            except ValueError as problem:
                raise errors.bad_json(f"Other servers can't get this: {problem}") from None
            found.setdefault(server, {})[user_id] = by_device
    return found


def _split(sender: str, event_type: str, messages: Messages) -> Iterator[Json]:
    """Yield EDUs without message ID, of at most MAX_EDU_BYTES unless one message is larger."""
    free = MAX_EDU_BYTES - _OVERHEAD_BYTES - len(sender) - len(event_type)
    part: dict[str, dict[str, Json]] = {}
    left = free
    for user_id, by_device in messages.items():
        for device_id, content in by_device.items():
            size = len(orjson.dumps({user_id: {device_id: content}}))
            if part and size > left:
                yield {"sender": sender, "type": event_type, "messages": part}
                part, left = {}, free
            part.setdefault(user_id, {})[device_id] = content
            left -= size
    if part:
        yield {"sender": sender, "type": event_type, "messages": part}


def _message_id(
    requester: Requester, event_type: str, txn_id: str, server: str, encoded: bytes
) -> str:
    """Return an id that is the same for a repeated request, in 32 characters.

    It depends on the messages too, as some clients count their transactions from 1 at each start.
    """
    named = orjson.dumps([requester.user_id, requester.device_id, event_type, txn_id, server])
    return hashlib.sha256(named + encoded).hexdigest()[:32]
