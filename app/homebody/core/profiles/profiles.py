"""Profiles: display name, avatar, time zone, and custom fields.

Display name and avatar are repeated in the user's member event of every room. A change of either
is sent to all joined rooms before the request is answered, some rooms per transaction, so that
other writers get their turn. After a crash the client's repeated request does the rest. This module
alone writes the table profile_fields.

Spec: client-server-api#profiles, client-server-api#events-on-change-of-profile-information
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import accounts, user_directory_index
from homebody.core.events import state
from homebody.core.profiles import profile_changes
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.models.accounts import ProfileField
from homebody.runtime import event_loop
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

IN_ROOMS: Final = ("displayname", "avatar_url")
"""The fields that member events repeat."""
MAX_BYTES: Final = 65_536
"""The size of all names and values of a profile together, as JSON."""
MAX_DISPLAYNAME: Final = 256
"""Characters; member events, which repeat it, have a limit of their own."""
MAX_AVATAR_URL: Final = 1000
ROOMS_AT_ONCE: Final = 10
"""Updated in one transaction; each takes 1 to 3 ms."""
AUTHORISER: Final = "join_authorised_via_users_server"

_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_ALL = select(ProfileField.name, ProfileField.value).where(
    ProfileField.user_id == bindparam("user_id")
)
_FIELD = _ALL.where(ProfileField.name == bindparam("name"))
_FOR_ROOMS = _ALL.where(ProfileField.name.in_(IN_ROOMS))


def create(tx: Tx, user_id: str) -> None:
    """Give a new account its localpart as a display name, until the user chooses another.

    Clients show the whole user ID of a user without a name, and other servers do the same.
    The user directory finds the user by the localpart anyway.
    """
    value = orjson.dumps(identifiers.localpart(user_id)).decode()
    row = {"user_id": user_id, "name": "displayname", "value": value}
    tx.sql.execute(insert(ProfileField), row)


def restore(tx: Tx, user_id: str) -> None:
    """Have an account that is active again found by its name; an erased one gets its first name."""
    name = of(tx, user_id).get("displayname")
    if name is not None:
        user_directory_index.put(tx, user_id, name)
    elif tx.sql.execute(_ALL, {"user_id": user_id}).first() is None:
        create(tx, user_id)


def of(tx: Reader, user_id: str) -> Json:
    """Return the fields that member events repeat, where the user has set them."""
    found = tx.sql.execute(_FOR_ROOMS, {"user_id": user_id})
    return {row.name: orjson.loads(row.value) for row in found}


def get(tx: Reader, user_id: str) -> Json:
    """Return the whole profile. Raises M_NOT_FOUND for an unknown or deactivated user."""
    _check_exists(tx, user_id)
    found = tx.sql.execute(_ALL, {"user_id": user_id})
    return {row.name: orjson.loads(row.value) for row in found}


def get_field(tx: Reader, user_id: str, name: str) -> Json:
    """Return an object with this one field. Raises M_NOT_FOUND where the user has not set it."""
    _check_exists(tx, user_id)
    row = tx.sql.execute(_FIELD, {"user_id": user_id, "name": name}).first()
    if row is None:
        raise errors.not_found("The profile has no such field")
    return {name: orjson.loads(row.value)}


def put(tx: Tx, user_id: str, name: str, value: Any) -> None:
    """Set a field; `update_rooms` sends it to the user's rooms.

    Raises M_INVALID_PARAM and M_KEY_TOO_LARGE for the name, M_BAD_JSON and M_INVALID_PARAM for the
    value, M_PROFILE_TOO_LARGE.
    """
    check_name(name)
    # Deviates: "" would be a name like any other. Clients older than DELETE (v1.16) have no other
    # way to remove a name or an avatar.
    if name in IN_ROOMS and value == "":
        remove(tx, user_id, name)
        return
    _check_value(name, value)
    text = orjson.dumps(value)
    profile = {row.name: row.value.encode() for row in tx.sql.execute(_ALL, {"user_id": user_id})}
    if profile.get(name) == text:
        return
    _check_size({**profile, name: text})
    _delete(tx, user_id, name)
    row = {"user_id": user_id, "name": name, "value": text.decode()}
    tx.sql.execute(insert(ProfileField), row)
    profile_changes.note(tx, user_id, name)
    if name == "displayname":
        user_directory_index.put(tx, user_id, value)


def remove(tx: Tx, user_id: str, name: str) -> None:
    """Remove a field, if it is set; `update_rooms` does so in the user's rooms.

    Raises M_INVALID_PARAM and M_KEY_TOO_LARGE for a name that no field can have.
    """
    check_name(name)
    if not _delete(tx, user_id, name):
        return
    profile_changes.note(tx, user_id, name)
    if name == "displayname":
        user_directory_index.put(tx, user_id, None)


def _delete(tx: Tx, user_id: str, name: str) -> bool:
    field = (ProfileField.user_id == user_id, ProfileField.name == name)
    return tx.sql.execute(delete(ProfileField).where(*field)).rowcount > 0


def update_rooms(db: Database, user_id: str, name: str) -> None:
    """Send a changed field to the user's rooms, if it is one that member events repeat.

    400 rooms take more than a second, so each transaction has a few of them. With concurrent
    changes each room gets the newer one. A room that has the value already is skipped.
    """
    if name not in IN_ROOMS:
        return
    with db.read() as reading:
        room_ids = _outdated_rooms(reading, user_id, name, _value(reading, user_id, name))
    for some in batches(room_ids, ROOMS_AT_ONCE):
        with db.write() as tx:
            for room_id in some:
                _update_room(tx, user_id, name, room_id)


def erase(tx: Tx, user_id: str) -> None:
    """Delete the profile of an account that is deactivated and has left its rooms."""
    tx.sql.execute(delete(ProfileField).where(ProfileField.user_id == user_id))
    profile_changes.erase(tx, user_id)


def check_name(name: str) -> None:
    """Raise M_INVALID_PARAM for an invalid name, M_KEY_TOO_LARGE above 255 bytes.

    Unknown names in the specification's own namespace (`m.`) are accepted, as it may have defined
    them since.
    Spec: appendices#common-namespaced-identifier-grammar
    """
    if not identifiers.has_at_most_255_bytes(name):
        raise errors.key_too_large("The name of the field is longer than 255 bytes")
    if not _NAME.fullmatch(name):
        raise errors.invalid_param(
            "The name of a field must begin with a to z and consist of a to z, 0 to 9 and . _ -"
        )


def _check_exists(tx: Reader, user_id: str) -> None:
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found("This server has no such user")


def _check_value(name: str, value: Any) -> None:
    """Raise M_BAD_JSON for a wrong type, M_INVALID_PARAM for a string that is too long."""
    if name not in {*IN_ROOMS, "m.tz"}:
        return
    if not isinstance(value, str):
        raise errors.bad_json(f"{name} must be a string")
    # Deviates: avatar_url is not checked, though it "must be an mxc:// URI". Other servers do not
    # check it either, tests of clients rely on that, and clients show no other kind of avatar.
    longest = MAX_AVATAR_URL if name == "avatar_url" else MAX_DISPLAYNAME
    if len(value) > longest:
        raise errors.invalid_param(f"{name} is longer than {longest} characters")


def _check_size(profile: dict[str, bytes]) -> None:
    """Raise M_PROFILE_TOO_LARGE. The values are encoded JSON."""
    # {"name":value,…}: quotes and colon, then the comma or a brace
    size = 1 + sum(len(name) + len(value) + 4 for name, value in profile.items())
    if size > MAX_BYTES:
        raise errors.profile_too_large(f"The profile would be larger than {MAX_BYTES} bytes")


def _outdated_rooms(tx: Reader, user_id: str, name: str, value: str | None) -> list[str]:
    """Return the joined rooms in which the user's member event has another value, or none."""
    found = []
    for room_id in sorted(state.joined_rooms(tx, user_id)):
        member = state.current(tx, room_id, state.MEMBER, user_id)
        if member is not None and member.content.get(name) != value:
            found.append(room_id)
        event_loop.pause()
    return found


def _value(tx: Reader, user_id: str, name: str) -> str | None:
    row = tx.sql.execute(_FIELD, {"user_id": user_id, "name": name}).first()
    return None if row is None else str(orjson.loads(row.value))


def _update_room(tx: Tx, user_id: str, name: str, room_id: str) -> None:
    """Send a member event with the current value of the field to a room."""
    member = state.current(tx, room_id, state.MEMBER, user_id)
    if member is None or member.content.get("membership") != "join":
        return  # the user has left meanwhile
    # The authoriser is of an earlier join, and another server would have to sign it again
    content = {key: kept for key, kept in member.content.items() if key != AUTHORISER}
    content.pop(name, None)
    value = _value(tx, user_id, name)
    if value is not None:
        content[name] = value
    try:
        sending.send(tx, sending.Draft(room_id, user_id, state.MEMBER, content, user_id))
    except MatrixError as error:  # one broken room must not prevent the update of the others
        LOG.warning("could not update %s of %s in %s: %s", name, user_id, room_id, error)
