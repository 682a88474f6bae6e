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

from homebody.outside import RemoteError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

RESOLVING_AT_ONCE: Final = threading.BoundedSemaphore(4)
"""Under gevent names are resolved in the hub's thread pool, which also runs COMMIT: names whose
servers never answer must not take all of its threads."""
_MOST: Final = 8
# IANA's registries of special-purpose addresses, written out: what Python's `is_global` knows of
# them differs from one release to the next.
_SPECIAL_IPV4: Final = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this host
            "10.0.0.0/8",
            "100.64.0.0/10",  # between a provider's NAT and its customers
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local: also where clouds keep their machines' credentials
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocols; what is anycast in it leads to one's own NAT
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # the nearest 6to4 relay; deprecated
            "192.168.0.0/16",
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All that has been given out. Outside of it are loopback, link-local, unique and site-local
addresses, multicast, what carries IPv4 addresses, and what nobody has yet."""
_SPECIAL_IPV6: Final = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols: Teredo, benchmarks, ORCHID, anycast to one's own router
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


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
    """Return whether an address belongs to the public Internet, also by what it carries inside."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return address in _GLOBAL_UNICAST and not any(address in it for it in _SPECIAL_IPV6)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address to which an IPv6 address really leads."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_in(address: Address, allowed: Collection[str | Network]) -> bool:
    judged = _inner(address) or address
    return any(judged in it for it in allowed if not isinstance(it, str))
