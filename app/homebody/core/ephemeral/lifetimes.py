"""The end of typing and presence when a user leaves a room or a device logs out.

Otherwise they would last until they time out. The database calls `departed` after the COMMIT of a
leave, a kick, a ban or a logout, and before it wakes waiting requests, so that those see the
change. No write is possible there: a timer notifies application services.
Spec: client-server-api#typing-notifications, client-server-api#presence
"""

from __future__ import annotations

from collections.abc import Collection

from homebody.core.ephemeral import presence, remote_presence, shown_presence, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.events import state
from homebody.core.sessions import devices
from homebody.storage.database import Database
from homebody.storage.writer import Wake


def start(database: Database, wake: Wake) -> Ephemeral:
    """Return the ephemeral data of a server that starts."""
    ephemeral = Ephemeral(database, wake)
    shown_presence.restore(database, ephemeral)
    shown_presence.keep(database, ephemeral)
    remote_presence.start(database, ephemeral)
    follow(database, ephemeral)
    return ephemeral


def follow(database: Database, ephemeral: Ephemeral) -> None:
    """End typing and presence with memberships and sessions from now on."""

    def departed(user_id: str, room_id: str, device_ids: Collection[str]) -> None:
        if not user_id:
            _check_typing(database, ephemeral)
            return
        if room_id:
            typing.stop(ephemeral, room_id, user_id, may_write=False)
            return
        typing.log_out(ephemeral, user_id, device_ids)
        presence.log_out(ephemeral, user_id, device_ids)

    database.departed = departed


def _check_typing(database: Database, ephemeral: Ephemeral) -> None:
    """End the typing of users whom the command line has removed from a room, or logged out."""
    with database.read() as tx:
        gone = [
            (room_id, user_id)
            for room_id, user_id, device_id in typing.all_typing(ephemeral)
            if not state.is_joined(tx, room_id, user_id)
            or (device_id and device_id not in devices.ids(tx, user_id))
        ]
    for room_id, user_id in gone:
        typing.stop(ephemeral, room_id, user_id)
