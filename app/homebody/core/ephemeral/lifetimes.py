"""How long typing and presence last: no longer than the membership or the session behind them.

Both live in memory and would otherwise go on until their time is over. The database calls
`departed` after the COMMIT of a leave, a kick, a ban or a logout, and before it wakes the waiting
requests, so that those see the change. It is called where nothing may wait for another write: what
application services hear of it is left to a timer.
Spec: client-server-api#typing-notifications, client-server-api#presence
"""

from __future__ import annotations

from collections.abc import Collection

from homebody.core.ephemeral import presence, shown_presence, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.events import state
from homebody.core.sessions import devices
from homebody.storage.database import Database, Wake


def start(database: Database, wake: Wake) -> Ephemeral:
    """Return what is kept in memory of typing and presence, for a server that starts."""
    ephemeral = Ephemeral(database, wake)
    shown_presence.restore(database, ephemeral)
    shown_presence.keep(database, ephemeral)
    follow(database, ephemeral)
    return ephemeral


def follow(database: Database, ephemeral: Ephemeral) -> None:
    """Let typing and presence end with memberships and sessions from now on."""

    def departed(user_id: str, room_id: str, device_ids: Collection[str]) -> None:
        if not user_id:
            _look_for_departed(database, ephemeral)
            return
        if room_id:
            typing.leave(ephemeral, room_id, user_id)
            return
        typing.log_out(ephemeral, user_id, device_ids)
        presence.log_out(ephemeral, user_id, device_ids)

    database.departed = departed


def _look_for_departed(database: Database, ephemeral: Ephemeral) -> None:
    """Let typing end of users whom the command line has removed from a room, or logged out."""
    with database.read() as tx:
        gone = [
            (room_id, user_id)
            for room_id, user_id, device_id in typing.all_typing(ephemeral)
            if not state.is_joined(tx, room_id, user_id)
            or (device_id and device_id not in devices.ids(tx, user_id))
        ]
    for room_id, user_id in gone:
        typing.stop(ephemeral, room_id, user_id)
