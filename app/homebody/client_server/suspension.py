"""What a suspended account may still ask besides reading. Everything else is refused.

The specification leaves the list to servers and says what should be on it: logging in and out,
reading, encryption, leaving, redacting one's own events, closing the account. Here are also things
that nobody else sees (account data, tags, push rules), how far one has read, and reports: who may
not speak may still need help.
Spec: client-server-api#account-suspension
"""

from __future__ import annotations

import re
from typing import Final

from flask import request

from homebody import errors

_V3: Final = "/_matrix/client/v3"
_OLD: Final = "/matrix/client/api/v1"
_DEHYDRATED: Final = f"{_V3}/org.matrix.msc3814.v1/dehydrated_device"
_OWN: Final = f"{_V3}/user/{{}}"

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})

DEPENDS: Final = frozenset(
    {
        # leaving, taking back own words: the views and core/timeline/sending.py look closer
        ("PUT", f"{_V3}/rooms/{{}}/send/{{}}/{{}}"),
        ("POST", f"{_V3}/rooms/{{}}/send/{{}}"),
        ("PUT", f"{_V3}/rooms/{{}}/redact/{{}}/{{}}"),
        ("POST", f"{_V3}/rooms/{{}}/redact/{{}}"),
        ("PUT", f"{_V3}/rooms/{{}}/state/{{}}"),
        ("PUT", f"{_V3}/rooms/{{}}/state/{{}}/{{}}"),
        ("PUT", f"{_OLD}/rooms/{{}}/members/{{}}/state"),
        ("PUT", f"{_OLD}/rooms/{{}}/messages/{{}}/{{}}"),
    }
)
"""(method, path), with {} for each part that varies: what is asked decides, not the path alone."""

MAY: Final = frozenset(
    {
        # the account and its sessions, "change or add" addresses, "but not remove"
        ("POST", f"{_V3}/logout"),
        ("POST", f"{_V3}/logout/all"),
        ("POST", "/_matrix/client/v1/login/get_token"),
        ("PUT", f"{_V3}/devices/{{}}"),
        ("DELETE", f"{_V3}/devices/{{}}"),
        ("POST", f"{_V3}/delete_devices"),
        ("POST", f"{_V3}/account/deactivate"),
        ("POST", f"{_V3}/account/password"),
        ("POST", f"{_V3}/account/3pid"),
        ("POST", f"{_V3}/account/3pid/add"),
        ("POST", f"{_V3}/account/3pid/email/requestToken"),
        ("POST", f"{_V3}/account/3pid/msisdn/requestToken"),
        # rooms: leaving, how far one has read
        ("POST", f"{_V3}/rooms/{{}}/leave"),
        ("POST", f"{_V3}/rooms/{{}}/forget"),
        ("POST", f"{_V3}/rooms/{{}}/receipt/{{}}/{{}}"),
        ("POST", f"{_V3}/rooms/{{}}/read_markers"),
        # reading with a body
        ("POST", f"{_V3}/org.matrix.simplified_msc3575/sync"),
        ("POST", f"{_V3}/search"),
        ("POST", f"{_V3}/publicRooms"),
        ("POST", f"{_V3}/user_directory/search"),
        ("POST", f"{_OWN}/filter"),
        # what only the user sees
        ("PUT", f"{_OWN}/account_data/{{}}"),
        ("PUT", f"{_OWN}/rooms/{{}}/account_data/{{}}"),
        ("PUT", f"{_OWN}/rooms/{{}}/tags/{{}}"),
        ("DELETE", f"{_OWN}/rooms/{{}}/tags/{{}}"),
        ("POST", f"{_V3}/pushers/set"),
        ("PUT", f"{_V3}/pushrules/global/{{}}/{{}}"),
        ("DELETE", f"{_V3}/pushrules/global/{{}}/{{}}"),
        ("PUT", f"{_V3}/pushrules/global/{{}}/{{}}/actions"),
        ("PUT", f"{_V3}/pushrules/global/{{}}/{{}}/enabled"),
        # encryption: verification goes by messages to devices
        ("PUT", f"{_V3}/sendToDevice/{{}}/{{}}"),
        ("POST", f"{_V3}/keys/claim"),
        ("POST", f"{_V3}/keys/query"),
        ("POST", f"{_V3}/keys/upload"),
        ("POST", f"{_V3}/keys/device_signing/upload"),
        ("POST", f"{_V3}/keys/signatures/upload"),
        ("PUT", _DEHYDRATED),
        ("DELETE", _DEHYDRATED),
        ("POST", f"{_DEHYDRATED}/{{}}/events"),
        ("PUT", f"{_V3}/room_keys/keys"),
        ("PUT", f"{_V3}/room_keys/keys/{{}}"),
        ("PUT", f"{_V3}/room_keys/keys/{{}}/{{}}"),
        ("DELETE", f"{_V3}/room_keys/keys"),
        ("DELETE", f"{_V3}/room_keys/keys/{{}}"),
        ("DELETE", f"{_V3}/room_keys/keys/{{}}/{{}}"),
        ("POST", f"{_V3}/room_keys/version"),
        ("PUT", f"{_V3}/room_keys/version/{{}}"),
        ("DELETE", f"{_V3}/room_keys/version/{{}}"),
        # help
        ("POST", f"{_V3}/rooms/{{}}/report"),
        ("POST", f"{_V3}/rooms/{{}}/report/{{}}"),
        ("POST", f"{_V3}/users/{{}}/report"),
    }
)


def check(*, is_late: bool = False) -> None:
    """Raise M_USER_SUSPENDED when the request is nothing that suspended accounts may ask.

    `is_late`: the view has begun already, so what depends on a closer look is refused as well.
    """
    if request.method in READING or request.url_rule is None:
        return
    asked = request.method, re.sub("<[^>]*>", "{}", request.url_rule.rule)
    if asked not in MAY and (is_late or asked not in DEPENDS):
        raise errors.user_suspended()
