"""How many keys of others a user may claim.

Any user may claim keys of any other user, and a device has 50 or 100 of them. To keep a user from
claiming them all, the setting quotas.claimed_keys_per_day limits how many keys of a device each
user gets per day; all users who share no room with its owner are counted together. The users of
another server count as one, with a larger limit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.orm import aliased

from homebody import errors
from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER
from homebody.models.device_keys import ClaimedKey
from homebody.models.state import StateInterval
from homebody.runtime import event_loop
from homebody.storage.caches import Requester
from homebody.storage.database import Reader
from homebody.storage.expressions import batches, item, listed

DeviceAlgorithm = tuple[str, str, str]
"""(user_id, device_id, algorithm)"""
Claim = tuple[str, str, str, str | None, int]
"""A `DeviceAlgorithm`, whose limit applies (that of the claimer or its server, STRANGERS, or None
for no limit), and how many keys of a device that are per day."""
STRANGERS: Final = ""
"""All users who share no room with the owner of the keys."""
SHARES_OF_SERVER: Final = 25
"""The limit of another server, by those of single users: it does not say which user claims."""
_DAY_MS: Final = 24 * 3_600_000
_USERS_AT_ONCE: Final = 500

_WANTED = listed("wanted")  # [user_id, device_id, algorithm, claimer or null, limit]
_RECENT_CLAIMS = (
    select(ClaimedKey.claimer)
    .where(
        ClaimedKey.user_id == item(_WANTED, 0),
        ClaimedKey.device_id == item(_WANTED, 1),
        ClaimedKey.claimer == item(_WANTED, 3),
        ClaimedKey.claimed_ts > bindparam("after"),
    )
    .limit(bindparam("most"))
    .correlate(_WANTED)
    .subquery()
)
_OVER_LIMIT = select(item(_WANTED, 0), item(_WANTED, 1)).where(
    item(_WANTED, 3).is_not(None),
    select(func.count()).select_from(_RECENT_CLAIMS).scalar_subquery() >= item(_WANTED, 4),
)
_Own, _Other = aliased(StateInterval), aliased(StateInterval)
_SHARING_A_ROOM = (
    select(_Other.state_key)
    .distinct()
    .join(_Own, _Own.room_number == _Other.room_number)
    .where(
        _Other.state_key.in_(bindparam("user_ids", expanding=True)),
        _Other.to_position == NOW_AND_LATER,
        _Other.membership.in_(("join", "invite")),
        _Own.type == "m.room.member",
        _Own.state_key == bindparam("claimer"),
        _Own.to_position == NOW_AND_LATER,
        _Own.membership == "join",
    )
)


def in_request(devices: Mapping[str, Mapping[str, str]], most: int) -> list[DeviceAlgorithm]:
    """Return the keys that a request asks for, by {user_id: {device_id: algorithm}}.

    Raises M_TOO_LARGE if they are more than `most`.
    """
    wanted = [
        (user_id, device_id, algorithm)
        for user_id, of_user in devices.items()
        for device_id, algorithm in of_user.items()
    ]
    if len(wanted) > most:
        raise errors.too_large(f"A request may claim keys of at most {most} devices")
    return wanted


def of_user(tx: Reader, requester: Requester, wanted: Collection[DeviceAlgorithm]) -> list[Claim]:
    """Return the claims with the user whose limit applies to each.

    Guests always count as strangers, as anyone can create any number of guests.
    """
    claimer = requester.user_id
    users = sorted({user_id for user_id, _, _ in wanted} - {claimer})
    limits: dict[str, str | None] = dict.fromkeys(users, STRANGERS)
    limits[claimer] = None
    for some in batches(() if requester.is_guest else users, _USERS_AT_ONCE):
        values = {"claimer": claimer, "user_ids": some}
        limits |= dict.fromkeys(tx.sql.execute(_SHARING_A_ROOM, values).scalars(), claimer)
        event_loop.pause()
    most = tx.server.config.quotas.claimed_keys_per_day
    return [(*key_type, limits[key_type[0]], most) for key_type in wanted]


def of_server(tx: Reader, server: str, wanted: Collection[DeviceAlgorithm]) -> list[Claim]:
    """Return the claims of another server, which has a limit for users who share a room with it."""
    most = tx.server.config.quotas.claimed_keys_per_day
    limits = dict.fromkeys((user_id for user_id, _, _ in wanted), (STRANGERS, most))
    for user_id in limits:
        rooms = state.joined_rooms(tx, user_id)
        if any(server in state.joined(tx, room_id).servers for room_id in rooms):
            limits[user_id] = (server, most * SHARES_OF_SERVER)
    return [(*key_type, *limits[key_type[0]]) for key_type in wanted]


def exceeded(tx: Reader, wanted: Collection[Claim]) -> set[tuple[str, str]]:
    """Return the (user_id, device_id) whose daily limit the claimer has reached.

    Disabled together with rate limits, as tests of clients claim many keys of one device per day.
    """
    if not (tx.server.config.rate_limits and wanted):
        return set()
    values = {
        "wanted": wanted,
        "after": tx.now_ms - _DAY_MS,
        "most": max(it[4] for it in wanted),
    }
    return {(user_id, device_id) for user_id, device_id in tx.sql.execute(_OVER_LIMIT, values)}
