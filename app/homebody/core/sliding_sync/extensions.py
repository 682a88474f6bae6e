"""What sliding sync carries besides rooms; each only for who asks for it.

Of a room that an extension has not told of yet it tells all, else what has changed. Messages and
keys are a matter of the device; the others are told of rooms that the user is in.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from homebody.core.encryption import one_time_keys, to_device
from homebody.core.ephemeral import receipts, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.sliding_sync.requests import Extension, Extensions
from homebody.core.sliding_sync.response import Found
from homebody.core.sliding_sync.sent import Told
from homebody.core.sync import device_lists
from homebody.core.sync.tokens import SyncToken
from homebody.core.user_data import account_data
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader


@dataclass(frozen=True, slots=True)
class Section:
    """The section of extensions."""

    body: Json
    is_news: bool
    extended: Mapping[str, frozenset[str]]
    """By extension, the rooms of which it has told with this answer."""


@dataclass(frozen=True, slots=True)
class _Rooms:
    """The rooms of which one extension tells."""

    all: frozenset[str]
    new: Set[str]
    """Those of which it has told nothing yet."""

    @property
    def old(self) -> Set[str]:
        """The others: what has changed is enough."""
        return self.all - self.new if self.new else self.all


def load(
    tx: Reader,
    asker: Requester,
    wanted: Extensions,
    told: Told,
    found: Found,
    ephemeral: Ephemeral,
    inbox_token: int,
) -> Section:
    """What is new to the connection. `inbox_token`: up to where the device has its messages."""
    body: Json = {}
    extended: dict[str, frozenset[str]] = {}
    is_news = False
    if wanted.to_device.enabled:
        messages = to_device.after(tx, asker.user_id, asker.device_id, inbox_token)
        upto = tx.position if messages.truncated_after is None else messages.truncated_after
        body["to_device"] = {"next_batch": str(SyncToken(upto)), "events": messages.events}
        is_news = bool(messages.events)
    if wanted.e2ee.enabled:
        body["e2ee"], has_changed = _keys(tx, asker, told, inbox_token)
        is_news = is_news or has_changed
    for name, one in (
        ("account_data", wanted.account_data),
        ("receipts", wanted.receipts),
        ("typing", wanted.typing),
    ):
        if one.enabled:
            rooms = _rooms(name, one, told, found)
            extended[name] = rooms.all
            body[name] = _of_rooms(tx, asker.user_id, name, rooms, told, found, ephemeral)
            is_news = is_news or any(body[name].values())
    return Section(body, is_news, extended)


def _keys(tx: Reader, asker: Requester, told: Told, inbox_token: int) -> tuple[Json, bool]:
    """Return (whose keys to ask for and how many of one's own are left, whether anybody's have changed).

    A connection that begins anew (a restart, M_UNKNOWN_POS) knows no position, but the client kept
    its keys and the token of its messages: what has changed since may not be lost.
    """
    lists = device_lists.NOTHING
    seen = told.position or inbox_token
    if 0 < seen < tx.position:
        lists = device_lists.since(tx, asker.user_id, seen)
    keys = one_time_keys.counts(tx, asker.user_id, asker.device_id)
    section = {
        "device_lists": {"changed": lists.changed, "left": lists.left},
        "device_one_time_keys_count": keys.one_time_keys,
        "device_unused_fallback_key_types": keys.unused_fallback_types,
    }
    return section, bool(lists)


def _rooms(name: str, wanted: Extension, told: Told, found: Found) -> _Rooms:
    before = told.extended.get(name)
    if before is not None and found.told.rooms is told.rooms:  # nothing has happened to any room
        return _Rooms(before, frozenset())
    joined = (room for room, it in found.told.rooms.items() if it.membership == "join")
    now = frozenset(joined if wanted.is_about_all else set(joined) & _scope(wanted, found))
    if before is None:
        return _Rooms(now, now)
    anew = {room for room in found.events if found.rooms[room].get("initial")}
    new = (now - before) | (anew & now)
    return _Rooms(before if before == now else now, new)


def _scope(wanted: Extension, found: Found) -> set[str]:
    """Return the rooms in the windows and of the subscriptions that an extension names."""
    seen: set[str] = set()
    for name, rooms in found.windows.items():
        if wanted.lists is None or "*" in wanted.lists or name in wanted.lists:
            seen |= rooms
    if wanted.rooms is None or "*" in wanted.rooms:
        return seen | found.subscribed
    return seen | (found.subscribed & set(wanted.rooms))


def _of_rooms(
    tx: Reader,
    user_id: str,
    name: str,
    rooms: _Rooms,
    told: Told,
    found: Found,
    ephemeral: Ephemeral,
) -> Json:
    if name == "account_data":
        return _account_data(tx, user_id, rooms, told, found)
    if name == "receipts":
        return {"rooms": _receipts(tx, user_id, rooms, told, found)}
    since = told.ephemeral if name in told.extended else 0
    typers = typing.since(tx, ephemeral, user_id, rooms.old, since) if rooms.old else {}
    if rooms.new and told.is_resumed:  # the client may still show users who typed before
        typers |= typing.in_rooms(tx, ephemeral, user_id, rooms.new)
    elif rooms.new:
        typers |= typing.since(tx, ephemeral, user_id, rooms.new, 0)
    return {"rooms": typers}


def _account_data(tx: Reader, user_id: str, rooms: _Rooms, told: Told, found: Found) -> Json:
    data = found.changes.data
    if told.position and "account_data" not in told.extended:
        data = account_data.since(tx, user_id, 0, tx.position)
    by_room = {room: events for room, events in data.items() if room in rooms.old}
    if rooms.new:
        by_room |= account_data.of_rooms(tx, user_id, rooms.new)
    return {"global": data.get("", []), "rooms": by_room}


def _receipts(tx: Reader, user_id: str, rooms: _Rooms, told: Told, found: Found) -> dict[str, Json]:
    """What others have read lately; of rooms that are new, who has read what the answer shows."""
    read: dict[str, Json] = {}
    if rooms.old and told.position < tx.position:
        read = receipts.since(tx, user_id, rooms.old, told.position, tx.position)
    new = rooms.new | {room_id for room_id in found.events if room_id in rooms.all}
    for room_id, event in receipts.in_rooms(tx, user_id, new).items() if new else ():
        shown = found.events.get(room_id)
        content = event["content"] if shown is None else _of(user_id, event["content"], shown)
        if content:
            read[room_id] = {**event, "content": content}
    return read


def _of(user_id: str, content: Json, event_ids: Set[str]) -> Json:
    """Return the receipts of these events, and the user's own wherever they stand."""
    found: Json = {}
    for event_id, by_type in content.items():
        if event_id in event_ids:
            found[event_id] = by_type
            continue
        own: dict[str, Any] = {
            kind: {user_id: users[user_id]} for kind, users in by_type.items() if user_id in users
        }
        if own:
            found[event_id] = own
    return found
