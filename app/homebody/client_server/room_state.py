"""The state of a room: setting and reading it.

Spec: client-server-api#getting-events-for-a-room, client-server-api#sending-events-to-a-room
"""

from __future__ import annotations

from contextlib import suppress

import orjson
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, delayed_events, http, membership, room_send
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core import partial_rooms
from homebody.core.events import client_events, history, state
from homebody.core.rooms import aliases, personal_settings, state_events
from homebody.core.timeline import shadow_bans
from homebody.errors import MatrixError
from homebody.spec.events import Json

bp = Blueprint("room_state", __name__)

FORMATS = ("content", "event")


@bp.put("/rooms/<room_id>/state/<event_type>")
@bp.put("/rooms/<room_id>/state/<event_type>/<state_key>")
@authenticated(guests="partly", suspended="partly")
def set_room_state_with_key(room_id: str, event_type: str, state_key: str = "") -> Json:
    """Send a state event, or schedule it."""
    if (delay_ms := room_send.requested_delay_ms()) is not None:
        return delayed_events.schedule(room_id, event_type, state_key, None, delay_ms)
    return {"event_id": send_state(room_id, event_type, state_key)}


def send_state(room_id: str, event_type: str, state_key: str) -> str:
    """Send a state event with the content of the body, and return its id."""
    content = room_send.event_content()
    if not _is_to_leave(event_type, state_key, content):
        authentication.must_not_be_suspended()
    if event_type == state.MEMBER:
        if requester().is_guest:
            membership.check_guest(content, is_own=state_key == requester().user_id)
        membership.check_limits(str(content.get("membership")), room_id, state_key)
    else:
        authentication.rate_limits().check("rc_message", requester().user_id)
    if requester().is_shadow_banned:
        with homeserver.database.read() as tx:
            if shadow_bans.is_hidden(tx, requester(), room_id, event_type, content):
                return shadow_bans.event_id(tx, requester(), room_id)
        content = {"membership": content.get("membership")}
    is_invite = event_type == state.MEMBER and content.get("membership") == "invite"
    if is_invite and membership.is_elsewhere(state_key):
        return membership.invite_elsewhere(room_id, state_key, content)
    ts = None if requester().service is None else http.timestamp()
    sticky_ms, elsewhere = http.sticky_ms(), {}
    if (event_type, state_key) == (aliases.CANONICAL_ALIAS, ""):
        elsewhere = _resolved_elsewhere(room_id, content)
    with homeserver.database.write() as tx:
        before = tx.position
        event_id = state_events.put(
            *(tx, room_id, requester().user_id, event_type, state_key, content, ts, elsewhere),
            sticky_ms=sticky_ms,
        )
        is_tombstone = (event_type, state_key) == personal_settings.TOMBSTONE
        waiting = (
            personal_settings.members_of_replacement(tx, room_id, before) if is_tombstone else []
        )
    personal_settings.copy_for_users(homeserver.database, room_id, waiting)
    return event_id


def _resolved_elsewhere(room_id: str, content: Json) -> dict[str, str]:
    """Return {alias: room ID} of the aliases of other servers that a content adds.

    What can't be resolved is left out. Raises as `aliases.added_elsewhere` does.
    """
    if not homeserver.server.config.federation:
        return {}
    with homeserver.database.read() as tx:
        wanted = aliases.added_elsewhere(tx, room_id, requester().user_id, content)
    found: dict[str, str] = {}
    for alias in wanted:
        authentication.limit_lookups()
        with suppress(MatrixError):
            found[alias] = homeserver.remote_queries.alias(alias).room_id
    return found


@bp.get("/rooms/<room_id>/state/<event_type>")
@bp.get("/rooms/<room_id>/state/<event_type>/<state_key>")
@authenticated(guests=True)
def get_room_state_with_key(
    room_id: str, event_type: str, state_key: str = ""
) -> Json | orjson.Fragment:
    """Return the content of a state event or, with ?format=event, the whole event."""
    wanted = request.args.get("format", "content")
    if wanted not in FORMATS:
        raise errors.invalid_param("format must be content or event")
    if event_type == state.MEMBER and not homeserver.server.is_local(state_key):
        partial_rooms.wait_until_full(homeserver.database, room_id)
    with homeserver.database.read() as tx:
        event = state_events.get(tx, room_id, requester().user_id, event_type, state_key)
        if wanted == "content":
            return event.content
        return client_events.as_json(tx, requester(), event)


@bp.get("/rooms/<room_id>/state")
@authenticated(guests=True)
def get_room_state(room_id: str) -> list[orjson.Fragment]:
    """Return the current state of a room."""
    partial_rooms.wait_until_full(homeserver.database, room_id)
    with homeserver.database.read() as tx:
        events = history.state_of(tx, requester().user_id, room_id)
        return client_events.encode_state(tx, requester(), events)


def _is_to_leave(event_type: str, state_key: str, content: Json) -> bool:
    """Return whether the user leaves the room by this event."""
    is_own = (event_type, state_key) == (state.MEMBER, requester().user_id)
    return is_own and content.get("membership") == "leave"
