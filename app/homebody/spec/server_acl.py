"""Server access control lists: which servers may participate in a room.

Spec: client-server-api#server-access-control-lists-acls-for-rooms
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.spec.globs import Patterns


class ServerAcl:
    """The content of an m.room.server_acl event, prepared for many server names.

    Malformed properties count as absent; without `allow`, all servers are denied. Case does not
    matter, and ports are ignored.
    """

    def __init__(self, content: Json) -> None:
        self._allows_ip_literals: Final = content.get("allow_ip_literals") is not False
        self._allow: Final = Patterns(_texts(content.get("allow")))
        self._deny: Final = Patterns(_texts(content.get("deny")))

    def allows(self, server_name: str) -> bool:
        """Return whether this server may participate in the room."""
        host = identifiers.host(server_name)
        if not self._allows_ip_literals and _is_ip_literal(host):
            return False
        return not self._deny.matches(host) and self._allow.matches(host)


def allows(content: Json, server_name: str) -> bool:
    """Return whether an m.room.server_acl event with this content allows the server."""
    return ServerAcl(content).allows(server_name)


@functools.lru_cache(maxsize=16)
def of_lists(allow: tuple[str, ...], deny: tuple[str, ...]) -> ServerAcl:
    """Return the lists of the settings, prepared for all the requests that look there."""
    return ServerAcl({"allow": [*allow], "deny": [*deny]})


def _texts(patterns: object) -> list[str]:
    texts = patterns if isinstance(patterns, list) else []
    return [text for text in texts if isinstance(text, str)]


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
