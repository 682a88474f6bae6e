"""What bridges with encryption get in their transactions besides events (MSC2409, MSC3202).

A service whose registration says `org.matrix.msc3202: true` gets the messages to devices of its
users, the counts of these devices' keys after each change, and the users whose device lists have
changed. Its users are those of its exclusive namespaces: the messages to a user of another client
are nobody else's. They are not in an inbox for /sync as well, which nobody would empty.

Spec: application-service-api#pushing-events
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from homebody.core import outbox
from homebody.core.appservices import transactions
from homebody.core.events import state
from homebody.core.outbox import Row
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.caches import ClientEvent
from homebody.storage.database import Reader, Tx

TO_DEVICE: Final = "de.sorunome.msc2409.to_device"
DEVICE_LISTS: Final = "org.matrix.msc3202.device_lists"
ENCRYPTION: Final = ("m.room.encryption", "")

MAX_WAITING: Final = 20_000
"""Rows of a service, which may be off. Further messages go to the inboxes, which are bounded by
sender: everybody may send ten thousand at once."""

Device = tuple[str, str]
"""(user_id, device_id)"""
_GONE: Final = frozenset({"leave", "ban"})


def take_messages(tx: Tx, messages: list[tuple[Device, str]]) -> list[tuple[Device, str]]:
    """Queue messages, as JSON, to devices of such services; return the others."""
    services = tx.server.appservices
    if not services.wants_encryption:
        return messages
    others, taken = [], []
    full = {
        it.id: outbox.has_more_than(tx, transactions.KIND, it.id, MAX_WAITING)
        for it in services.all
        if it.wants_encryption
    }
    for (user_id, device_id), event in messages:
        service = services.with_encryption(user_id)
        if service is None or full[service.id]:
            others.append(((user_id, device_id), event))
        else:
            to = {"to_user_id": user_id, "to_device_id": device_id}
            taken.append((service.id, {"to_device": orjson.loads(event) | to}))
    outbox.add_all(tx, transactions.KIND, taken)
    return others


def note_keys(tx: Tx, user_id: str, device_id: str) -> None:
    """Queue that the number of a device's keys has changed, if it is one of such a service."""
    service = tx.server.appservices.with_encryption(user_id)
    if service is not None:
        outbox.add(tx, transactions.KIND, service.id, {"keys": [user_id, device_id]})


def note_device_list(tx: Tx, user_id: str) -> None:
    """Queue a change of a user's devices for such services whose users share a room with them."""
    services = tx.server.appservices
    if services.wants_encryption:
        wanting = [it for it in services.all if it.wants_encryption]
        sharing = transactions.sharing_rooms(tx, wanting, user_id)
        payload: Json = {"device_list": user_id}
        outbox.add_all(tx, transactions.KIND, [(service.id, payload) for service in sharing])


def sections(
    tx: Reader, service: Service, rows: Sequence[Row], events: Sequence[ClientEvent]
) -> Json:
    """Return the messages and device lists of a transaction with these rows and events."""
    if not service.wants_encryption:
        return {}
    found: Json = {}
    messages = [row.payload["to_device"] for row in rows if "to_device" in row.payload]
    if messages:
        found[TO_DEVICE] = messages
    changed = {row.payload["device_list"] for row in rows if "device_list" in row.payload}
    gone: set[str] = set()
    for event in events:
        if event.type == state.MEMBER:
            _follow_member(tx, service, event, changed, gone)
    left = {it for it in gone if service not in transactions.sharing_rooms(tx, [service], it)}
    if changed or left:
        found[DEVICE_LISTS] = {"changed": sorted(changed - left), "left": sorted(left)}
    return found


def devices(rows: Iterable[Row]) -> set[Device]:
    """Return the devices of which a transaction should have the counts of keys."""
    found = {tuple(row.payload["keys"]) for row in rows if "keys" in row.payload}
    messages = (row.payload["to_device"] for row in rows if "to_device" in row.payload)
    return {*found, *((it["to_user_id"], it["to_device_id"]) for it in messages)}


def _follow_member(
    tx: Reader, service: Service, event: ClientEvent, changed: set[str], gone: set[str]
) -> None:
    """Add whose devices a service may have missed as they shared no room, and who is gone.

    If one of its own users has joined, these are all members, where the room is encrypted.
    """
    membership, user_id = event.content.get("membership"), event.state_key or ""
    is_own = tx.server.appservices.has_user(service, user_id)
    if membership in _GONE and not is_own:
        gone.add(user_id)
    was_joined = event.previous is not None and b'"membership":"join"' in event.previous.body
    if membership != "join" or was_joined:
        return
    if not is_own:
        changed.add(user_id)
    elif state.current(tx, event.room_id, *ENCRYPTION) is not None:
        members = state.joined_users(tx, event.room_id)
        changed.update(it for it in members if not tx.server.appservices.has_user(service, it))
