"""EDUs of other servers: what passes by, beside the events of rooms.

What is malformed, or about users of another server than the sender, is dropped alone. An EDU never
makes a transaction fail, except when the database can't be written: then all of it comes again.

Spec: server-server-api#edus
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from homebody.core.encryption import remote_devices, to_device_edus
from homebody.core.federation.device_resync import DeviceResync
from homebody.errors import MatrixError
from homebody.spec import edus
from homebody.spec.events import Json
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)


class Edus:
    """Takes in the EDUs of other servers.

    Its methods wait for COMMITs, so none may run inside a transaction.
    """

    def __init__(self, db: Database, resync: DeviceResync) -> None:
        self._db = db
        self._resync = resync
        self._by_type: dict[str, Callable[[str, Json], None]] = {
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
        for edu in received:
            found = edus.type_and_content(edu)
            take_in = None if found is None else self._by_type.get(found[0])
            if found is None or take_in is None:
                continue
            try:
                take_in(origin, found[1])
            except MatrixError as problem:
                if problem.status >= 500:
                    raise
                LOG.info("dropped an EDU %s from %s: %s", found[0], origin, problem)
            except Exception:
                LOG.exception("dropped an EDU %s from %s", found[0], origin)

    def _direct_to_device(self, origin: str, content: Json) -> None:
        message = edus.direct_to_device(content, origin)
        if message is not None:
            to_device_edus.receive(self._db, origin, message)

    def _device_list_update(self, origin: str, content: Json) -> None:
        change = edus.device_list_update(content, origin)
        if change is None:
            return
        with self._db.write() as tx:
            is_stale = remote_devices.update_device(tx, change)
        if is_stale:
            self._resync.note(change.user_id)

    def _signing_key_update(self, origin: str, content: Json) -> None:
        change = edus.signing_key_update(content, origin)
        if change is not None:
            with self._db.write() as tx:
                remote_devices.update_signing_keys(tx, change)
