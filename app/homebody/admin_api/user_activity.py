"""What a user does and has set: rooms, invites, account data, experimental features."""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import experimental_features
from homebody.core.administration import user_activity, users
from homebody.core.events import state
from homebody.core.user_data import account_data
from homebody.spec.events import Json

bp = Blueprint("admin_user_activity", __name__)


class Features(msgspec.Struct):
    """The body of PUT /experimental_features."""

    features: dict[str, bool]


@bp.get("/v1/users/<user_id>/joined_rooms")
@authenticated(admins_only=True)
def list_joined_rooms(user_id: str) -> Json:
    """Return the rooms of a user, who may be of another server; none for an unknown one."""
    with homeserver.database.read() as tx:
        rooms = sorted(state.joined_rooms(tx, user_id))
    return {"joined_rooms": rooms, "total": len(rooms)}


@bp.get("/v1/users/<user_id>/memberships")
@authenticated(admins_only=True)
def get_memberships(user_id: str) -> Json:
    """Return {room_id: membership} of a user."""
    with homeserver.database.read() as tx:
        return {"memberships": user_activity.memberships(tx, user_id)}


@bp.get("/v1/users/<user_id>/sent_invite_count")
@authenticated(admins_only=True)
def get_sent_invite_count(user_id: str) -> Json:
    """Return how many invites a user has sent since a time."""
    from_ts = _from_ts()
    with homeserver.database.read() as tx:
        return {"invite_count": user_activity.count_of_sent_invites(tx, user_id, from_ts)}


@bp.get("/v1/users/<user_id>/cumulative_joined_room_count")
@authenticated(admins_only=True)
def get_joined_room_count(user_id: str) -> Json:
    """Return how many rooms a user has joined since a time."""
    from_ts = _from_ts()
    with homeserver.database.read() as tx:
        count = user_activity.count_of_joined_rooms(tx, user_id, from_ts)
    return {"cumulative_joined_room_count": count}


def _from_ts() -> int:
    http.query_required("from_ts")
    return http.query_integer("from_ts", 0)


@bp.get("/v1/users/<user_id>/accountdata")
@authenticated(admins_only=True)
def get_account_data(user_id: str) -> Json:
    """Return the account data of a user, without push rules."""
    with homeserver.database.read() as tx:
        users.find(tx, user_id)
        found = account_data.everything(tx, user_id)
    return {"account_data": {"global": found.pop("", {}), "rooms": found}}


@bp.get("/v1/experimental_features/<user_id>")
@authenticated(admins_only=True)
def get_experimental_features(user_id: str) -> Json:
    """Return which experimental features were switched on for an account."""
    users.check_local(homeserver.server, user_id)
    with homeserver.database.read() as tx:
        return {"features": experimental_features.of_user(tx, user_id)}


@bp.put("/v1/experimental_features/<user_id>")
@authenticated(admins_only=True)
def set_experimental_features(user_id: str) -> Json:
    """Switch experimental features on or off for an account."""
    body = http.body_as(Features)
    if not body.features:
        raise errors.unknown("The body names no features")
    with homeserver.database.write() as tx:
        users.find(tx, user_id)
        experimental_features.put(tx, requester().user_id, user_id, body.features)
    return {}
