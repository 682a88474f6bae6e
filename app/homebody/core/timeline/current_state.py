"""Changes of a room's current state that are not the event that is being stored.

When a fork of a room's history is joined, state resolution may bring back an older event, or take
away an entry for which no event is left. `apply` is the only way to do so: what clients, pushers,
caches and device lists know of the room follows from it, as it follows from an event.
"""

from __future__ import annotations

from collections.abc import Mapping

from homebody.core import partial_rooms
from homebody.core.encryption import device_list_changes, remote_devices
from homebody.core.events import members, state, state_changes
from homebody.core.events.state_changes import MemberChange, Numbered
from homebody.core.push import counts
from homebody.core.timeline import sticky_events
from homebody.spec import room_state
from homebody.spec.events import Event, StateKey
from homebody.storage.database import Tx


def apply(
    tx: Tx, room_id: str, changes: Mapping[StateKey, Numbered | None], position: int
) -> list[MemberChange]:
    """Make these events the room's current state from a position on; return who is affected.

    None: the room has no such entry any more. A local user whose member event goes has left.
    Entries that are as wanted already are not touched. The events must be stored.
    """
    local = state.joined(tx, room_id).local
    moved = state_changes.apply(tx, room_id, changes, position)
    for change in moved:
        follow_member(tx, room_id, change)
    concerned = [change.user_id for change in moved]
    tx.wake_all(local, state.joined(tx, room_id).local, concerned, (room_id,))
    return moved


def note_if_lost(tx: Tx, event: Event, position: int) -> None:
    """Note that a state event in the timeline is not the current state, as another branch won.

    A client would take it for that.
    """
    if event.state_key is None:
        return
    now = state.current(tx, event.room_id, event.type, event.state_key)
    if now is None or now.event_id != event.event_id:
        state_changes.note_reset(tx, event.room_id, position)


def begin_many(
    tx: Tx, room_id: str, entries: Mapping[StateKey, tuple[int, str | None]], position: int
) -> None:
    """Add entries of users and servers elsewhere, which the room has never had before.

    {key: (number of the event, membership)}. The caller joins a local user next, by which
    everything that depends on the members is brought up to date.
    """
    state_changes.begin_many(tx, room_id, entries, position)


def follow_member(tx: Tx, room_id: str, change: MemberChange) -> None:
    """Bring up to date what depends on who is in the room; also called by store.store."""
    was_joined, is_joined = change.before == "join", change.after == "join"
    members.follow(tx, room_id, change.user_id, change.content if is_joined else None)
    counts.follow_member(tx, room_id, change.user_id, change.after, was_joined=was_joined)
    if tx.server.config.federation:
        remote_devices.follow_member(tx, room_id, change)
        device_list_changes.follow_member(tx, room_id, change)
        if is_joined and not was_joined:
            _note_meeting(tx, room_id, change.user_id)
    if was_joined and not is_joined:
        tx.note_departure(change.user_id, room_id)
        if partial_rooms.is_partial(tx, room_id) and not state.joined(tx, room_id).local:
            partial_rooms.end(tx, room_id)
            state_changes.forget_members(tx, room_id)


def _note_meeting(tx: Tx, room_id: str, user_id: str) -> None:
    """Note a join by which this server and another one begin to share a room."""
    servers = state.joined(tx, room_id).servers
    its_server = room_state.domain_of(user_id)
    if len(servers) > 1 and (its_server == tx.server.name or servers.get(its_server) == 1):
        tx.note_meeting(user_id, room_id)
        if its_server != tx.server.name:
            sticky_events.send_to(tx, room_id, its_server)
