"""Messages of the server to its users, each in a room of its own.

The sender is an account of which nobody knows a password; the configuration names it. A user is
invited, and comes in or not; but the invite can't be rejected (membership.py sees to that).
This module alone writes the table server_notice_rooms.
Spec: client-server-api#server-notices
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.rooms import creation, membership
from homebody.core.sessions import registration
from homebody.core.timeline import sending
from homebody.core.user_data import account_data
from homebody.models.moderation import ServerNoticeRoom
from homebody.spec.events import Json
from homebody.storage.database import Tx

TAG: Final = "m.server_notice"
NAME: Final = "Server notices"
TOPIC: Final = "Messages from who runs this server"

_FIND = select(ServerNoticeRoom.room_id).where(ServerNoticeRoom.user_id == bindparam("user_id"))
_FORGET = delete(ServerNoticeRoom).where(ServerNoticeRoom.user_id == bindparam("of_user"))
_KEEP = insert(ServerNoticeRoom)
_REMOVE_ROOM = delete(ServerNoticeRoom).where(ServerNoticeRoom.room_id == bindparam("the_room"))


def send(tx: Tx, user_id: str, text: str) -> str:
    """The id of the event by which the server tells a user something.

    Raises M_NOT_FOUND where the configuration names no sender, and for who has no account here.
    """
    sender = _sender(tx)
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found(f"There is no user {user_id}")
    room_id = _room(tx, sender, user_id)
    content = {
        "msgtype": "m.server_notice",
        "body": text,
        # "required", but the only type that the specification knows is about limits
        "server_notice_type": "homebody.notice",
    }
    return sending.send(tx, sending.Draft(room_id, sender, "m.room.message", content))


def remove_room(tx: Tx, room_id: str) -> None:
    """Let nothing of a room be left here; called by rooms/purge.py alone."""
    tx.sql.execute(_REMOVE_ROOM, {"the_room": room_id})


def _sender(tx: Tx) -> str:
    """The user id of who writes notices; makes the account where there is none yet."""
    localpart = tx.server.config.server_notices_user
    if localpart is None:
        raise errors.not_found("server_notices_user is not set: nobody could write the notice")
    user_id = f"@{localpart}:{tx.server.name}"
    if accounts.find(tx, user_id) is None:
        registration.create(tx, user_id, None)
    return user_id


def _room(tx: Tx, sender: str, user_id: str) -> str:
    """The room for the user's notices, to which they are invited or in which they are."""
    known = tx.sql.execute(_FIND, {"user_id": user_id}).scalar()
    if known is None or not state.is_joined(tx, known, sender):
        return _make(tx, sender, user_id)
    if state.membership_of(tx, known, user_id) not in {"join", "invite"}:
        membership.change(tx, known, sender, user_id, "invite")
    return str(known)


def _make(tx: Tx, sender: str, user_id: str) -> str:
    options = creation.RoomOptions(
        preset="private_chat",
        version=creation.version_named(tx.server.config.default_room_version),
        name=NAME,
        topic=TOPIC,
        invite=[user_id],
        power_levels=_power_levels(),
    )
    room_id, _ = creation.create_room(tx, sender, options)
    tx.sql.execute(_FORGET, {"of_user": user_id})
    tx.sql.execute(_KEEP, {"user_id": user_id, "room_id": room_id})
    account_data.put_tag(tx, user_id, room_id, TAG, {})
    return room_id


def _power_levels() -> Json:
    """Nobody would read an answer, and nobody else shall come in."""
    return {"events_default": 50, "invite": 50}
