"""EDUs of other servers: what passes by, beside the events of rooms.

What is malformed, or about users of another server than the sender, is dropped alone. An EDU never
makes a transaction fail, except when the database can't be written: then all of it comes again.

Spec: server-server-api#edus
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from homebody.core import partial_rooms
from homebody.core.encryption import remote_devices, to_device_edus
from homebody.core.ephemeral import receipts, remote_presence, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.events import state
from homebody.core.federation import server_acls
from homebody.core.federation.device_resync import DeviceResync
from homebody.errors import MatrixError
from homebody.runtime import event_loop
from homebody.spec import edus
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

RECEIPTS_PER_WRITE: Final = 50
RETRIES_MS: Final = (2_000, 10_000, 60_000)
"""When receipts are looked at again whose event is not known."""
MAX_WAITING_RECEIPTS: Final = 1_000
_Wait = Callable[[], None]
"""Waits until what was written is on the disk: one COMMIT may be that of all EDUs."""


class Edus:
    """Takes in the EDUs of other servers.

    Its methods wait for COMMITs, so none may run inside a transaction.
    """

    def __init__(self, db: Database, ephemeral: Ephemeral, resync: DeviceResync) -> None:
        self._db = db
        self._ephemeral = ephemeral
        self._resync = resync
        self._waiting_receipts = 0
        self._by_type: dict[str, Callable[[str, Json], _Wait | None]] = {
            "m.typing": self._typing,
            "m.presence": self._presence,
            "m.receipt": self._receipts,
            "m.direct_to_device": self._direct_to_device,
            "m.device_list_update": self._device_list_update,
            "m.signing_key_update": self._signing_key_update,
            "org.matrix.signing_key_update": self._signing_key_update,  # Synapse sends both
        }

    def receive(self, origin: str, received: Sequence[Any]) -> None:
        """Take in the EDUs of a transaction, in their order.

        Raises 503 M_UNKNOWN if the database can't be written.
        """
        self._resync.heard_from(origin)
        waits: list[_Wait] = []
        for edu in received:
            found = edus.type_and_content(edu)
            take_in = None if found is None else self._by_type.get(found[0])
            if found is None or take_in is None:
                continue
            self._db.server.metrics.edus_received[found[0]] += 1
            try:
                wait = take_in(origin, found[1])
            except MatrixError as problem:
                if problem.status >= 500:
                    raise
                LOG.info("dropped an EDU %s from %s: %s", found[0], origin, problem)
            except Exception:
                LOG.exception("dropped an EDU %s from %s", found[0], origin)
            else:
                waits += [] if wait is None else [wait]
                event_loop.pause()
        for wait_for_commit in waits:
            wait_for_commit()

    def _typing(self, origin: str, content: Json) -> None:
        it = edus.typing(content, origin)
        if it is None:
            return
        with self._db.read() as tx:
            if not _may_send(tx, origin, it.room_id, it.user_id):
                return
        if it.is_typing:
            typing.start(self._ephemeral, it.room_id, it.user_id, typing.REMOTE_MS)
        else:
            typing.stop(self._ephemeral, it.room_id, it.user_id)

    def _presence(self, origin: str, content: Json) -> None:
        received = edus.presence(content, origin)
        remote_presence.receive(self._db, self._ephemeral, received)

    def _receipts(self, origin: str, content: Json) -> _Wait | None:
        wait: _Wait | None = None
        for some in batches(edus.receipts(content, origin), RECEIPTS_PER_WRITE):
            early, wait = self._receive_receipts(origin, some)
            self._retry(origin, early, RETRIES_MS)
            event_loop.pause()  # an EDU may have a hundred thousand
        return wait

    def _receive_receipts(
        self, origin: str, some: Sequence[edus.Receipt]
    ) -> tuple[list[edus.Receipt], _Wait]:
        """Record receipts; return those whose event is not known yet, and what waits for them."""
        early: list[edus.Receipt] = []
        with self._db.write(is_awaited=False) as tx:
            for it in some:
                if not _may_send(tx, origin, it.room_id, it.user_id):
                    continue
                with suppress(MatrixError):  # such as for another thread
                    if not receipts.receive(tx, it):
                        early.append(it)
        return early, tx.wait_for_commit

    def _retry(self, origin: str, early: list[edus.Receipt], waits_ms: Sequence[int]) -> None:
        """Look for the events of receipts later: another server may have yet to send them."""
        if not early or not waits_ms or self._waiting_receipts + len(early) > MAX_WAITING_RECEIPTS:
            return

        def retry() -> None:
            self._waiting_receipts -= len(early)
            still_early, _ = self._receive_receipts(origin, early)
            self._retry(origin, still_early, waits_ms[1:])

        self._waiting_receipts += len(early)
        self._ephemeral.timers.call_at(self._ephemeral.now_ms + waits_ms[0], retry)

    def _direct_to_device(self, origin: str, content: Json) -> _Wait | None:
        message = edus.direct_to_device(content, origin)
        return None if message is None else to_device_edus.receive(self._db, origin, message)

    def _device_list_update(self, origin: str, content: Json) -> _Wait | None:
        change = edus.device_list_update(content, origin)
        if change is None:
            return None
        user_id = change.user_id
        with self._db.write(is_awaited=False) as tx:
            if remote_devices.update_device(tx, change):
                tx.after_commit(lambda: self._resync.note(user_id))
        return tx.wait_for_commit

    def _signing_key_update(self, origin: str, content: Json) -> _Wait | None:
        change = edus.signing_key_update(content, origin)
        if change is None:
            return None
        with self._db.write(is_awaited=False) as tx:
            remote_devices.update_signing_keys(tx, change)
        return tx.wait_for_commit


def _may_send(tx: Reader, origin: str, room_id: str, user_id: str) -> bool:
    """Return whether a user of a server is in a room with local users, and not shut out of it."""
    return (
        bool(state.joined(tx, room_id).local)
        and (state.is_joined(tx, room_id, user_id) or _may_be_there(tx, origin, room_id, user_id))
        and server_acls.allows(tx, room_id, origin)
    )


def _may_be_there(tx: Reader, origin: str, room_id: str, user_id: str) -> bool:
    """Return whether a user may be a member of a partial room who is not known yet."""
    return (
        origin in partial_rooms.servers_in_room(tx, room_id)
        and state.membership_of(tx, room_id, user_id) is None
    )
