"""When and from which address each device was last seen.

Every request changes this and must not wait for the disk, so changes are kept in memory and
written together every few minutes; a crash loses those minutes.

Spec: client-server-api#device-management
"""

from __future__ import annotations

import logging
import threading
import time
from typing import NamedTuple

from sqlalchemy import bindparam, update

from homebody.errors import MatrixError
from homebody.models.devices import Device
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

WRITE_EVERY_SECONDS = 300.0

_WRITE = (
    update(Device)
    .where(Device.user_id == bindparam("of_user"), Device.device_id == bindparam("device"))
    .values(
        last_seen_ts=bindparam("ts"),
        last_seen_ip=bindparam("ip"),
        last_seen_user_agent=bindparam("user_agent"),
    )
)


class Seen(NamedTuple):
    """The last request of a device."""

    ts: int  # ms
    ip: str
    user_agent: str


class LastSeen:
    """Requests that are not in the database yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._new: dict[tuple[str, str], Seen] = {}
        self._being_written: dict[tuple[str, str], Seen] = {}
        self._write_at = time.monotonic() + WRITE_EVERY_SECONDS

    def note(self, user_id: str, device_id: str, ip: str, user_agent: str) -> None:
        """Record a request, and every WRITE_EVERY_SECONDS start writing in the background."""
        self._new[user_id, device_id] = Seen(time.time_ns() // 1_000_000, ip, user_agent)
        if time.monotonic() >= self._write_at:
            self._write_at = time.monotonic() + WRITE_EVERY_SECONDS
            threading.Thread(target=self.write, daemon=True).start()

    def of(self, user_id: str, device_id: str) -> Seen | None:
        """Return the last request of a device, if it is not in the database yet."""
        key = (user_id, device_id)
        return self._new.get(key) or self._being_written.get(key)

    def write(self) -> None:
        """Write what is new to the database; also called when the server stops."""
        if not self._new:
            return
        self._being_written, self._new = self._new, {}
        values = [
            {"of_user": key[0], "device": key[1], **seen._asdict()}
            for key, seen in self._being_written.items()
        ]
        try:
            with self._database.write() as tx:
                tx.sql.execute(_WRITE, values)
        except MatrixError as error:  # a full disk: no request should fail because of this
            LOG.warning("could not write when devices were last seen: %s", error)
        self._being_written = {}
