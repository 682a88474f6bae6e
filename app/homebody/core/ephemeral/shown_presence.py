"""The presence that was sent to others, saved for the next start of the server.

After a restart clients continue from their tokens, and still show the last presence of each user.
So users who were not offline are restored, and go offline by the usual timer unless their client
returns. Changes are written together SAVED_AFTER_MS later, as no request should wait for the disk
because of them; a crash loses the changes of that time.

This module alone writes the table shown_presence.
Spec: client-server-api#presence
"""

from __future__ import annotations

import logging
import time
from typing import Final

from sqlalchemy import bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody.core.ephemeral import presence
from homebody.core.ephemeral.ephemeral import Ephemeral, UserPresence
from homebody.errors import MatrixError
from homebody.models.presence import ShownPresence
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)

SAVED_AFTER_MS: Final = 500

_ALL = select(
    ShownPresence.user_id,
    ShownPresence.presence,
    ShownPresence.status_msg,
    ShownPresence.active_ts,
).limit(presence.MAX_USERS)
_INSERT = insert(ShownPresence)
_SET = _INSERT.on_conflict_do_update(
    index_elements=["user_id"],
    set_={name: _INSERT.excluded[name] for name in ("presence", "status_msg", "active_ts")},
)
_DROP = delete(ShownPresence).where(ShownPresence.user_id == bindparam("of_user"))


def restore(database: Database, ephemeral: Ephemeral) -> None:
    """Restore users who were online or unavailable when the server stopped."""
    if not ephemeral.has_presence:
        return
    with database.read() as tx:
        rows = tx.sql.execute(_ALL).all()
    for user_id, shown, status_msg, active_ts in rows:
        ago_ms = None if active_ts is None else max(0, _wall_ms() - active_ts)
        presence.restore(ephemeral, user_id, shown, status_msg, ago_ms)


def keep(database: Database, ephemeral: Ephemeral) -> None:
    """Save changes of presence from now on, and pending ones when the server stops."""

    def save() -> None:
        _save(database, ephemeral)

    ephemeral.save = save
    ephemeral.saved_after_ms = SAVED_AFTER_MS


def _save(database: Database, ephemeral: Ephemeral) -> None:
    with ephemeral.lock:
        user_ids, ephemeral.unsaved = ephemeral.unsaved, set()
        shown = [
            _row(ephemeral, user_id, ephemeral.presences[user_id])
            for user_id in user_ids & ephemeral.presences.keys()
            if ephemeral.presences[user_id].presence != "offline"
        ]
    if not user_ids:
        return
    gone = sorted(user_ids.difference(str(row["user_id"]) for row in shown))
    try:
        with database.write() as tx:
            if shown:
                tx.sql.execute(_SET, shown)
            if gone:
                tx.sql.execute(_DROP, [{"of_user": user_id} for user_id in gone])
    except MatrixError as error:  # a full disk: saved with the next change
        LOG.warning("could not save presence: %s", error)
        with ephemeral.lock:
            ephemeral.unsaved |= user_ids


def _row(ephemeral: Ephemeral, user_id: str, entry: UserPresence) -> dict[str, str | int | None]:
    active_ms = entry.active_ms
    return {
        "user_id": user_id,
        "presence": entry.presence,
        "status_msg": entry.status_msg,
        "active_ts": None if active_ms is None else _wall_ms() - (ephemeral.now_ms - active_ms),
    }


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000
