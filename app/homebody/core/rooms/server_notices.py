"""Server notices: messages of the server to its users, in a room for each user.

The sender is an account without a password, which the configuration names. Users are invited and
need not join, but can't reject the invite, which membership.py prevents. This module alone writes
the table server_notice_rooms.
Spec: client-server-api#server-notices
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, select

from homebody import errors
from homebody.core import audit
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
TOPIC: Final = "Messages from the administrators of this server"


@dataclass(frozen=True, slots=True)
class Notice:
    """An event for the room of a user's notices."""

    content: Json
    type: str = "m.room.message"
    state_key: str | None = None
    txn_id: str | None = None
    """Of notices of an administrator to a user that have the same one, only the first is sent."""


def text_notice(text: str, txn_id: str | None = None) -> Notice:
    """Return a message."""
    # "required", but the only type in the specification is for usage limits
    kind = {"server_notice_type": "homebody.notice"}
    return Notice({"msgtype": "m.server_notice", "body": text, **kind}, txn_id=txn_id)


def send(tx: Tx, actor: str, user_id: str, notice: Notice) -> str:
    """Send a notice to a user, and return the event ID.

    Raises M_UNKNOWN (400) where the configuration names no sender and for users of other servers,
    M_NOT_FOUND for unknown users.
    """
    event_id, is_new = send_unnoted(tx, actor, user_id, notice)
    if is_new:
        audit.note(tx, actor, "notice.send", user_id, event_id=event_id)
    return event_id


def send_unnoted(tx: Tx, actor: str, user_id: str, notice: Notice) -> tuple[str, bool]:
    """Do what `send` does without an entry of the audit log, and return whether it was new."""
    by = sender(tx)
    if not tx.server.is_local(user_id):
        raise errors.unknown("Notices can only be sent to users of this server")
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found(f"There is no user {user_id}")
    # two administrators may choose the same transaction ID
    txn_id = None if notice.txn_id is None else f"{actor} {notice.txn_id}"
    if txn_id is not None and (known := _known_room(tx, user_id)) is not None:
        sent = sending.sent_as(tx, known, by, notice.type, txn_id)
        if sent is not None:
            return sent, False
    draft = sending.Draft(
        _room(tx, by, user_id), by, notice.type, notice.content, notice.state_key, txn_id=txn_id
    )
    return sending.send(tx, draft), True


def sender(tx: Tx) -> str:
    """Return the user ID of the sender, whose account is created if necessary.

    Raises M_UNKNOWN (400) where the configuration names none.
    """
    localpart = tx.server.config.server_notices_user
    if localpart is None:
        raise errors.unknown("server_notices_user is not set in the configuration")
    user_id = f"@{localpart}:{tx.server.name}"
    if accounts.find(tx, user_id) is None:
        registration.create(tx, user_id, None)
    return user_id


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete the record of a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(ServerNoticeRoom).where(ServerNoticeRoom.room_id == room_id))


def _known_room(tx: Tx, user_id: str) -> str | None:
    """Return the room of the user's last notice, if there was one."""
    room = select(ServerNoticeRoom.room_id).where(ServerNoticeRoom.user_id == user_id)
    found: str | None = tx.sql.execute(room).scalar()
    return found


def _room(tx: Tx, by: str, user_id: str) -> str:
    """Return the room for the user's notices, which they have joined or are invited to."""
    known = _known_room(tx, user_id)
    if known is None or not state.is_joined(tx, known, by):
        return _create(tx, by, user_id)
    if state.membership_of(tx, known, user_id) not in {"join", "invite"}:
        membership.change(tx, known, by, user_id, "invite")
    return known


def _create(tx: Tx, by: str, user_id: str) -> str:
    options = creation.RoomOptions(
        preset="private_chat",
        version=creation.version_named(tx.server.config.default_room_version),
        name=NAME,
        topic=TOPIC,
        invite=[user_id],
        # nobody reads replies, and no other user may join
        power_levels={"events_default": 50, "invite": 50},
    )
    room_id, _ = creation.create_room(tx, by, options)
    tx.sql.execute(delete(ServerNoticeRoom).where(ServerNoticeRoom.user_id == user_id))
    tx.sql.execute(insert(ServerNoticeRoom), {"user_id": user_id, "room_id": room_id})
    account_data.put_tag(tx, user_id, room_id, TAG, {})
    return room_id
