"""The rooms that users join when they have registered."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from homebody.core import audit
from homebody.core.rooms import aliases, ordered_joins
from homebody.errors import MatrixError
from homebody.storage.database import Database

LOG = logging.getLogger(__name__)


def join_rooms(db: Database, user_id: str, rooms: Sequence[str] | None = None) -> list[str]:
    """Join a new user to these rooms, by ID or alias, and return the IDs of those that let them in.

    By default the rooms are those of the setting `newcomer_rooms`. The account is there already,
    so a room that can't be joined is only logged.
    """
    joined = []
    for room in db.server.config.newcomer_rooms if rooms is None else rooms:
        try:
            with db.write() as tx:
                room_id = aliases.resolve(tx, room)
                ordered_joins.let_in(tx, audit.COMMAND_LINE, room_id, user_id)
        except MatrixError as problem:
            if problem.status >= 500:
                raise
            LOG.warning("%s could not join %s: %s", user_id, room, problem.message)
        else:
            joined.append(room_id)
    return joined
