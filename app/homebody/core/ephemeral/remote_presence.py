"""The presence of users of other servers, and that of local users for other servers.

A server sends the presence of its users when it changes, and again from time to time while they are
not offline: otherwise those of a server that is gone would be online for ever. So users of whom
nothing was heard for TIMEOUT_MS are offline. Synapse uses the same times.

A server that begins to share a room is sent the presence of those in it who are not offline, some
time later: before it knows of the room, it would ignore that.

Spec: server-server-api#presence
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from homebody.core.encryption import device_updates, remote_devices
from homebody.core.ephemeral import presence
from homebody.core.ephemeral.ephemeral import Ephemeral, UserPresence
from homebody.core.events import state
from homebody.spec import edus, room_state
from homebody.spec.events import Json
from homebody.storage.database import Database
from homebody.storage.expressions import batches

TIMEOUT_MS: Final = 30 * 60_000
REPEATED_MS: Final = 25 * 60_000
MET_AFTER_MS: Final = 5_000
"""From a join until presence is sent to the servers that share a room by it."""
MAX_IN_EDU: Final = 50
_EDU: Final = "m.presence"


def receive(db: Database, ephemeral: Ephemeral, received: Sequence[edus.Presence]) -> None:
    """Show the presence of users who share a room with local users; ignore that of others."""
    if not ephemeral.has_presence:
        return
    some = received[:MAX_IN_EDU]
    with db.read() as tx:
        sharing = remote_devices.sharing(tx, [it.user_id for it in some])
    for it in some:
        if it.user_id in sharing:
            _receive(ephemeral, it)


def start(db: Database, ephemeral: Ephemeral) -> None:
    """Send the presence of local users to other servers from now on."""
    is_repeating = False

    def send(user_id: str, content: Json) -> None:
        nonlocal is_repeating
        with db.read() as tx:
            servers = device_updates.servers(tx, user_id)
        if servers:
            db.send_edu(servers, _EDU, user_id, {"push": [_entry(user_id, content)]})
            if not is_repeating:
                is_repeating = True
                ephemeral.timers.call_at(ephemeral.now_ms + REPEATED_MS, repeat)

    def repeat() -> None:
        ephemeral.timers.call_at(ephemeral.now_ms + REPEATED_MS, repeat)
        _send_all(db, ephemeral)

    def met(user_id: str, room_id: str) -> None:
        due_ms = ephemeral.now_ms + MET_AFTER_MS
        ephemeral.timers.call_at(due_ms, lambda: _send_to_met(db, ephemeral, user_id, room_id))

    if ephemeral.has_presence and db.server.config.federation:
        ephemeral.send_presence, db.met = send, met


def _receive(ephemeral: Ephemeral, received: edus.Presence) -> None:
    user_id, now_ms = received.user_id, ephemeral.now_ms
    with ephemeral.lock:
        entry = presence.entry_of(ephemeral, user_id)
        if entry is None:
            return
        before = (entry.presence, entry.status_msg)
        status_msg = received.status_msg
        entry.status_msg = status_msg and status_msg[: presence.MAX_STATUS_LENGTH]
        if received.last_active_ago_ms is not None:
            entry.active_ms = now_ms - received.last_active_ago_ms
        entry.devices.clear()  # those of before a restart
        is_watched, entry.heard_ms = entry.heard_ms is not None, now_ms
        has_changed = before != (received.presence, entry.status_msg)
        if has_changed:
            presence.note_change(ephemeral, user_id, entry, received.presence)
        if not is_watched:
            _watch(ephemeral, user_id, entry)
        content = presence.content(ephemeral, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content)


def _watch(ephemeral: Ephemeral, user_id: str, entry: UserPresence) -> None:
    """Schedule a timer for when the user is offline unless something is heard of them."""
    due_ms = (entry.heard_ms or 0) + TIMEOUT_MS
    ephemeral.timers.call_at(due_ms, lambda: _check(ephemeral, user_id, entry))


def _check(ephemeral: Ephemeral, user_id: str, entry: UserPresence) -> None:
    with ephemeral.lock:
        if ephemeral.presences.get(user_id) is not entry:
            return
        if entry.presence != "offline" and ephemeral.now_ms - (entry.heard_ms or 0) < TIMEOUT_MS:
            _watch(ephemeral, user_id, entry)
            return
        entry.heard_ms = None
        has_changed = entry.presence != "offline"
        if has_changed:
            presence.note_change(ephemeral, user_id, entry, "offline")
        content = presence.content(ephemeral, entry)
    if has_changed:
        ephemeral.wake_contacts(user_id, content)


def _send_all(db: Database, ephemeral: Ephemeral) -> None:
    """Send the presence of all local users who are not offline."""
    present = _present(
        ephemeral, [it for it in list(ephemeral.presences) if db.server.is_local(it)]
    )
    by_server: dict[str, list[str]] = {}
    with db.read() as tx:
        for user_id in tx.pausing(present, MAX_IN_EDU):
            for server in device_updates.servers(tx, user_id):
                by_server.setdefault(server, []).append(user_id)
    for server, user_ids in by_server.items():
        _send(db, [server], {user_id: present[user_id] for user_id in user_ids})


def _send_to_met(db: Database, ephemeral: Ephemeral, user_id: str, room_id: str) -> None:
    """Send the presence of local users to the servers that share a room since a user's join."""
    with db.read() as tx:
        there, own = state.joined(tx, room_id), {tx.server.name}
        if tx.server.is_local(user_id):
            user_ids = there.local & {user_id}
            servers = there.servers.keys() - own - device_updates.servers(tx, user_id, but=room_id)
        else:
            user_ids, servers = there.local, there.servers.keys() & {room_state.domain_of(user_id)}
    if servers:
        _send(db, servers, _present(ephemeral, user_ids))


def _present(ephemeral: Ephemeral, user_ids: Collection[str]) -> dict[str, Json]:
    """Return {user_id: content of m.presence} of those who are not offline."""
    with ephemeral.lock:
        known = {it: ephemeral.presences[it] for it in user_ids if it in ephemeral.presences}
        return {
            user_id: presence.content(ephemeral, entry)
            for user_id, entry in known.items()
            if entry.presence != "offline"
        }


def _send(db: Database, servers: Collection[str], present: Mapping[str, Json]) -> None:
    for some in batches(list(present), MAX_IN_EDU):
        entries = [_entry(user_id, present[user_id]) for user_id in some]
        db.send_edu(servers, _EDU, tuple(some), {"push": entries})


def _entry(user_id: str, content: Json) -> Json:
    return {"user_id": user_id, "last_active_ago": 0, **content}
