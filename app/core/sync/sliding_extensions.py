"""What sliding sync carries besides rooms; each only for who asks for it.

Spec: client-server-api#syncing
"""

from __future__ import annotations

import msgspec

from app.caches import Requester
from app.core.encryption import device_lists, one_time_keys
from app.core.sync import account_data, receipts, to_device, typing
from app.core.sync.ephemeral import Ephemeral
from app.core.sync.sliding import Found, Told
from app.core.sync.tokens import SyncToken
from app.db import Reader
from app.spec.events import Json


class Extension(msgspec.Struct):
    """Whether the client wants it; `since` is of to_device alone."""

    enabled: bool = False
    since: str | None = None


class Extensions(msgspec.Struct):
    """What there is to ask for."""

    to_device: Extension = msgspec.field(default_factory=Extension)
    e2ee: Extension = msgspec.field(default_factory=Extension)
    account_data: Extension = msgspec.field(default_factory=Extension)
    receipts: Extension = msgspec.field(default_factory=Extension)
    typing: Extension = msgspec.field(default_factory=Extension)


def load(
    tx: Reader,
    asker: Requester,
    wanted: Extensions,
    told: Told,
    found: Found,
    ephemeral: Ephemeral,
    inbox_token: int,
) -> tuple[Json, bool]:
    """(the section of extensions, whether there is anything new in it)."""
    parts: Json = {}
    is_news = False
    if wanted.to_device.enabled:
        messages = to_device.after(tx, asker.user_id, asker.device_id, inbox_token)
        upto = tx.position if messages.cut_after is None else messages.cut_after
        parts["to_device"] = {"next_batch": str(SyncToken(upto)), "events": messages.events}
        is_news = bool(messages.events)
    if wanted.e2ee.enabled:
        lists = device_lists.NOTHING
        # A connection that starts anew (a restart, M_UNKNOWN_POS) knows no position, but the client
        # kept its keys and the token of its messages: what has changed since may not be lost
        seen = told.position or inbox_token
        if seen:
            lists = device_lists.since(tx, asker.user_id, seen)
        keys = one_time_keys.counts(tx, asker.user_id, asker.device_id)
        parts["e2ee"] = {
            "device_lists": {"changed": lists.changed, "left": lists.left},
            "device_one_time_keys_count": keys.one_time_keys,
            "device_unused_fallback_key_types": keys.unused_fallback_types,
        }
        is_news = is_news or bool(lists)
    of_rooms = _of_rooms(tx, asker.user_id, wanted, told, found, ephemeral)
    is_news = is_news or any(any(part.values()) for part in of_rooms.values())
    return parts | of_rooms, is_news


def _of_rooms(
    tx: Reader, user_id: str, wanted: Extensions, told: Told, found: Found, ephemeral: Ephemeral
) -> dict[str, Json]:
    """Those that tell of rooms: all of a room that is new to the connection, else what changed."""
    parts: dict[str, Json] = {}
    new = found.told.keys() - told.rooms.keys()
    old = found.told.keys() & told.rooms.keys()
    if wanted.account_data.enabled:
        data = account_data.since(tx, user_id, told.position, tx.position)
        own = data.pop("", [])
        by_room = {room: events for room, events in data.items() if room in old}
        if new:
            by_room |= account_data.of_rooms(tx, user_id, new)
        parts["account_data"] = {"global": own, "rooms": by_room}
    if wanted.receipts.enabled:
        read = receipts.since(tx, user_id, old, told.position, tx.position) if old else {}
        if new:
            read |= receipts.in_rooms(tx, user_id, new)
        parts["receipts"] = {"rooms": read}
    if wanted.typing.enabled:
        typers = typing.since(tx, ephemeral, user_id, old, told.ephemeral)
        typers |= typing.since(tx, ephemeral, user_id, new, 0)
        parts["typing"] = {"rooms": typers}
    return parts
