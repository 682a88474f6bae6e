"""Server notices: messages of the server to its users, in a room for each user.

The sender is an account without a password, which the configuration names. Users are invited and
need not join, but can't reject the invite, which membership.py prevents. This module alone writes
the table server_notice_rooms.
Spec: client-server-api#server-notices
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, insert, select

from homebody import errors
from homebody.core.accounts import accounts
from homebody.core.events import state
from homebody.core.rooms import creation, membership
from homebody.core.sessions import registration
from homebody.core.timeline import sending
from homebody.core.user_data import account_data
from homebody.models.moderation import ServerNoticeRoom
from homebody.storage.database import Tx

TAG: Final = "m.server_notice"
NAME: Final = "Server notices"
TOPIC: Final = "Messages from the administrators of this server"


def send(tx: Tx, user_id: str, text: str) -> str:
    """Send a notice to a user, and return the event ID.

    Raises M_NOT_FOUND where the configuration names no sender, and for unknown users.
    """
    sender = _sender(tx)
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found(f"There is no user {user_id}")
    room_id = _room(tx, sender, user_id)
    content = {
        "msgtype": "m.server_notice",
        "body": text,
        # "required", but the only type in the specification is for usage limits
        "server_notice_type": "homebody.notice",
    }
    return sending.send(tx, sending.Draft(room_id, sender, "m.room.message", content))


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the record of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(ServerNoticeRoom).where(ServerNoticeRoom.room_id == room_id))


def _sender(tx: Tx) -> str:
    """Return the user ID of the sender, whose account is created if necessary."""
    localpart = tx.server.config.server_notices_user
    if localpart is None:
        raise errors.not_found("server_notices_user is not set in the configuration")
    user_id = f"@{localpart}:{tx.server.name}"
    if accounts.find(tx, user_id) is None:
        registration.create(tx, user_id, None)
    return user_id


def _room(tx: Tx, sender: str, user_id: str) -> str:
    """Return the room for the user's notices, which they have joined or are invited to."""
    room = select(ServerNoticeRoom.room_id).where(ServerNoticeRoom.user_id == user_id)
    known = tx.sql.execute(room).scalar()
    if known is None or not state.is_joined(tx, known, sender):
        return _create(tx, sender, user_id)
    if state.membership_of(tx, known, user_id) not in {"join", "invite"}:
        membership.change(tx, known, sender, user_id, "invite")
    return str(known)


def _create(tx: Tx, sender: str, user_id: str) -> str:
    options = creation.RoomOptions(
        preset="private_chat",
        version=creation.version_named(tx.server.config.default_room_version),
        name=NAME,
        topic=TOPIC,
        invite=[user_id],
        # nobody reads replies, and no other user may join
        power_levels={"events_default": 50, "invite": 50},
    )
    room_id, _ = creation.create_room(tx, sender, options)
    tx.sql.execute(delete(ServerNoticeRoom).where(ServerNoticeRoom.user_id == user_id))
    tx.sql.execute(insert(ServerNoticeRoom), {"user_id": user_id, "room_id": room_id})
    account_data.put_tag(tx, user_id, room_id, TAG, {})
    return room_id
