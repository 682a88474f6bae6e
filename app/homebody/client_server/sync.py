"""GET /sync and its long poll, and the filters that clients store.

Spec: client-server-api#syncing, client-server-api#filtering
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar, cast

from flask import Blueprint, g, request

from homebody import context
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, must_be_me, requester
from homebody.core.encryption import to_device
from homebody.core.ephemeral import presence
from homebody.core.sync import sync, tokens
from homebody.core.sync.sync import Answer, Ask
from homebody.core.user_data import filters
from homebody.runtime import single_flight
from homebody.spec.events import Json

bp = Blueprint("sync", __name__)

R = TypeVar("R")

MAX_TIMEOUT_MS = 600_000
"""Ten minutes; longer waits end early, as connections rarely last."""


@bp.get("/sync", endpoint="sync")
@authenticated(guests=True)
def sync_() -> Json:
    """What is new for the device since its token; waits up to `timeout` ms until something is."""
    timeout_ms = http.query_integer("timeout", 0, cap=MAX_TIMEOUT_MS)
    since = request.args.get("since")
    ask = _ask(since)
    mood = http.query_choice("set_presence", presence.STATES, "online")
    me = ask.requester
    with presence.syncing(context.ephemeral(), me.user_id, me.device_id, mood):
        if ask.since is None:  # clients repeat a long first sync: one request does the work for all
            key = (me.user_id, me.device_id, request.query_string)
            with single_flight.LARGE_AT_ONCE:
                return context.homeserver().repeats.once(key, lambda: _look(ask).body)
        if ask.full_state:
            with single_flight.LARGE_AT_ONCE:
                return _look(ask).body
        if timeout_ms == 0:
            return _look(ask).body
        found = wait_for(
            me.user_id, timeout_ms, lambda: _look(ask), lambda found: not found.is_empty
        )
        return found.body


def _ask(since: str | None) -> Ask:
    """What is asked for. By the token the device says also which messages it has got: they go."""
    me = requester()
    with context.db().read() as tx:
        ask = Ask(
            me,
            filters.resolve(tx, me.user_id, request.args.get("filter")),
            tokens.parse(since, tx.position) if since else None,
            full_state=http.query_boolean("full_state"),
            state_section=_state_section(),
        )
        device = (me.user_id, me.device_id, ask.position)
        is_to_acknowledge = to_device.is_to_acknowledge(tx, *device)
    if is_to_acknowledge:
        to_device.acknowledge_if_possible(context.db(), *device)
    return ask


def _state_section() -> str:
    """By which name the client wants the state, which says also as of when it wants it."""
    if http.query_boolean("use_state_after"):
        return "state_after"
    # Deviates: matrix-js-sdk still asks with the names that the proposal had
    if http.query_boolean("org.matrix.msc4222.use_state_after"):
        return "org.matrix.msc4222.state_after"
    return "state"


def _look(ask: Ask) -> Answer:
    with context.db().read() as tx:
        found = sync.answer(tx, ask, context.ephemeral(), context.homeserver().lazy_members)
    if found.truncated_after is None and not found.needs_new_token:
        return found
    return _mark_off(ask, found)


def _mark_off(ask: Ask, found: Answer) -> Answer:
    """The answer, once its token tells which messages to the device it held.

    Those of a cut answer are remembered by its token. On a quiet server the clock may not have
    moved since the one before: then it does now, or both would be the same.
    """
    me = ask.requester
    with context.db().write() as tx:
        is_late = found.needs_new_token and tx.position != ask.position
        if not is_late:
            found = found.at(tx.next_position()) if found.needs_new_token else found
            if found.truncated_after is not None:
                position = found.token.position
                to_device.note_truncated(
                    tx, me.user_id, me.device_id, position, found.truncated_after
                )
    return _look(ask) if is_late else found


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
    wakeups = context.homeserver().wakeups
    connection = cast("socket.socket | None", request.environ.get("gunicorn.socket"))
    until = time.monotonic() + timeout_ms / 1000
    keys = (user_id,) if room_id is None else (user_id, room_id)
    with wakeups.waiting(*keys) as waiter:
        while True:
            waiter.rest()
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
    """Store a filter; answers its id."""
    must_be_me(user_id)
    definition = http.json_object()
    with context.db().write() as tx:
        return {"filter_id": filters.define(tx, user_id, definition)}


@bp.get("/user/<user_id>/filter/<filter_id>")
@authenticated()
def get_filter(user_id: str, filter_id: str) -> Json:
    """A stored filter, as the client sent it."""
    must_be_me(user_id)
    with context.db().read() as tx:
        return filters.definition(tx, user_id, filter_id)
