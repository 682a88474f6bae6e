"""What users say of themselves: a name, an avatar, a time zone, and fields of their own.

Name and avatar are repeated in the user's member event of every room, so that clients have them at
hand. A change of these two is carried into all joined rooms before the request is answered, some
rooms in each write, as others would have to wait for all of them. What a crash interrupts is done
when the client repeats its request. This module alone writes the table profile_fields.

Spec: client-server-api#profiles, client-server-api#events-on-change-of-profile-information
"""

from __future__ import annotations

import logging
import re
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, delete, insert, select

from homebody import errors
from homebody.core.accounts import accounts, directory_index
from homebody.core.events import state
from homebody.core.timeline import sending
from homebody.errors import MatrixError
from homebody.models.accounts import ProfileField
from homebody.runtime import event_loop
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

LOG = logging.getLogger(__name__)

IN_ROOMS: Final = ("displayname", "avatar_url")
"""The fields that member events repeat."""
MAX_BYTES: Final = 65_536
"""Of all names and values of a profile together, as JSON."""
MAX_DISPLAYNAME: Final = 256
"""Characters. It goes into member events, which have a limit as well, and onto small screens."""
MAX_AVATAR_URL: Final = 1000
ROOMS_AT_ONCE: Final = 10
"""Told of a change in one write; each takes 1 to 3 ms."""
AUTHORISER: Final = "join_authorised_via_users_server"

_NAME = re.compile(r"[a-z][a-z0-9._-]*")
_ALL = select(ProfileField.name, ProfileField.value).where(
    ProfileField.user_id == bindparam("user_id")
)
_FIELD = _ALL.where(ProfileField.name == bindparam("name"))
_FOR_ROOMS = _ALL.where(ProfileField.name.in_(IN_ROOMS))
_INSERT = insert(ProfileField)
_DELETE = delete(ProfileField).where(
    ProfileField.user_id == bindparam("of_user"), ProfileField.name == bindparam("the_name")
)
_DELETE_ALL = delete(ProfileField).where(ProfileField.user_id == bindparam("of_user"))


def begin(tx: Tx, user_id: str) -> None:
    """Give a new account its localpart as a display name, until the user chooses another.

    Clients show the whole user id of a user without a name, and other servers give one as well.
    The user directory finds the user by the localpart anyway.
    """
    value = orjson.dumps(identifiers.localpart(user_id)).decode()
    tx.sql.execute(_INSERT, {"user_id": user_id, "name": "displayname", "value": value})


def of(tx: Reader, user_id: str) -> Json:
    """What a member event repeats: displayname and avatar_url, where the user has set them."""
    found = tx.sql.execute(_FOR_ROOMS, {"user_id": user_id})
    return {row.name: orjson.loads(row.value) for row in found}


def get(tx: Reader, user_id: str) -> Json:
    """The whole profile. Raises M_NOT_FOUND for a user whom this server does not have."""
    _must_be_here(tx, user_id)
    found = tx.sql.execute(_ALL, {"user_id": user_id})
    return {row.name: orjson.loads(row.value) for row in found}


def get_field(tx: Reader, user_id: str, name: str) -> Json:
    """An object with this one field. Raises M_NOT_FOUND where the user has not set it."""
    _must_be_here(tx, user_id)
    row = tx.sql.execute(_FIELD, {"user_id": user_id, "name": name}).first()
    if row is None:
        raise errors.not_found("The profile has no such field")
    return {name: orjson.loads(row.value)}


def put(tx: Tx, user_id: str, name: str, value: Any) -> None:
    """Set a field; `tell_rooms` carries it into the user's rooms.

    Raises M_INVALID_PARAM and M_KEY_TOO_LARGE for the name, M_BAD_JSON and M_INVALID_PARAM for the
    value, M_PROFILE_TOO_LARGE.
    """
    check_name(name)
    # Deviates: "" would be a name like any other. Clients older than DELETE (v1.16) have no other
    # way to take back a name or an avatar.
    if name in IN_ROOMS and value == "":
        remove(tx, user_id, name)
        return
    _check_value(name, value)
    text = orjson.dumps(value)
    profile = {row.name: row.value.encode() for row in tx.sql.execute(_ALL, {"user_id": user_id})}
    if profile.get(name) == text:
        return
    _check_size({**profile, name: text})
    tx.sql.execute(_DELETE, {"of_user": user_id, "the_name": name})
    tx.sql.execute(_INSERT, {"user_id": user_id, "name": name, "value": text.decode()})
    if name == "displayname":
        directory_index.put(tx, user_id, value)


def remove(tx: Tx, user_id: str, name: str) -> None:
    """Take a field away; `tell_rooms` does so in the user's rooms. It need not be there.

    Raises M_INVALID_PARAM and M_KEY_TOO_LARGE for a name that no field can have.
    """
    check_name(name)
    gone = tx.sql.execute(_DELETE, {"of_user": user_id, "the_name": name})
    if gone.rowcount and name == "displayname":
        directory_index.put(tx, user_id, None)


def tell_rooms(db: Database, user_id: str, name: str) -> None:
    """Carry a field that has changed into the user's rooms, where rooms show it.

    400 rooms take more than a second: each write has a few of them, and others write in between.
    Where two changes meet, each room gets the newer one. A room that shows the value already is
    left alone.
    """
    if name not in IN_ROOMS:
        return
    with db.read() as reading:
        room_ids = _others_shown(reading, user_id, name, _value(reading, user_id, name))
    for at in range(0, len(room_ids), ROOMS_AT_ONCE):
        with db.write() as tx:
            for room_id in room_ids[at : at + ROOMS_AT_ONCE]:
                _tell(tx, user_id, name, room_id)


def erase(tx: Tx, user_id: str) -> None:
    """Take everything away, for an account that closes; its rooms are left before."""
    tx.sql.execute(_DELETE_ALL, {"of_user": user_id})


def check_name(name: str) -> None:
    """Raises M_INVALID_PARAM, or M_KEY_TOO_LARGE over 255 bytes.

    Names in the specification's own space (`m.`) are taken: it may have given them a meaning since.
    Spec: appendices#common-namespaced-identifier-grammar
    """
    if not identifiers.has_at_most_255_bytes(name):
        raise errors.key_too_large("The name of the field is longer than 255 bytes")
    if not _NAME.fullmatch(name):
        raise errors.invalid_param(
            "The name of a field begins with a to z and consists of a to z, 0 to 9 and . _ -"
        )


def _must_be_here(tx: Reader, user_id: str) -> None:
    account = accounts.find(tx, user_id)
    if account is None or account.deactivated_ts is not None:
        raise errors.not_found("This server knows no such user")


def _check_value(name: str, value: Any) -> None:
    """Raises M_BAD_JSON for a wrong type, M_INVALID_PARAM for a wrong text."""
    if name not in {*IN_ROOMS, "m.tz"}:
        return
    if not isinstance(value, str):
        raise errors.bad_json(f"{name} must be a string")
    # Deviates: avatar_url is taken for what it is, though it "must be an mxc:// URI". Other servers
    # never looked, tests of clients rely on it, and clients show no avatar of another kind.
    longest = MAX_AVATAR_URL if name == "avatar_url" else MAX_DISPLAYNAME
    if len(value) > longest:
        raise errors.invalid_param(f"{name} is longer than {longest} characters")


def _check_size(profile: dict[str, bytes]) -> None:
    """Raises M_PROFILE_TOO_LARGE. Values are JSON already."""
    # {"name":value,…}: quotes and colon, then the comma or the brackets
    size = 1 + sum(len(name) + len(value) + 4 for name, value in profile.items())
    if size > MAX_BYTES:
        raise errors.profile_too_large(f"The profile would be larger than {MAX_BYTES} bytes")


def _others_shown(tx: Reader, user_id: str, name: str, value: str | None) -> list[str]:
    """Return the joined rooms in which the user's member event shows another value, or none."""
    found = []
    for room_id in sorted(state.joined_rooms(tx, user_id)):
        member = state.current(tx, room_id, state.MEMBER, user_id)
        if member is not None and member.content.get(name) != value:
            found.append(room_id)
        event_loop.breathe()
    return found


def _value(tx: Reader, user_id: str, name: str) -> str | None:
    row = tx.sql.execute(_FIELD, {"user_id": user_id, "name": name}).first()
    return None if row is None else str(orjson.loads(row.value))


def _tell(tx: Tx, user_id: str, name: str, room_id: str) -> None:
    """Carry the field, as it is by now, into the member event of a room."""
    member = state.current(tx, room_id, state.MEMBER, user_id)
    if member is None or member.content.get("membership") != "join":
        return  # the user has left meanwhile
    # The authoriser vouched for a join that is over, and another server would have to sign it
    content = {key: kept for key, kept in member.content.items() if key != AUTHORISER}
    content.pop(name, None)
    value = _value(tx, user_id, name)
    if value is not None:
        content[name] = value
    try:
        sending.send(tx, sending.Draft(room_id, user_id, state.MEMBER, content, user_id))
    except MatrixError as refusal:  # one broken room must not keep the others from the news
        LOG.warning("%s could not tell %s about a new %s: %s", user_id, room_id, name, refusal)
