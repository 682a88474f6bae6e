"""Pushers, push rules, and the list of notifications.

Spec: client-server-api#push-notifications, client-server-api#push-rules-api,
client-server-api#listing-notifications
"""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.push import notifications, pushers
from homebody.core.user_data import push_rules
from homebody.spec.events import Json

bp = Blueprint("push", __name__)


class Key(msgspec.Struct):
    """The key of a pusher, and its kind; null deletes the pusher."""

    app_id: str
    pushkey: str
    kind: str | None


class Set(msgspec.Struct):
    """A pusher to create or update."""

    app_id: str
    pushkey: str
    app_display_name: str
    device_display_name: str
    lang: str
    data: dict[str, Any]
    profile_tag: str | None = None
    append: bool | None = False


@bp.get("/pushers")
@authenticated()
def get_pushers() -> Json:
    """Return the user's pushers, of all devices."""
    with homeserver.database.read() as tx:
        return {"pushers": pushers.all_of(tx, requester().user_id)}


@bp.post("/pushers/set")
@authenticated(suspended=True)
def post_pusher() -> Json:
    """Create, update or delete a pusher."""
    me, body = requester(), http.json_object()
    authentication.rate_limits().check("rc_lookups", me.user_id)
    key = http.convert(body, Key)
    if key.kind is None:
        with homeserver.database.write() as tx:
            pushers.remove(tx, me.user_id, key.app_id, key.pushkey)
        return {}
    if key.kind not in {pushers.HTTP, pushers.EMAIL}:
        raise errors.invalid_param("kind must be http, email or null")
    given = http.convert(body, Set)
    wanted = pushers.PusherRequest(
        given.app_id,
        given.pushkey,
        given.app_display_name,
        given.device_display_name,
        given.lang,
        given.data,
        given.profile_tag,
        key.kind,
    )
    if key.kind == pushers.HTTP:
        pushers.check(homeserver.outside, wanted)  # before the write: it resolves a name
    with homeserver.database.write() as tx:
        if key.kind == pushers.EMAIL:
            wanted = pushers.check_mailbox(tx, me.user_id, wanted)
        pushers.put(tx, me.user_id, me.device_id, wanted, append=bool(given.append))
    return {}


DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class Enabled(msgspec.Struct):
    """The body of /enabled."""

    enabled: bool


class Actions(msgspec.Struct):
    """The body of /actions, and the required field of a rule."""

    actions: list[Any]


@bp.get("/pushrules/")
@authenticated()
def get_push_rules() -> Json:
    """Return all push rules."""
    with homeserver.database.read() as tx:
        return push_rules.all_rules(tx, requester().user_id)


@bp.get("/pushrules/global/")
@authenticated()
def get_push_rules_global() -> Json:
    """Return the push rules of the only rule set, `global`."""
    with homeserver.database.read() as tx:
        shown: Json = push_rules.all_rules(tx, requester().user_id)["global"]
    return shown


@bp.get("/pushrules/global/<kind>/<rule_id>")
@authenticated()
def get_push_rule(kind: str, rule_id: str) -> Json:
    """Return a push rule."""
    with homeserver.database.read() as tx:
        return push_rules.get(tx, requester().user_id, kind, rule_id)


@bp.put("/pushrules/global/<kind>/<rule_id>")
@authenticated(suspended=True)
def set_push_rule(kind: str, rule_id: str) -> Json:
    """Create or update a push rule."""
    rule = http.json_object()
    http.convert(rule, Actions)
    before, after = request.args.get("before"), request.args.get("after")
    with homeserver.database.write() as tx:
        push_rules.put(tx, requester().user_id, kind, rule_id, rule, before, after)
    return {}


@bp.delete("/pushrules/global/<kind>/<rule_id>")
@authenticated(suspended=True)
def delete_push_rule(kind: str, rule_id: str) -> Json:
    """Delete a push rule that the user has created."""
    with homeserver.database.write() as tx:
        push_rules.remove(tx, requester().user_id, kind, rule_id)
    return {}


@bp.get("/pushrules/global/<kind>/<rule_id>/enabled")
@authenticated()
def is_push_rule_enabled(kind: str, rule_id: str) -> Json:
    """Return whether a push rule is enabled."""
    with homeserver.database.read() as tx:
        return {"enabled": push_rules.get(tx, requester().user_id, kind, rule_id)["enabled"]}


@bp.put("/pushrules/global/<kind>/<rule_id>/enabled")
@authenticated(suspended=True)
def set_push_rule_enabled(kind: str, rule_id: str) -> Json:
    """Enable or disable a push rule."""
    enabled = http.body_as(Enabled).enabled
    with homeserver.database.write() as tx:
        push_rules.set_enabled(tx, requester().user_id, kind, rule_id, enabled)
    return {}


@bp.get("/pushrules/global/<kind>/<rule_id>/actions")
@authenticated()
def get_push_rule_actions(kind: str, rule_id: str) -> Json:
    """Return the actions of a push rule."""
    with homeserver.database.read() as tx:
        return {"actions": push_rules.get(tx, requester().user_id, kind, rule_id)["actions"]}


@bp.put("/pushrules/global/<kind>/<rule_id>/actions")
@authenticated(suspended=True)
def set_push_rule_actions(kind: str, rule_id: str) -> Json:
    """Change the actions of a push rule."""
    actions = http.body_as(Actions).actions
    with homeserver.database.write() as tx:
        push_rules.set_actions(tx, requester().user_id, kind, rule_id, actions)
    return {}


@bp.get("/notifications")
@authenticated()
def get_notifications() -> Json:
    """Return the events that notified the user, or would have; the newest first."""
    limit = http.query_integer("limit", DEFAULT_LIMIT, least=1, cap=MAX_LIMIT)
    before = http.query_integer("from", http.MAX_INTEGER)
    only_highlights = request.args.get("only") == "highlight"
    with homeserver.database.read() as tx:
        return notifications.page(tx, requester(), before, limit, only_highlights=only_highlights)
