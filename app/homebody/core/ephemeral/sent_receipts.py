"""The receipts of local users, sent to the other servers in the room.

When many users read a message at once, each receipt would make a request to each server. So those
of a room are sent together, once per second at most. Receipts that were not sent yet are lost by a
restart: the next one of the user covers them.

Spec: server-server-api#receipts
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

from homebody.core.ephemeral.timers import Timers
from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.database import Database

INTERVAL_MS: Final = 1_000
_EDU: Final = "m.receipt"


class PublicReceipt(NamedTuple):
    """A receipt of the type m.read."""

    room_id: str
    user_id: str
    thread_id: str | None
    event_id: str
    ts: int


class SentReceipts:
    """The receipts that have yet to be sent, by room."""

    def __init__(self, db: Database, timers: Timers) -> None:
        self._db = db
        self._timers = timers
        self._lock = threading.Lock()
        self._unsent: dict[str, dict[tuple[str, str | None], PublicReceipt]] = {}
        """{room_id: {(user_id, thread_id): the last receipt}} of rooms for which there is a timer,
        which are those where one was sent within INTERVAL_MS as well."""

    def add(self, receipt: PublicReceipt) -> None:
        """Have a receipt sent soon, in place of an older one that it covers."""
        if not self._db.server.config.federation:
            return
        with self._lock:
            is_first = receipt.room_id not in self._unsent
            of_room = self._unsent.setdefault(receipt.room_id, {})
            of_room[receipt.user_id, receipt.thread_id] = receipt
        if is_first:  # by a timer, so that the client's request does not wait for it
            self._call_at(self._timers.now_ms(), receipt.room_id)

    def _call_at(self, due_ms: int, room_id: str) -> None:
        self._timers.call_at(due_ms, lambda: self._send(room_id))

    def _send(self, room_id: str) -> None:
        with self._lock:
            receipts = self._unsent[room_id]
            if not receipts:
                del self._unsent[room_id]
                return
            self._unsent[room_id] = {}
        self._call_at(self._timers.now_ms() + INTERVAL_MS, room_id)
        with self._db.read() as tx:
            servers = state.joined(tx, room_id).servers.keys() - {tx.server.name}
        if servers:
            for key, receipt in receipts.items():
                self._db.send_edu(servers, _EDU, (room_id, *key), _content(receipt))


def _content(receipt: PublicReceipt) -> Json:
    data: Json = {"ts": receipt.ts}
    if receipt.thread_id is not None:
        data["thread_id"] = receipt.thread_id
    entry = {"event_ids": [receipt.event_id], "data": data}
    return {receipt.room_id: {"m.read": {receipt.user_id: entry}}}
