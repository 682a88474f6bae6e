"""Pushers: where notifications go.

Spec: client-server-api#push-notifications
"""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.push import pushers
from homebody.spec.events import Json

bp = Blueprint("pushers", __name__)


class Key(msgspec.Struct):
    """What names a pusher; with kind null it is to be deleted."""

    app_id: str
    pushkey: str
    kind: str | None


class Set(msgspec.Struct):
    """A pusher to make or change."""

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
    """The user's pushers, of all devices."""
    with context.db().read() as tx:
        return {"pushers": pushers.all_of(tx, requester().user_id)}


@bp.post("/pushers/set")
@authenticated(suspended=True)
def post_pusher() -> Json:
    """Make, change or delete a pusher."""
    who, body = requester(), http.json_object()
    context.rate_limits().check("rc_lookups", who.user_id)
    key = http.convert(body, Key)
    if key.kind is None:
        with context.db().write() as tx:
            pushers.remove(tx, who.user_id, key.app_id, key.pushkey)
        return {}
    if key.kind not in {pushers.HTTP, pushers.EMAIL}:
        raise errors.invalid_param("Pushers are of the kind http or email")
    asked = http.convert(body, Set)
    wanted = pushers.Wanted(
        asked.app_id,
        asked.pushkey,
        asked.app_display_name,
        asked.device_display_name,
        asked.lang,
        asked.data,
        asked.profile_tag,
        key.kind,
    )
    if key.kind == pushers.HTTP:
        pushers.check(context.homeserver().outside, wanted)  # before the write: it looks a name up
    with context.db().write() as tx:
        if key.kind == pushers.EMAIL:
            wanted = pushers.check_mailbox(tx, who.user_id, wanted)
        pushers.put(tx, who.user_id, who.device_id, wanted, append=bool(asked.append))
    return {}
