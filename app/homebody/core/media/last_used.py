"""When files of this server were last downloaded, to the day.

Downloads only note it in memory, once a day for each file; background/upkeep.py has it written.
What a crash loses is a file's use of the last minute. The table media is written by this module
(its column last_used_ts), store.py and deletion.py.
"""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import bindparam, update

from homebody.models.media import Media
from homebody.storage.database import Database
from homebody.storage.expressions import batches

DAY_MS: Final = 86_400_000
MAX_NOTED: Final = 20_000
"""Files that are known to have been used today; above that all are noted again."""
_AT_ONCE: Final = 500

_WRITE = (
    update(Media)
    .where(Media.origin == bindparam("its_origin"), Media.media_id == bindparam("its_id"))
    .values(last_used_ts=bindparam("used_ts"))
)


class LastUsed:
    """Downloads that are not in the database yet."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._day = 0
        self._noted: set[str] = set()
        """Files whose use on this day is written, or will be."""
        self._new: dict[str, int] = {}

    def note(self, media_id: str) -> None:
        """Note that a file is being used."""
        now_ms = time.time_ns() // 1_000_000
        if now_ms // DAY_MS != self._day or len(self._noted) >= MAX_NOTED:
            self._day = now_ms // DAY_MS
            self._noted.clear()
        if media_id not in self._noted:
            self._noted.add(media_id)
            self._new[media_id] = now_ms

    def write(self) -> None:
        """Write what is new to the database. Raises 503 if it can't be written now."""
        for some in batches(list(self._new.items()), _AT_ONCE):
            with self._db.write() as tx:
                rows = [
                    {"its_origin": tx.server.name, "its_id": media_id, "used_ts": ts}
                    for media_id, ts in some
                ]
                tx.sql.execute(_WRITE, rows)
            for media_id, _ in some:
                self._new.pop(media_id, None)
