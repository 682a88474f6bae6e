"""When and from where each device was last seen.

Every request changes that, and none may wait for the disk because of it. So it is kept in memory,
and all that is new is written together every few minutes; a crash loses those minutes.

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
    """What is not in the database yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._new: dict[tuple[str, str], Seen] = {}
        self._being_written: dict[tuple[str, str], Seen] = {}
        self._write_at = time.monotonic() + WRITE_EVERY_SECONDS

    def note(self, user_id: str, device_id: str, ip: str, user_agent: str) -> None:
        """Remember a request. Now and then start to write, without waiting for it."""
        self._new[user_id, device_id] = Seen(time.time_ns() // 1_000_000, ip, user_agent)
        if time.monotonic() >= self._write_at:
            self._write_at = time.monotonic() + WRITE_EVERY_SECONDS
            threading.Thread(target=self.write, daemon=True).start()

    def of(self, user_id: str, device_id: str) -> Seen | None:
        """The last request of a device, if it is not in the database yet."""
        key = (user_id, device_id)
        return self._new.get(key) or self._being_written.get(key)

    def write(self) -> None:
        """Bring the database up to date; also to be called when the server stops."""
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
        except MatrixError as error:  # a full disk: nobody's request should fail for this
            LOG.warning("when devices were last seen could not be written: %s", error)
        self._being_written = {}
