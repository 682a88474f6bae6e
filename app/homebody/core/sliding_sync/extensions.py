"""The extensions of sliding sync: to-device messages, keys, account data, receipts and others.

Account data, receipts, typing and profiles are per room: rooms new to an extension are sent in
full, the others with changes only.
Spec: client-server-api#syncing
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from homebody.core.encryption import one_time_keys, to_device
from homebody.core.ephemeral import receipts, typing
from homebody.core.ephemeral.ephemeral import Ephemeral
from homebody.core.sliding_sync import profile_updates, requests, sticky_section
from homebody.core.sliding_sync.requests import (
    PROFILES,
    STICKY_EVENTS,
    THREAD_SUBSCRIPTIONS,
    Extension,
    Extensions,
    SlidingSyncRequest,
)
from homebody.core.sliding_sync.response import RoomsResult
from homebody.core.sliding_sync.states import ConnectionState
from homebody.core.sync import device_lists
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import account_data, thread_subscriptions
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader


@dataclass(frozen=True, slots=True)
class ExtensionsResult:
    """The `extensions` of a response."""

    body: Json
    has_changes: bool
    rooms: Mapping[str, frozenset[str]]
    """{extension: the rooms sent by it so far}"""
    shows_typing: bool
    """Whether the client may then show users who type."""


@dataclass(frozen=True, slots=True)
class _Rooms:
    """The rooms of one extension."""

    all: frozenset[str]
    new: Set[str]
    """Rooms of which the extension has sent nothing yet."""

    @property
    def old(self) -> Set[str]:
        """Rooms of which only changes are sent."""
        return self.all - self.new if self.new else self.all


def load(
    tx: Reader,
    requester: Requester,
    request: SlidingSyncRequest,
    previous: ConnectionState,
    found: RoomsResult,
    ephemeral: Ephemeral,
    inbox_token: int,
) -> ExtensionsResult:
    """Return the changes; `inbox_token` is the position up to which the device has its messages."""
    body: Json = {}
    rooms_of: dict[str, frozenset[str]] = {}
    has_changes = False
    wanted = request.extensions
    if wanted.to_device.enabled:
        messages = to_device.after(tx, requester.user_id, requester.device_id, inbox_token)
        upto = tx.position if messages.truncated_after is None else messages.truncated_after
        body["to_device"] = {"next_batch": str(SyncToken(upto)), "events": messages.events}
        has_changes = bool(messages.events)
    if wanted.e2ee.enabled:
        body["e2ee"], have_changed = _keys(tx, requester, previous, inbox_token)
        rooms_of["e2ee"] = frozenset()  # of no rooms; notes that the connection has it
        has_changes = has_changes or have_changed
    for name in ("account_data", "receipts", "typing"):
        one: Extension = getattr(wanted, name)
        if one.enabled:
            rooms = _rooms(name, one, previous, found)
            rooms_of[name] = rooms.all
            body[name] = _of_rooms(tx, requester.user_id, name, rooms, previous, found, ephemeral)
            has_changes = has_changes or any(body[name].values())
    is_quiet = ephemeral.typed_in.isdisjoint(rooms_of.get("typing", ()))
    for name, section in (
        (THREAD_SUBSCRIPTIONS, _threads(tx, requester.user_id, wanted, previous, rooms_of)),
        (PROFILES, _profiles(tx, requester.user_id, wanted, previous, found, rooms_of)),
        (STICKY_EVENTS, _sticky_events(tx, requester, wanted, previous, found, rooms_of)),
    ):
        if section:
            body[name] = section
            has_changes = True
    shows_typing = not is_quiet if wanted.typing.enabled else previous.shows_typing
    return ExtensionsResult(body, has_changes, rooms_of, shows_typing)


def _threads(
    tx: Reader,
    user_id: str,
    wanted: Extensions,
    previous: ConnectionState,
    rooms_of: dict[str, frozenset[str]],
) -> Json:
    """Return the changes of thread subscriptions, and note that the connection has them."""
    if not wanted.thread_subscriptions.enabled:
        return {}
    rooms_of[THREAD_SUBSCRIPTIONS] = frozenset()
    since = previous.position if THREAD_SUBSCRIPTIONS in previous.extension_rooms else 0
    limit = wanted.thread_subscriptions.limit
    changes = thread_subscriptions.changes(tx, user_id, since, tx.position, limit)
    more = {} if changes.end is None else {"prev_batch": str(SyncToken(changes.end))}
    return changes.body | more


def _profiles(
    tx: Reader,
    user_id: str,
    wanted: Extensions,
    previous: ConnectionState,
    found: RoomsResult,
    rooms_of: dict[str, frozenset[str]],
) -> Json:
    """Return the changes of profiles, or all if the client wants other fields than before."""
    one = wanted.profiles
    if not one.enabled:
        return {}
    name = f"{PROFILES} {requests.digest(one.fields).hex()}"
    rooms = _rooms(name, one, previous, found)
    rooms_of[name] = rooms.all
    users = profile_updates.load(tx, user_id, one.fields, previous, found, rooms.all, rooms.new)
    return {"users": users} if users else {}


def _sticky_events(
    tx: Reader,
    requester: Requester,
    wanted: Extensions,
    previous: ConnectionState,
    found: RoomsResult,
    rooms_of: dict[str, frozenset[str]],
) -> Json:
    """Return the sticky events that the client lacks, by its token or as a room is new."""
    one = wanted.sticky_events
    if not one.enabled:
        return {}
    rooms = _rooms(STICKY_EVENTS, one, previous, found)
    rooms_of[STICKY_EVENTS] = rooms.all
    return sticky_section.load(
        tx, requester, rooms.all, rooms.new, found.rooms, one.since, one.limit
    )


def _keys(
    tx: Reader, requester: Requester, previous: ConnectionState, inbox_token: int
) -> tuple[Json, bool]:
    """Return (the section, whether it has changes).

    A claim of keys is a change, as the client is to upload new ones; an upload of its own is not.
    A connection may have no position, after M_UNKNOWN_POS, or have been without this extension for
    a while. But the client has kept its keys and its to-device token, so changes since that token
    must be sent.
    """
    lists = device_lists.NOTHING
    seen = previous.position or inbox_token
    if "e2ee" not in previous.extension_rooms and inbox_token:
        seen = min(seen, inbox_token)
    if 0 < seen < tx.position:
        lists = device_lists.since(tx, requester.user_id, seen)
    keys = one_time_keys.counts(tx, requester.user_id, requester.device_id)
    section = {
        "device_lists": {"changed": lists.changed, "left": lists.left},
        "device_one_time_keys_count": keys.one_time_keys,
        "device_unused_fallback_key_types": keys.unused_fallback_types,
    }
    return section, bool(lists) or keys.claimed_at > previous.position


def _rooms(name: str, wanted: Extension, previous: ConnectionState, found: RoomsResult) -> _Rooms:
    before = previous.extension_rooms.get(name)
    if before is not None and found.state.rooms is previous.rooms:  # no room has changed
        return _Rooms(before, frozenset())
    joined = found.joined
    now = joined if wanted.is_about_all else joined & _scope(wanted, found)
    if before is None:
        return _Rooms(now, now)
    initial = {room for room in found.timelines if found.rooms[room].get("initial")}
    new = (now - before) | (initial & now)
    return _Rooms(before if before == now else now, new)


def _scope(wanted: Extension, found: RoomsResult) -> set[str]:
    """Return the rooms of the lists and subscriptions that an extension names."""
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
    previous: ConnectionState,
    found: RoomsResult,
    ephemeral: Ephemeral,
) -> Json:
    if name == "account_data":
        return _account_data(tx, user_id, rooms, previous, found)
    if name == "receipts":
        return {"rooms": _receipts(tx, user_id, rooms, previous, found)}
    since = previous.ephemeral if name in previous.extension_rooms else 0
    typers = typing.since(tx, ephemeral, user_id, rooms.old, since) if rooms.old else {}
    if rooms.new and previous.is_resumed:  # the client may still show users who typed before
        typers |= typing.in_rooms(tx, ephemeral, user_id, rooms.new)
    elif rooms.new:
        typers |= typing.since(tx, ephemeral, user_id, rooms.new, 0)
    return {"rooms": typers}


def _account_data(
    tx: Reader, user_id: str, rooms: _Rooms, previous: ConnectionState, found: RoomsResult
) -> Json:
    data = found.changes.account_data
    if previous.position and "account_data" not in previous.extension_rooms:
        data = account_data.since(tx, user_id, 0, tx.position)
    by_room = {room: events for room, events in data.items() if room in rooms.old}
    if rooms.new:  # also what was deleted, if the client has had one of them before
        with_deleted = not previous.rooms.keys().isdisjoint(rooms.new)
        by_room |= account_data.of_rooms(tx, user_id, rooms.new, with_deleted=with_deleted)
    return {"global": data.get("", []), "rooms": by_room}


def _receipts(
    tx: Reader, user_id: str, rooms: _Rooms, previous: ConnectionState, found: RoomsResult
) -> dict[str, Json]:
    """Return new receipts; for new rooms all receipts of the events in the timeline."""
    read: dict[str, Json] = {}
    if rooms.old and previous.position < tx.position:
        read = receipts.since(tx, user_id, rooms.old, previous.position, tx.position)
    new = rooms.new | {room_id for room_id in found.timelines if room_id in rooms.all}
    for room_id, event in receipts.in_rooms(tx, user_id, new).items() if new else ():
        shown = found.timelines.get(room_id)
        content = event["content"] if shown is None else _of(user_id, event["content"], shown)
        if content:
            read[room_id] = {**event, "content": content}
    return read


def _of(user_id: str, content: Json, event_ids: Set[str]) -> Json:
    """Return the receipts of these events, and all of the user's own."""
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
