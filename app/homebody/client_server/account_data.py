"""Account data and tags.

Spec: client-server-api#client-config, client-server-api#room-tagging
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, must_be_me
from homebody.context import homeserver
from homebody.core.user_data import account_data
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("account_data", __name__)

MAX_BODY_BYTES: Final = 4 * account_data.MAX_BYTES
"""Includes white space and escapes."""


@bp.put("/user/<user_id>/account_data/<event_type>")
@authenticated(suspended=True)
def set_account_data(user_id: str, event_type: str) -> Json:
    """Store a JSON object for all of the user's devices."""
    must_be_me(user_id)
    content = http.json_object(max_bytes=MAX_BODY_BYTES)
    with homeserver.database.write() as tx:
        account_data.put(tx, user_id, event_type, content)
    return {}


@bp.get("/user/<user_id>/account_data/<event_type>")
@authenticated()
def get_account_data(user_id: str, event_type: str) -> Json:
    """Return the global account data of this type."""
    must_be_me(user_id)
    with homeserver.database.read() as tx:
        return account_data.get(tx, user_id, event_type)


@bp.put("/user/<user_id>/rooms/<room_id>/account_data/<event_type>")
@authenticated(suspended=True)
def set_account_data_per_room(user_id: str, room_id: str, event_type: str) -> Json:
    """Store a JSON object about a room for all of the user's devices."""
    _check(user_id, room_id)
    content = http.json_object(max_bytes=MAX_BODY_BYTES)
    with homeserver.database.write() as tx:
        account_data.put(tx, user_id, event_type, content, room_id)
    return {}


@bp.get("/user/<user_id>/rooms/<room_id>/account_data/<event_type>")
@authenticated()
def get_account_data_per_room(user_id: str, room_id: str, event_type: str) -> Json:
    """Return the account data of this type about a room."""
    _check(user_id, room_id)
    with homeserver.database.read() as tx:
        return account_data.get(tx, user_id, event_type, room_id)


@bp.delete("/org.matrix.msc3391/user/<user_id>/account_data/<event_type>")
@authenticated(suspended=True)
def delete_account_data(user_id: str, event_type: str) -> Json:
    """Delete the global account data of this type, if there is some (MSC3391)."""
    must_be_me(user_id)
    with homeserver.database.write() as tx:
        account_data.remove(tx, user_id, event_type)
    return {}


@bp.delete("/org.matrix.msc3391/user/<user_id>/rooms/<room_id>/account_data/<event_type>")
@authenticated(suspended=True)
def delete_account_data_per_room(user_id: str, room_id: str, event_type: str) -> Json:
    """Delete the account data of this type about a room, if there is some (MSC3391)."""
    _check(user_id, room_id)
    with homeserver.database.write() as tx:
        account_data.remove(tx, user_id, event_type, room_id)
    return {}


@bp.get("/user/<user_id>/rooms/<room_id>/tags")
@authenticated()
def get_room_tags(user_id: str, room_id: str) -> Json:
    """Return the user's tags of the room."""
    _check(user_id, room_id)
    with homeserver.database.read() as tx:
        return {"tags": account_data.tags(tx, user_id, room_id)}


@bp.put("/user/<user_id>/rooms/<room_id>/tags/<tag>")
@authenticated(suspended=True)
def set_room_tag(user_id: str, room_id: str, tag: str) -> Json:
    """Add a tag to the room, or replace it."""
    _check(user_id, room_id)
    information = http.json_object()
    with homeserver.database.write() as tx:
        account_data.put_tag(tx, user_id, room_id, tag, information)
    return {}


@bp.delete("/user/<user_id>/rooms/<room_id>/tags/<tag>")
@authenticated(suspended=True)
def delete_room_tag(user_id: str, room_id: str, tag: str) -> Json:
    """Remove a tag from the room."""
    _check(user_id, room_id)
    with homeserver.database.write() as tx:
        account_data.remove_tag(tx, user_id, room_id, tag)
    return {}


def _check(user_id: str, room_id: str) -> None:
    must_be_me(user_id)
    if not identifiers.is_room_id(room_id):
        raise errors.invalid_param("The room ID is not valid")
