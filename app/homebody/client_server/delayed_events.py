"""Delayed events: scheduling, reading and managing them (MSC4140).

Clients schedule them by a path of their own or, as they do so far, by a parameter of /send and
/state. Paths below /unstable are read as /v3, see web/middleware.py. There an event can also be
managed without an access token, by any program that knows its id: clients send the id to the server
of a call, which notices when they are gone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Annotated, Final

import msgspec
from flask import Blueprint, g

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, maybe_requester, requester
from homebody.context import homeserver
from homebody.core.ephemeral import presence
from homebody.core.events import state
from homebody.core.rooms import delayed_sending
from homebody.core.timeline import delayed_events, sending
from homebody.errors import MatrixError
from homebody.spec import canonical_json, identifiers
from homebody.spec.events import Json

bp = Blueprint("delayed_events", __name__)
bp_v1 = Blueprint("delayed_events_v1", __name__, url_prefix="/_matrix/client/v1")

ACTIONS: Final = ("send", "cancel", "restart")
UNSTABLE: Final = "/org.matrix.msc4140"
COST_OF_LIST: Final = 10
"""Requests as which a list counts, of a hundred events of up to 64 KiB."""


class Delayed(msgspec.Struct):
    """The body of PUT /delayed_event."""

    delay_ms: Annotated[int, msgspec.Meta(ge=1, le=http.MAX_INTEGER)]
    content: Json
    state_key: str | None = None


class Update(msgspec.Struct):
    """The body of the path without an action."""

    action: str


@bp.put(f"{UNSTABLE}/rooms/<room_id>/delayed_event/<event_type>/<txn_id>")
@bp.put("/rooms/<room_id>/delayed_event/<event_type>/<txn_id>")
@authenticated(guests=True)
def put_delayed_event(room_id: str, event_type: str, txn_id: str) -> Json:
    """Schedule an event."""
    draft = _draft(room_id, event_type, txn_id)
    if (known := _scheduled_before(draft)) is not None:
        return known
    body = http.body_as(Delayed, max_bytes=http.MAX_EVENT_BYTES)
    most = homeserver.server.config.delayed_events.max_delay_ms
    if body.delay_ms > most:
        raise errors.forbidden(f"Events can be delayed by {most} ms at most")
    return _schedule(draft, body.content, body.state_key, body.delay_ms)


def schedule(
    room_id: str, event_type: str, state_key: str | None, txn_id: str | None, delay_ms: int
) -> Json:
    """Schedule the event of a request to /send or /state that has the parameter `delay`.

    Raises M_UNKNOWN (400) for one that is too long, with what clients look for.
    """
    draft = _draft(room_id, event_type, txn_id)
    if (known := _scheduled_before(draft)) is not None:
        return known
    content = http.json_object(max_bytes=http.MAX_EVENT_BYTES)
    most = homeserver.server.config.delayed_events.max_delay_ms
    if delay_ms > most:
        detail = {
            "org.matrix.msc4140.errcode": "M_MAX_DELAY_EXCEEDED",
            "org.matrix.msc4140.max_delay": most,
        }
        raise MatrixError(400, "M_UNKNOWN", f"Events can be delayed by {most} ms at most", **detail)
    return _schedule(draft, content, state_key, delay_ms)


@bp.get(f"{UNSTABLE}/delayed_events")
@bp_v1.get("/delayed_events")
@authenticated(guests=True)
def get_delayed_events() -> Json:
    """Return the events that the user has scheduled, the next one first."""
    _limit(COST_OF_LIST)
    with homeserver.database.read() as tx:
        found = delayed_events.scheduled(tx, requester().user_id)
    return {"delayed_events": [it.shown() for it in found]}


@bp.get(f"{UNSTABLE}/delayed_events/<delay_id>")
@bp_v1.get("/delayed_events/<delay_id>")
@authenticated(guests=True)
def get_delayed_event(delay_id: str) -> Json:
    """Return what an event is, and what became of it."""
    _limit()
    with homeserver.database.read() as tx:
        return delayed_events.find(tx, delay_id, requester().user_id).shown()


@bp_v1.post("/delayed_events/<delay_id>/<action>")
@authenticated(guests=True, suspended=True)
def manage_delayed_event(delay_id: str, action: str) -> Json:
    """Send, cancel or restart an event of the user."""
    return _manage(delay_id, action, requester().user_id)


@bp.post(f"{UNSTABLE}/delayed_events/<delay_id>/<action>")
@authenticated(optional=True, guests=True, suspended=True)
def manage_unstable_delayed_event(delay_id: str, action: str) -> Json:
    """Send, cancel or restart an event."""
    return _manage_unstable(delay_id, action)


@bp.post(f"{UNSTABLE}/delayed_events/<delay_id>")
@authenticated(optional=True, guests=True, suspended=True)
def update_delayed_event(delay_id: str) -> Json:
    """Do what the body says, as clients of 2025 request it."""
    return _manage_unstable(delay_id, http.body_as(Update).action)


def _manage_unstable(delay_id: str, action: str) -> Json:
    """Do an action. Raises M_NOT_FOUND for an event that is over in another way.

    Where the stable path reports a conflict, clients of this one would give up a call, and
    lk-jwt-service would try for minutes; both know what M_NOT_FOUND means.
    """
    try:
        return _manage(delay_id, action)
    except MatrixError as error:
        if error.status == 409:
            raise errors.not_found(error.message) from None
        raise


def _manage(delay_id: str, action: str, user_id: str | None = None) -> Json:
    if action not in ACTIONS:
        raise errors.unrecognized(f"There is no action {action!r}")
    _limit()
    if action == "send":
        _send(delay_id, user_id)
        return {}
    with homeserver.database.write() as tx:
        if action == "restart":
            delayed_events.restart(tx, delay_id, user_id)
        else:
            delayed_events.cancel(tx, delay_id, user_id)
    return {}


def _send(delay_id: str, user_id: str | None) -> None:
    """Send an event now; it stays scheduled if that fails."""
    with homeserver.database.read() as tx:
        it = delayed_events.to_send(tx, delay_id, user_id)
        sender = None if it is None else delayed_sending.requester(tx, it.user_id)
    if it is None or sender is None:
        return
    if "approved" not in g:  # else the request has been counted before
        homeserver.rate_limits.of(sender).check("rc_message", it.user_id)
    with homeserver.database.write() as tx:
        it = delayed_events.to_send(tx, delay_id, user_id)
        if it is None:
            return
        tx.approved = g.get("approved", {})
        follow = delayed_sending.send(tx, it, delayed_sending.requester(tx, it.user_id))
    if follow is not None:
        follow(homeserver.database)


def _draft(room_id: str, event_type: str, txn_id: str | None) -> sending.Draft:
    me = requester()
    return sending.Draft(room_id, me.user_id, event_type, {}, device_id=me.device_id, txn_id=txn_id)


def _scheduled_before(draft: sending.Draft) -> Json | None:
    """Return the response to the same request before, if there was one."""
    if draft.txn_id is None:
        return None
    with homeserver.database.read() as tx:
        known = delayed_events.scheduled_before(tx, draft)
    return None if known is None else {"delay_id": known.delay_id}


def _schedule(draft: sending.Draft, content: Json, state_key: str | None, delay_ms: int) -> Json:
    me = requester()
    authentication.must_not_be_suspended()
    authentication.rate_limits().check("rc_message", me.user_id)
    _check(draft, content, state_key)
    ts = None if me.service is None else http.timestamp()
    wanted = replace(
        draft,
        content=content,
        state_key=state_key,
        origin_server_ts=ts,
        sticky_ms=http.sticky_ms(),
    )
    sending.check_form(wanted)
    with homeserver.database.write() as tx:
        found = delayed_events.schedule(tx, wanted, delay_ms)
        if found.due_ts is not None:
            tx.after_commit(partial(homeserver.delayed_events.note, found.due_ts))
    presence.note_activity(homeserver.ephemeral, me.user_id, me.device_id)
    return {"delay_id": found.delay_id}


def _check(draft: sending.Draft, content: Json, state_key: str | None) -> None:
    """Raise what is certain before the event is sent, by the errors of /send and /state."""
    if draft.txn_id is not None and len(draft.txn_id.encode()) > identifiers.MAX_BYTES:
        raise errors.invalid_param("The transaction ID is longer than 255 bytes")
    if draft.type == state.MEMBER and state_key is not None:
        delayed_sending.check_membership(content)
        is_own = (content["membership"], state_key) == ("leave", draft.sender)
        if requester().is_guest and not is_own:
            raise errors.guest_access_forbidden("Guests can only leave")
    try:
        canonical_json.check(content, is_strict=True)
    except ValueError as problem:
        raise errors.bad_json(str(problem)) from None


def _limit(cost: int = 1) -> None:
    user = maybe_requester()
    key = authentication.address_key() if user is None else user.user_id
    authentication.rate_limits().check("rc_delayed_event_mgmt", key, cost)
