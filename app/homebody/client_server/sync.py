"""GET /sync and its long poll, and the filters that clients store.

Spec: client-server-api#syncing, client-server-api#filtering
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from flask import Blueprint, g, request

from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, must_be_me, requester
from homebody.context import homeserver
from homebody.core.encryption import to_device
from homebody.core.ephemeral import presence
from homebody.core.sync import sync
from homebody.core.sync.spans import SyncToken
from homebody.core.sync.sync import SyncRequest, SyncResponse
from homebody.core.user_data import filters
from homebody.spec.events import Json
from homebody.spec.filters import EVERYTHING

bp = Blueprint("sync", __name__)

R = TypeVar("R")

LARGE_AT_ONCE = threading.BoundedSemaphore(2)
"""Initial syncs, those with full state, and new wide windows of sliding sync can have tens of
megabytes, and all are made by one thread: more at once would not be ready sooner, and only take
more memory."""
MAX_TIMEOUT_MS = 600_000
"""Ten minutes; longer waits end early, as connections rarely last."""


@bp.get("/sync", endpoint="sync")
@authenticated(guests=True)
def sync_() -> Json:
    """Return what is new for the device; wait up to `timeout` ms until something is."""
    timeout_ms = http.query_integer("timeout", 0, cap=MAX_TIMEOUT_MS)
    wanted = _sync_request()
    set_presence = http.query_choice("set_presence", presence.STATES, "online")
    me = wanted.requester
    with presence.syncing(homeserver.ephemeral, me.user_id, me.device_id, set_presence):
        if wanted.is_initial:  # clients repeat a long first sync: one request serves all of them
            key = (me.user_id, me.device_id, request.query_string)
            with LARGE_AT_ONCE:
                return homeserver.repeats.once(key, lambda: _respond(wanted).body)
        if wanted.full_state:
            with LARGE_AT_ONCE:
                return _respond(wanted).body
        if timeout_ms == 0:
            return _respond(wanted).body
        response = wait_for(
            me.user_id, timeout_ms, lambda: _respond(wanted), lambda found: not found.is_empty
        )
        return response.body


def _sync_request() -> SyncRequest:
    """Return the request. Its token acknowledges messages to the device, which are deleted."""
    me = requester()
    state_section = "state"
    if http.query_boolean("use_state_after"):
        state_section = "state_after"
    # Deviates: matrix-js-sdk still uses the names of the proposal
    elif http.query_boolean("org.matrix.msc4222.use_state_after"):
        state_section = "org.matrix.msc4222.state_after"
    since, text = request.args.get("since"), request.args.get("filter")
    with homeserver.database.read() as tx:
        token = SyncToken.parse(since, tx.position) if since else SyncToken(0)
        wanted = SyncRequest(
            me,
            filters.resolve(tx, me.user_id, text) if text else EVERYTHING,
            token.position,
            token.ephemeral or 0,
            is_quiet=token.is_quiet,
            is_initial=not since,
            full_state=http.query_boolean("full_state"),
            state_section=state_section,
        )
        device = (me.user_id, me.device_id, wanted.position)
        is_due = to_device.has_acknowledged_messages(tx, *device)
    if is_due:
        to_device.acknowledge_if_possible(homeserver.database, *device)
    return wanted


def _respond(wanted: SyncRequest) -> SyncResponse:
    with homeserver.database.read() as tx:
        response = sync.respond(tx, wanted, homeserver.ephemeral, homeserver.lazy_members)
    if response.truncated_after is None and not response.needs_new_token:
        return response
    return _mark_off(wanted, response)


def _mark_off(wanted: SyncRequest, response: SyncResponse) -> SyncResponse:
    """Return the response with a token that says which messages to the device it has.

    Those of a truncated response are stored with its token. On a quiet server the clock may not
    have moved since the response before: it is moved now, as both would have the same token.
    """
    me = wanted.requester
    with homeserver.database.write() as tx:
        is_late = response.needs_new_token and tx.position != wanted.position
        if not is_late:
            if response.needs_new_token:
                response = response.at(tx.next_position())
            if response.truncated_after is not None:
                position = response.token.position
                to_device.note_truncated(
                    tx, me.user_id, me.device_id, position, response.truncated_after
                )
    return _respond(wanted) if is_late else response


def wait_for(
    user_id: str,
    timeout_ms: int,
    look: Callable[[], R],
    is_news: Callable[[R], bool],
    *,
    room_id: str | None = None,
) -> R:
    """Return the result of `look` as soon as it is news, or when the time is over.

    It is called again whenever something concerns the user, or the room if one is named. It opens
    and ends its own transactions: none is open while the request waits.
    Raises M_UNKNOWN_TOKEN when the session was ended meanwhile.
    """
    wakeups = homeserver.wakeups
    connection = cast("socket.socket | None", request.environ.get("gunicorn.socket"))
    until = time.monotonic() + timeout_ms / 1000
    keys = (user_id,) if room_id is None else (user_id, room_id)
    with wakeups.waiting(*keys) as waiter:
        while True:
            waiter.clear()
            # After the waiter was registered: a logout just before that woke nobody
            authentication.check_still_valid()
            result = look()
            left = until - time.monotonic()
            if is_news(result) or left <= 0 or wakeups.is_closing or waiter.is_gone:
                return result
            waiter.wait(left, connection)
            g.waited = g.get("waited", 0.0) + left - (until - time.monotonic())


@bp.post("/user/<user_id>/filter")
@authenticated(suspended=True)
def define_filter(user_id: str) -> Json:
    """Store a filter, and return its id."""
    must_be_me(user_id)
    definition = http.json_object()
    with homeserver.database.write() as tx:
        return {"filter_id": filters.define(tx, user_id, definition)}


@bp.get("/user/<user_id>/filter/<filter_id>")
@authenticated()
def get_filter(user_id: str, filter_id: str) -> Json:
    """Return a stored filter, as the client sent it."""
    must_be_me(user_id)
    with homeserver.database.read() as tx:
        return filters.definition(tx, user_id, filter_id)
