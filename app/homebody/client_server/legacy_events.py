"""Events in the format of the 2014 API.

A message has its timestamp in its content, and a `msg_id` chosen by its sender.
Changes of membership become messages in words, which the server seems to have sent. A room's topic
and name keep their types. Later types of events (power levels, join rules, reactions, encryption …)
are left out of all responses, as clients of that time could not handle them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson

from homebody.core.events import client_events, state
from homebody.spec.events import Json
from homebody.spec.filters import RoomEventFilter, Types
from homebody.storage.caches import ClientEvent, Requester
from homebody.storage.database import Reader

MESSAGE: Final = "m.room.message"
KNOWN: Final = RoomEventFilter(types=Types((MESSAGE, state.MEMBER, "m.room.topic", "m.room.name")))
"""The events that have a format in that API."""
SERVER: Final = "_homeserver_"
"""The sender of changes of membership."""


def events(tx: Reader, requester: Requester, some: Collection[ClientEvent]) -> list[Json]:
    """Return events in the format of the 2014 API."""
    notices = [it for it in some if it.type == state.MEMBER]
    encoded = client_events.encode_all(tx, requester, notices)
    unsigned = {
        it.event_id: orjson.loads(orjson.dumps(one))["unsigned"]
        for it, one in zip(notices, encoded, strict=True)
    }
    return [
        _notice(it, unsigned[it.event_id]) if it.type == state.MEMBER else event(it) for it in some
    ]


def event(it: ClientEvent) -> Json:
    """Return an event other than a member event in the format of the 2014 API."""
    shown: Json = {
        "content": {**it.content, "hsob_ts": it.origin_server_ts},
        "event_id": it.event_id,
        # the transaction ID, by whichever API it was sent: room, sender and this were the only
        # address of a message; but not the delay_id of one that was scheduled
        "msg_id": it.event_id if it.device_id is None else it.txn_id or it.event_id,
        "room_id": it.room_id,
        "type": it.type,
        "user_id": it.sender,
    }
    return shown if it.state_key is None else {**shown, "state_key": it.state_key}


def member(it: ClientEvent) -> Json:
    """Return a member event in the format of the 2014 API."""
    return {
        "content": it.content,
        "event_id": it.event_id,
        "room_id": it.room_id,
        "state_key": it.state_key,
        "target_user_id": it.state_key,
        "type": it.type,
        "user_id": it.sender,
    }


def _notice(it: ClientEvent, unsigned: Json) -> Json:
    """Return a change of membership as a message."""
    before = unsigned.get("prev_content", {}).get("membership")
    membership, target = str(it.content["membership"]), str(it.state_key)
    return {
        "content": {
            "body": _sentence(before, membership, it.sender, target),
            "hsob_ts": it.origin_server_ts,
            "membership": membership,
            "membership_source": it.sender,
            "membership_target": target,
            "msgtype": "m.text",
        },
        "event_id": it.event_id,
        "msg_id": f"m{it.origin_server_ts}",
        "room_id": it.room_id,
        "type": MESSAGE,
        "user_id": SERVER,
    }


def _sentence(before: str | None, membership: str, sender: str, target: str) -> str:
    """Describe a change of membership."""
    if before == membership == "join":
        return f"{target} changed their name or avatar."
    if membership == "join":
        return f"{target} joined the room."
    if membership == "knock":
        return f"{target} would like to come in."
    if membership == "leave" and sender == target:
        return f"{target} left the room."
    verb = {"invite": "invited", "ban": "banned"}.get(membership)
    if verb is None:
        verb = "unbanned" if before == "ban" else "removed"
    return f"{sender} {verb} {target}."
