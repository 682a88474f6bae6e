"""What users say of themselves.

Spec: client-server-api#profiles
"""

from __future__ import annotations

from flask import Blueprint

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import (
    authenticated,
    limit_strangers,
    must_be_me,
    requester,
    unauthenticated,
)
from homebody.core.profiles import profiles
from homebody.spec.events import Json

bp = Blueprint("profile", __name__)


@bp.get("/profile/<user_id>")
@unauthenticated
def get_user_profile(user_id: str) -> Json:
    """All of a user's profile, for whoever asks.

    Spec: client-server-api#get_matrixclientv3profileuserid
    """
    limit_strangers()
    with context.db().read() as tx:
        return profiles.get(tx, user_id)


@bp.get("/profile/<user_id>/<key_name>")
@unauthenticated
def get_profile_field(user_id: str, key_name: str) -> Json:
    """One field of it.

    Spec: client-server-api#get_matrixclientv3profileuseridkeyname
    """
    limit_strangers()
    with context.db().read() as tx:
        return profiles.get_field(tx, user_id, key_name)


@bp.put("/profile/<user_id>/<key_name>")
@authenticated(guests="partly")
def set_profile_field(user_id: str, key_name: str) -> Json:
    """Set a field of one's own profile; the body has one key, the field's name.

    Spec: client-server-api#put_matrixclientv3profileuseridkeyname
    """
    _check_guest(key_name)
    must_be_me(user_id)
    body = http.json_object()
    profiles.check_name(key_name)
    if key_name not in body:
        raise errors.missing_param(f"The body has no {key_name}")
    context.rate_limits().check("rc_message", user_id)  # it sends events into rooms
    with context.db().write() as tx:
        profiles.put(tx, user_id, key_name, body[key_name])
    profiles.update_rooms(context.db(), user_id, key_name)
    return {}


@bp.delete("/profile/<user_id>/<key_name>")
@authenticated(guests="partly")
def delete_profile_field(user_id: str, key_name: str) -> Json:
    """Take a field out of one's own profile.

    Spec: client-server-api#delete_matrixclientv3profileuseridkeyname
    """
    _check_guest(key_name)
    must_be_me(user_id)
    context.rate_limits().check("rc_message", user_id)
    with context.db().write() as tx:
        profiles.remove(tx, user_id, key_name)
    profiles.update_rooms(context.db(), user_id, key_name)
    return {}


def _check_guest(key_name: str) -> None:
    """Raise M_GUEST_ACCESS_FORBIDDEN when a guest would change anything but the display name.

    "Guest users may only modify their display name; other profile fields may not be changed."
    """
    if requester().is_guest and key_name != "displayname":
        raise errors.guest_access_forbidden("Guests can change only their display name")
