"""Server access control lists: which servers may participate in a room.

Spec: client-server-api#server-access-control-lists-acls-for-rooms
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from homebody.spec.events import Json
from homebody.spec.globs import Glob


def allows(content: Json, server_name: str) -> bool:
    """Return whether an m.room.server_acl event with this content allows the server.

    Malformed properties count as absent; without `allow`, all servers are denied.
    """
    host = _host(server_name)
    if content.get("allow_ip_literals", True) is False and _is_ip_literal(host):
        return False
    if any(glob.matches(host) for glob in _globs(content.get("deny"))):
        return False
    return any(glob.matches(host) for glob in _globs(content.get("allow")))


def _globs(patterns: object) -> Iterator[Glob]:
    for pattern in patterns if isinstance(patterns, list) else []:
        if isinstance(pattern, str):
            yield Glob(pattern.lower())


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
