"""The addresses to which the server may connect for its users.

A user who sets a URL (a push gateway, a link to preview) must not reach what only the server can
reach: this machine, the router, other services of its network. So the name is resolved once, its
addresses are checked, and the connection is made to a checked address, not to the name, which could
resolve to another one by then (DNS rebinding).
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
"""Under gevent names are resolved in the thread pool that also runs COMMIT: names whose servers
never answer must not take all of its threads."""
_MAX_ADDRESSES: Final = 8
# IANA's registries of special-purpose addresses, as `is_global` differs between releases of Python.
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
            "192.0.0.0/24",  # protocols, with anycast addresses of one's own NAT
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
"""All allocated addresses. Outside of it are loopback, link-local, unique-local, site-local and
multicast addresses, those that embed IPv4 addresses, and unallocated ones."""
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
    """Return the addresses of a host, in the order in which to try them.

    Raises RemoteError (unreachable) when it has none.
    """
    try:
        with RESOLVING_AT_ONCE:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise RemoteError("unreachable", f"{host} has no address: {problem}") from problem
    # "%eth0" is the zone of a link-local address
    texts = dict.fromkeys(str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
    return [ipaddress.ip_address(text) for text in texts][:_MAX_ADDRESSES]


def permitted(host: str, port: int, allowed: Collection[str | Network]) -> list[Address]:
    """Return the addresses of a host to which we may connect; at least one.

    Raises RemoteError: unreachable, or refused when all of them are private and neither their
    network nor the host's name is in `allowed`.
    """
    return checked(host, resolve(host, port), allowed)


def checked(host: str, found: list[Address], allowed: Collection[str | Network]) -> list[Address]:
    """Return those of a host's addresses to which we may connect; at least one.

    Raises RemoteError (refused).
    """
    if host.lower().rstrip(".") in allowed:
        return found
    good = [it for it in found if is_public(it) or _is_in(it, allowed)]
    if not good:
        raise RemoteError(
            "refused",
            f"{host} has a private address, to which this server only connects if the setting"
            f' outside_allowed allows it, as in outside_allowed = ["{host}"]',
        )
    return good


def is_public(address: Address) -> bool:
    """Return whether an address, or the IPv4 address embedded in it, is public."""
    inner = _inner(address)
    if inner is not None:
        return is_public(inner)
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_IPV4)
    return address in _GLOBAL_UNICAST and not any(address in it for it in _SPECIAL_IPV6)


def _inner(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that is embedded in an IPv6 address, if any."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_in(address: Address, allowed: Collection[str | Network]) -> bool:
    judged = _inner(address) or address
    return any(judged in it for it in allowed if not isinstance(it, str))
