"""Server-side key backups: room keys that clients encrypt and store on the server.

Spec: client-server-api#server-side-key-backups
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.encryption import backed_up_keys, key_backup
from homebody.core.encryption.backed_up_keys import Key
from homebody.spec.events import Json

bp = Blueprint("key_backup", __name__)


class Version(msgspec.Struct):
    """The body of a request to create or update a backup version."""

    algorithm: str
    auth_data: Json
    version: str | None = None


class RoomKeys(msgspec.Struct):
    """The body of a request to store keys of one room."""

    sessions: dict[str, Key]


class AllKeys(msgspec.Struct):
    """The body of a request to store keys of several rooms."""

    rooms: dict[str, RoomKeys]


@bp.post("/room_keys/version")
@authenticated(suspended=True)
def post_room_keys_version() -> Json:
    """Create a new backup version, to which all devices write from now on.

    Spec: client-server-api#post_matrixclientv3room_keysversion
    """
    body = http.body_as(Version)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_key_backup", user_id)
    with homeserver.database.write() as tx:
        return {"version": key_backup.create(tx, user_id, body.algorithm, body.auth_data)}


@bp.get("/room_keys/version")
@authenticated()
def get_room_keys_version_current() -> Json:
    """Return the newest backup version.

    Spec: client-server-api#get_matrixclientv3room_keysversion
    """
    with homeserver.database.read() as tx:
        return key_backup.current(tx, requester().user_id)


@bp.get("/room_keys/version/<version>")
@authenticated()
def get_room_keys_version(version: str) -> Json:
    """Return a backup version.

    Spec: client-server-api#get_matrixclientv3room_keysversionversion
    """
    with homeserver.database.read() as tx:
        return key_backup.get(tx, requester().user_id, version)


@bp.put("/room_keys/version/<version>")
@authenticated(suspended=True)
def put_room_keys_version(version: str) -> Json:
    """Update the auth_data of a backup version: clients add signatures to it.

    Spec: client-server-api#put_matrixclientv3room_keysversionversion
    """
    body = http.body_as(Version)
    if body.version not in (None, version):
        raise errors.invalid_param("The body names another version than the path")
    user_id = requester().user_id
    with homeserver.database.write() as tx:
        key_backup.change(tx, user_id, version, body.algorithm, body.auth_data)
    return {}


@bp.delete("/room_keys/version/<version>")
@authenticated(suspended=True)
def delete_room_keys_version(version: str) -> Json:
    """Delete a backup version and all keys in it.

    Spec: client-server-api#delete_matrixclientv3room_keysversionversion
    """
    backed_up_keys.remove_version(homeserver.database, requester().user_id, version)
    return {}


@bp.put("/room_keys/keys")
@authenticated(suspended=True)
def put_room_keys() -> Json:
    """Store keys of several rooms.

    Spec: client-server-api#put_matrixclientv3room_keyskeys
    """
    rooms = http.body_as(AllKeys, max_bytes=http.MAX_LARGE_BODY_BYTES).rooms
    return _put(
        {
            (room_id, session_id): key
            for room_id, room in rooms.items()
            for session_id, key in room.sessions.items()
        }
    )


@bp.put("/room_keys/keys/<room_id>")
@authenticated(suspended=True)
def put_room_keys_by_room_id(room_id: str) -> Json:
    """Store keys of one room.

    Spec: client-server-api#put_matrixclientv3room_keyskeysroomid
    """
    sessions = http.body_as(RoomKeys, max_bytes=http.MAX_LARGE_BODY_BYTES).sessions
    return _put({(room_id, session_id): key for session_id, key in sessions.items()})


@bp.put("/room_keys/keys/<room_id>/<session_id>")
@authenticated(suspended=True)
def put_room_key_by_session_id(room_id: str, session_id: str) -> Json:
    """Store one key.

    Spec: client-server-api#put_matrixclientv3room_keyskeysroomidsessionid
    """
    return _put({(room_id, session_id): http.body_as(Key)})


@bp.get("/room_keys/keys")
@authenticated()
def get_room_keys() -> Json:
    """Return all keys of a backup version.

    Spec: client-server-api#get_matrixclientv3room_keyskeys
    """
    with homeserver.database.read() as tx:
        return backed_up_keys.of_version(tx, requester().user_id, _version())


@bp.get("/room_keys/keys/<room_id>")
@authenticated()
def get_room_keys_by_room_id(room_id: str) -> Json:
    """Return the keys of a room.

    Spec: client-server-api#get_matrixclientv3room_keyskeysroomid
    """
    with homeserver.database.read() as tx:
        return backed_up_keys.of_room(tx, requester().user_id, _version(), room_id)


@bp.get("/room_keys/keys/<room_id>/<session_id>")
@authenticated()
def get_room_key_by_session_id(room_id: str, session_id: str) -> Json:
    """Return the key of a session.

    Spec: client-server-api#get_matrixclientv3room_keyskeysroomidsessionid
    """
    user_id = requester().user_id
    with homeserver.database.read() as tx:
        return backed_up_keys.of_session(tx, user_id, _version(), room_id, session_id)


@bp.delete("/room_keys/keys")
@authenticated(suspended=True)
def delete_room_keys() -> Json:
    """Delete all keys of a backup version.

    Spec: client-server-api#delete_matrixclientv3room_keyskeys
    """
    return backed_up_keys.remove(homeserver.database, requester().user_id, _version())


@bp.delete("/room_keys/keys/<room_id>")
@authenticated(suspended=True)
def delete_room_keys_by_room_id(room_id: str) -> Json:
    """Delete the keys of a room.

    Spec: client-server-api#delete_matrixclientv3room_keyskeysroomid
    """
    return backed_up_keys.remove(homeserver.database, requester().user_id, _version(), room_id)


@bp.delete("/room_keys/keys/<room_id>/<session_id>")
@authenticated(suspended=True)
def delete_room_key_by_session_id(room_id: str, session_id: str) -> Json:
    """Delete the key of a session.

    Spec: client-server-api#delete_matrixclientv3room_keyskeysroomidsessionid
    """
    user_id = requester().user_id
    return backed_up_keys.remove(homeserver.database, user_id, _version(), room_id, session_id)


def _put(keys: dict[tuple[str, str], Key]) -> Json:
    return backed_up_keys.put(homeserver.database, requester().user_id, _version(), keys)


def _version() -> str:
    return http.query_required("version")
