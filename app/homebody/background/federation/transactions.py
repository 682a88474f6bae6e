"""The body and the ID of a transaction for another server.

The ID names the events and the reliable EDUs in it, so the same ID always has the same content:
also after a crash, as both are read from the database again. Other EDUs are lost by a crash; they
add a number of this process to the ID.

Spec: server-server-api#transactions
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from homebody.spec import canonical_json

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100
MAX_BYTES: Final = 4 * 2**20
"""The size from which on nothing is added; proxies often refuse more than some MB."""

_started: Final = time.time_ns() // 1_000_000
_numbers: Final = itertools.count(1)


class Entry(NamedTuple):
    """An event to be sent."""

    position: int
    pdu: bytes


class ReliableEdu(NamedTuple):
    """An EDU of the outbox."""

    id: int
    """Of its row."""
    edu: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction, which is repeated unchanged until the server accepts it or fails for long."""

    txn_id: str
    body: bytes
    """In canonical JSON."""
    pdus: int
    edus: int
    upto: int = 0
    """The position up to which events are in it; 0 if there are none."""
    row_ids: Sequence[int] = ()
    """Of the reliable EDUs in the outbox."""


def encode_edu(edu_type: str, content: Any) -> bytes:
    """Return an EDU in canonical JSON."""
    return canonical_json.encode({"edu_type": edu_type, "content": content})


def fitting(parts: Sequence[bytes], left: int) -> int:
    """Return how many parts, from the first, have at most `left` bytes in all."""
    for count, part in enumerate(parts):
        left -= len(part)
        if left < 0:
            return count
    return len(parts)


def make(
    origin: str, events: Sequence[Entry], rows: Sequence[ReliableEdu], edus: Sequence[bytes]
) -> Transaction:
    """Return a transaction with these events, rows of the outbox, and other EDUs."""
    parts = []
    if events:
        parts.append(f"{events[0].position}-{events[-1].position}-{len(events)}")
    if rows:
        parts.append(f"e{rows[0].id}-{rows[-1].id}")
    if edus:
        parts.append(f"t{_started}-{next(_numbers)}")
    body = b'{"edus":[%b],"origin":%b,"origin_server_ts":%d,"pdus":[%b]}' % (
        b",".join((*(it.edu for it in rows), *edus)),
        canonical_json.encode(origin),
        time.time_ns() // 1_000_000,
        b",".join(entry.pdu for entry in events),
    )
    return Transaction(
        ".".join(parts),
        body,
        len(events),
        len(rows) + len(edus),
        events[-1].position if events else 0,
        [row.id for row in rows],
    )
