"""Administration of other users' accounts, and reports of content to administrators.

Spec: client-server-api#server-administration, client-server-api#reporting-content
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import accounts, moderation
from homebody.core.rooms import reports
from homebody.spec.events import Json

bp = Blueprint("admin", __name__)
bp_v1 = Blueprint("admin_v1", __name__, url_prefix="/_matrix/client/v1")


class Lock(msgspec.Struct):
    """The body of a request to lock or unlock an account."""

    locked: bool


class Suspend(msgspec.Struct):
    """The body of a request to suspend an account, or to end that."""

    suspended: bool


@bp.get("/admin/whois/<user_id>")
@authenticated()
def get_who_is(user_id: str) -> Json:
    """Return when and from which addresses a user's devices were last used."""
    moderation.check_may_ask(requester(), user_id)
    with homeserver.database.read() as tx:
        if accounts.find(tx, user_id) is None:
            raise errors.not_found("This server has no such user")
        return moderation.whois(tx, user_id, homeserver.last_seen)


@bp_v1.get("/admin/lock/<user_id>")
@authenticated()
def get_admin_lock_user(user_id: str) -> Json:
    """Return whether an account is locked."""
    with homeserver.database.read() as tx:
        return {"locked": moderation.find(tx, requester(), user_id).is_locked}


@bp_v1.put("/admin/lock/<user_id>")
@authenticated()
def set_admin_lock_user(user_id: str) -> Json:
    """Lock an account, or unlock it."""
    body = http.body_as(Lock)
    with homeserver.database.write() as tx:
        account = moderation.find_other(tx, requester(), user_id)
        moderation.set_locked(tx, requester().user_id, account, is_locked=body.locked)
    return {"locked": body.locked}


@bp_v1.get("/admin/suspend/<user_id>")
@authenticated()
def get_admin_suspend_user(user_id: str) -> Json:
    """Return whether an account is suspended."""
    with homeserver.database.read() as tx:
        return {"suspended": moderation.find(tx, requester(), user_id).is_suspended}


@bp_v1.put("/admin/suspend/<user_id>")
@authenticated()
def set_admin_suspend_user(user_id: str) -> Json:
    """Suspend an account, or end its suspension."""
    body = http.body_as(Suspend)
    with homeserver.database.write() as tx:
        account = moderation.find_other(tx, requester(), user_id)
        moderation.set_suspended(tx, requester().user_id, account, is_suspended=body.suspended)
    return {"suspended": body.suspended}


class Reason(msgspec.Struct):
    """The body of a report about a room or a user; the reason may be empty."""

    reason: str


class EventReason(msgspec.Struct):
    """The body of a report about an event; older clients send a score as well."""

    reason: str | None = None
    score: http.Integer | None = None


@bp.post("/rooms/<room_id>/report")
@authenticated(suspended=True)
def report_room(room_id: str) -> Json:
    """Report a room."""
    body = http.body_as(Reason)
    authentication.rate_limits().check("rc_reports", requester().user_id)
    with homeserver.database.write() as tx:
        reports.report_room(tx, requester().user_id, room_id, body.reason)
    return {}


@bp.post("/rooms/<room_id>/report/<event_id>")
@authenticated(suspended=True)
def report_event(room_id: str, event_id: str) -> Json:
    """Report an event."""
    body = http.body_as(EventReason)
    authentication.rate_limits().check("rc_reports", requester().user_id)
    with homeserver.database.write() as tx:
        reports.report_event(
            tx, requester().user_id, room_id, event_id, body.reason or "", body.score
        )
    return {}


@bp.post("/users/<user_id>/report")
@authenticated(suspended=True)
def report_user(user_id: str) -> Json:
    """Report a user."""
    body = http.body_as(Reason)
    authentication.rate_limits().check("rc_reports", requester().user_id)
    with homeserver.database.write() as tx:
        reports.report_user(tx, requester().user_id, user_id, body.reason)
    return {}
