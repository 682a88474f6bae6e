"""Subscriptions to threads (MSC4306), and pages of their changes (MSC4308).

Sliding sync sends the latest changes; a client that was away for long reads the others here.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.events import threads
from homebody.core.sync.spans import SyncToken
from homebody.core.user_data import thread_subscriptions
from homebody.spec.events import Json

bp = Blueprint("thread_subscriptions", __name__)

DEFAULT_LIMIT = 100


class Subscription(msgspec.Struct):
    """The body of a subscription: the event that causes it, unless the user makes it."""

    automatic: str | None = None


@bp.put("/io.element.msc4306/rooms/<room_id>/thread/<event_id>/subscription")
@authenticated(suspended=True)
def subscribe_to_thread(room_id: str, event_id: str) -> Json:
    """Subscribe to a thread."""
    me, cause_id = requester(), http.body_as(Subscription).automatic
    with homeserver.database.write() as tx:
        root = threads.find_root(tx, me.user_id, room_id, event_id)
        cause = None
        if cause_id is not None:
            cause = threads.find_reply(tx, me.user_id, root, cause_id).position
        thread_subscriptions.subscribe(tx, me.user_id, room_id, event_id, cause)
    return {}


@bp.delete("/io.element.msc4306/rooms/<room_id>/thread/<event_id>/subscription")
@authenticated(suspended=True)
def unsubscribe_from_thread(room_id: str, event_id: str) -> Json:
    """Unsubscribe from a thread, if the user is subscribed to it."""
    me = requester()
    with homeserver.database.write() as tx:
        threads.find_root(tx, me.user_id, room_id, event_id)
        thread_subscriptions.unsubscribe(tx, me.user_id, room_id, event_id)
    return {}


@bp.get("/io.element.msc4306/rooms/<room_id>/thread/<event_id>/subscription")
@authenticated()
def get_thread_subscription(room_id: str, event_id: str) -> Json:
    """Return whether the subscription to a thread was made automatically."""
    me = requester()
    with homeserver.database.read() as tx:
        threads.find_root(tx, me.user_id, room_id, event_id)
        is_automatic = thread_subscriptions.is_automatic(tx, me.user_id, room_id, event_id)
    return {"automatic": is_automatic}


@bp.get("/io.element.msc4308/thread_subscriptions")
@authenticated()
def get_thread_subscriptions() -> Json:
    """Return the changes of the user's subscriptions, the latest first."""
    me = requester()
    http.query_choice("dir", {"b"}, "b")
    limit = http.query_integer("limit", DEFAULT_LIMIT, least=1, cap=thread_subscriptions.MAX_LIMIT)
    with homeserver.database.read() as tx:
        until, after = http.query_position(tx, "from"), http.query_position(tx, "to")
        changes = thread_subscriptions.changes(
            tx, me.user_id, after or 0, tx.position if until is None else until, limit
        )
    end = {} if changes.end is None else {"end": str(SyncToken(changes.end))}
    return changes.body | end
