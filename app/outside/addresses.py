"""Which addresses the server may connect to for its users.

A user who names a URL (a push gateway, a link to preview) must not reach through us what only we
can reach: this machine, the router, other services of the house. So the name is resolved once, the
addresses are judged, and the connection goes to a judged address, not to the name again: its owner
could have changed its meaning by then.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Collection
from typing import Final

from app.outside import RemoteError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVING_AT_ONCE: Final = threading.BoundedSemaphore(4)
"""Under gevent names are resolved in the hub's thread pool, which also runs COMMIT: names whose
servers never answer must not take all of its threads."""
_MOST: Final = 8
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, in the order in which they should be tried.

    Raises RemoteError (unreachable) when it has none.
    """
    try:
        with RESOLVING_AT_ONCE:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise RemoteError("unreachable", f"{host} has no address: {problem}") from problem
    # "%eth0" is the zone of a link-local address
    texts = dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts][:_MOST]


def permitted(host: str, port: int, allowed: Collection[str | Network]) -> list[Address]:
    """Those addresses of a host to which we may connect; at least one.

    Raises RemoteError: refused, when all of them are private and neither their network nor the
    host's name is in `allowed`, or unreachable.
    """
    found = resolve(host, port)
    if host.lower().rstrip(".") in allowed:
        return found
    good = [it for it in found if is_public(it) or _is_in(it, allowed)]
    if not good:
        raise RemoteError(
            "refused",
            f"{host} has a private address, which this server only calls when its owner has named"
            f' it in the setting outside_allowed, as in outside_allowed = ["{host}"]',
        )
    return good


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public Internet, also in what it may carry inside."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address to which an IPv6 address really leads."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


def _is_in(address: Address, allowed: Collection[str | Network]) -> bool:
    judged = _inner(address) or address
    return any(judged in it for it in allowed if not isinstance(it, str))
