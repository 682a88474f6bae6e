"""Profiles, the user directory, and mutual rooms.

Spec: client-server-api#profiles, client-server-api#user-directory, client-server-api#mutual-rooms
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import (
    authenticated,
    limit_lookups,
    limit_strangers,
    must_be_me,
    requester,
    unauthenticated,
)
from homebody.context import homeserver
from homebody.core.profiles import profiles, user_directory
from homebody.core.rooms import mutual_rooms
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("profile", __name__)
bp_v1 = Blueprint("profile_v1", __name__, url_prefix="/_matrix/client/v1")


@bp.get("/profile/<user_id>")
@unauthenticated
def get_user_profile(user_id: str) -> Json:
    """Return a user's profile, if need be from their server. Needs no account.

    Spec: client-server-api#get_matrixclientv3profileuserid
    """
    limit_strangers()
    if _is_elsewhere(user_id):
        return homeserver.remote_queries.profile(user_id, limit_lookups)
    with homeserver.database.read() as tx:
        return profiles.get(tx, user_id)


@bp.get("/profile/<user_id>/<key_name>")
@unauthenticated
def get_profile_field(user_id: str, key_name: str) -> Json:
    """Return one field of a user's profile, if need be from their server. Needs no account.

    Spec: client-server-api#get_matrixclientv3profileuseridkeyname
    """
    limit_strangers()
    if _is_elsewhere(user_id):
        return homeserver.remote_queries.profile_field(user_id, key_name, limit_lookups)
    with homeserver.database.read() as tx:
        return profiles.get_field(tx, user_id, key_name)


def _is_elsewhere(user_id: str) -> bool:
    """Return whether another server has the profile."""
    server = homeserver.server
    return (
        server.config.federation
        and not server.is_local(user_id)
        and identifiers.is_user_id(user_id)
    )


@bp.put("/profile/<user_id>/<key_name>")
@authenticated(guests="partly")
def set_profile_field(user_id: str, key_name: str) -> Json:
    """Set a field of the requester's profile; the body has one key, the field's name.

    Spec: client-server-api#put_matrixclientv3profileuseridkeyname
    """
    _check_guest(key_name)
    must_be_me(user_id)
    body = http.json_object()
    profiles.check_name(key_name)
    if key_name not in body:
        raise errors.missing_param(f"The body has no {key_name}")
    authentication.rate_limits().check("rc_message", user_id)  # it sends events into rooms
    with homeserver.database.write() as tx:
        profiles.put(tx, user_id, key_name, body[key_name])
    if not requester().is_shadow_banned:
        profiles.update_rooms(homeserver.database, user_id, key_name)
    return {}


@bp.delete("/profile/<user_id>/<key_name>")
@authenticated(guests="partly")
def delete_profile_field(user_id: str, key_name: str) -> Json:
    """Delete a field of the requester's profile.

    Spec: client-server-api#delete_matrixclientv3profileuseridkeyname
    """
    _check_guest(key_name)
    must_be_me(user_id)
    authentication.rate_limits().check("rc_message", user_id)
    with homeserver.database.write() as tx:
        profiles.remove(tx, user_id, key_name)
    if not requester().is_shadow_banned:
        profiles.update_rooms(homeserver.database, user_id, key_name)
    return {}


def _check_guest(key_name: str) -> None:
    """Raise M_GUEST_ACCESS_FORBIDDEN when a guest would change anything but the display name.

    "Guest users may only modify their display name; other profile fields may not be changed."
    """
    if requester().is_guest and key_name != "displayname":
        raise errors.guest_access_forbidden("Guests can change only their display name")


class Search(msgspec.Struct):
    """The body of POST /user_directory/search."""

    search_term: Annotated[str, msgspec.Meta(max_length=1000)]
    limit: int = 10


@bp.post("/user_directory/search")
@authenticated(suspended=True, only_reads=True)
def search_user_directory() -> Json:
    """Search for users that the requester may see, by their names."""
    wanted = http.body_as(Search)
    if wanted.limit < 0:
        raise errors.invalid_param("limit can't be negative")
    authentication.rate_limits().check("rc_lookups", requester().user_id)
    limit = min(wanted.limit, user_directory.MAX_LIMIT)
    with homeserver.database.read() as tx:
        return user_directory.search(tx, requester().user_id, wanted.search_term, limit)


@bp_v1.get("/mutual_rooms")
@authenticated()
def get_mutual_rooms() -> Json:
    """Return the rooms in which the requester and another user are joined."""
    other = http.query_required("user_id")
    authentication.rate_limits().check("rc_lookups", requester().user_id)
    with homeserver.database.read() as tx:
        return mutual_rooms.shared(tx, requester().user_id, other, request.args.get("from"))


@bp.get("/uk.half-shot.msc2666/user/mutual_rooms")  # for clients /unstable: see middleware.py
@authenticated()
def get_unstable_mutual_rooms() -> Json:
    """Return the mutual rooms in the form of MSC2666, which matrix-js-sdk still uses."""
    other = http.query_required("user_id")
    authentication.rate_limits().check("rc_lookups", requester().user_id)
    with homeserver.database.read() as tx:
        start = request.args.get("batch_token")
        page = mutual_rooms.shared(tx, requester().user_id, other, start)
    token = page.pop("next_batch", None)
    return page if token is None else {**page, "next_batch_token": token}
