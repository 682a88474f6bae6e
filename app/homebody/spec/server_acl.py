"""Server access control lists: which servers may participate in a room.

Spec: client-server-api#server-access-control-lists-acls-for-rooms
"""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

from homebody.spec.events import Json
from homebody.spec.globs import AnyOf, Glob, has_wildcards


class ServerAcl:
    """The content of an m.room.server_acl event, prepared for many server names.

    Malformed properties count as absent; without `allow`, all servers are denied. Case does not
    matter, and ports are ignored.
    """

    def __init__(self, content: Json) -> None:
        self._allows_ip_literals: Final = content.get("allow_ip_literals") is not False
        self._allow: Final = _Globs(content.get("allow"))
        self._deny: Final = _Globs(content.get("deny"))

    def allows(self, server_name: str) -> bool:
        """Return whether this server may participate in the room."""
        host = _host(server_name)
        if not self._allows_ip_literals and _is_ip_literal(host):
            return False
        return not self._deny.match(host) and self._allow.match(host)


def allows(content: Json, server_name: str) -> bool:
    """Return whether an m.room.server_acl event with this content allows the server."""
    return ServerAcl(content).allows(server_name)


@functools.lru_cache(maxsize=16)
def of_lists(allow: tuple[str, ...], deny: tuple[str, ...]) -> ServerAcl:
    """Return the lists of the settings, prepared for all the requests that look there."""
    return ServerAcl({"allow": [*allow], "deny": [*deny]})


class _Globs:
    """A list of patterns. Long ones have hundreds of hosts, most of them without wildcards."""

    def __init__(self, patterns: object) -> None:
        texts = patterns if isinstance(patterns, list) else []
        lowered = {text.lower() for text in texts if isinstance(text, str)}
        wild = {text for text in lowered if has_wildcards(text)}
        self._literal: Final = lowered - wild
        self._with_stars: Final = AnyOf(text for text in wild if "?" not in text)
        self._others: Final = [Glob(text) for text in wild if "?" in text]

    def match(self, host: str) -> bool:
        if host in self._literal or self._with_stars.matches(host):
            return True
        return any(glob.matches(host) for glob in self._others)


def _host(server_name: str) -> str:
    """Return a server name in lower case without its port."""
    if server_name.startswith("["):
        return server_name.partition("]")[0].lower() + "]"
    return server_name.partition(":")[0].lower()


def _is_ip_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
