"""What guests may ask, by the specification's list. Everything else is refused.

Spec: client-server-api#guest-access
"""

from __future__ import annotations

import re
from typing import Final

from flask import request

from homebody import errors
from homebody.spec.events import Json

_V3: Final = "/_matrix/client/v3"
_MEDIA: Final = "/_matrix/client/v1/media"
DISPLAYNAME: Final = "displayname"
PROFILE_FIELD: Final = f"{_V3}/profile/{{}}/{{}}"

MAY: Final = frozenset(
    {
        # events and media
        ("GET", f"{_V3}/rooms/{{}}/state"),
        ("GET", f"{_V3}/rooms/{{}}/context/{{}}"),
        ("GET", f"{_V3}/rooms/{{}}/event/{{}}"),
        ("GET", f"{_V3}/rooms/{{}}/state/{{}}"),
        ("GET", f"{_V3}/rooms/{{}}/state/{{}}/{{}}"),
        ("GET", f"{_V3}/rooms/{{}}/messages"),
        ("GET", f"{_V3}/rooms/{{}}/members"),
        ("GET", f"{_V3}/rooms/{{}}/initialSync"),
        ("GET", f"{_V3}/sync"),
        ("GET", f"{_V3}/events"),
        ("GET", f"{_MEDIA}/download/{{}}/{{}}"),
        ("GET", f"{_MEDIA}/download/{{}}/{{}}/{{}}"),
        ("GET", f"{_MEDIA}/thumbnail/{{}}/{{}}"),
        # sending
        ("POST", f"{_V3}/rooms/{{}}/join"),
        # Deviates: the list has only the path above, but matrix-js-sdk joins by this one
        ("POST", f"{_V3}/join/{{}}"),
        ("POST", f"{_V3}/rooms/{{}}/leave"),
        ("PUT", f"{_V3}/rooms/{{}}/send/{{}}/{{}}"),
        ("PUT", f"{_V3}/rooms/{{}}/state/{{}}"),
        ("PUT", f"{_V3}/rooms/{{}}/state/{{}}/{{}}"),
        ("PUT", f"{_V3}/sendToDevice/{{}}/{{}}"),
        # their account
        ("PUT", PROFILE_FIELD),
        ("DELETE", PROFILE_FIELD),
        ("GET", f"{_V3}/devices"),
        ("GET", f"{_V3}/devices/{{}}"),
        ("PUT", f"{_V3}/devices/{{}}"),
        ("GET", f"{_V3}/account/whoami"),
        # Deviates: the list has none of these three. Clients ask for them at every start, whoever
        # is logged in, and they tell guests nothing about other users
        ("GET", f"{_V3}/capabilities"),
        ("GET", f"{_V3}/thirdparty/protocols"),
        ("GET", f"{_V3}/voip/turnServer"),
        # Deviates: it is not in the list either, but a GET, which anybody may ask, answers the
        # same. Clients search the directory by this one
        ("POST", f"{_V3}/publicRooms"),
        # encryption
        ("POST", f"{_V3}/keys/upload"),
        ("POST", f"{_V3}/keys/query"),
        ("POST", f"{_V3}/keys/claim"),
    }
)
"""(method, path), with {} for each part that varies."""


def check() -> None:
    """Raises M_GUEST_ACCESS_FORBIDDEN when the request is nothing that guests may ask."""
    if not _may():
        raise errors.guest_access_forbidden("Guests can't do this: register first")


def check_member(content: Json, *, is_own: bool) -> None:
    """Raise M_GUEST_ACCESS_FORBIDDEN for what guests may do by no endpoint made for it.

    They may set state, as far as the room lets them, but not invite, knock, kick or ban by that;
    nor show an avatar.
    """
    is_allowed = is_own and content.get("membership") in ("join", "leave")  # it may be any JSON
    if not is_allowed or "avatar_url" in content:
        raise errors.guest_access_forbidden("Guests only join, leave, and change their name")


def _may() -> bool:
    if request.url_rule is None:
        return False
    path = re.sub("<[^>]*>", "{}", request.url_rule.rule)
    method = "GET" if request.method == "HEAD" else request.method
    if (method, path) not in MAY:
        return False
    # "Guest users may only modify their display name; other profile fields may not be changed."
    return path != PROFILE_FIELD or (request.view_args or {}).get("key_name") == DISPLAYNAME
