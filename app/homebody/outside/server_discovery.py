"""Where another server is: from its name to addresses, a Host header and a certificate's name.

A server name is that of its users, `example.org`. The server may be on another host, to which a
file (`well_known`) or an SRV record delegates the name. Users choose the names, so their addresses
are checked as those of URLs are: a name must not lead to the inside of our own network.

Spec: server-server-api#resolving-server-names
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from homebody.config.settings import Config
from homebody.outside import RemoteError, addresses
from homebody.outside.addresses import Address
from homebody.outside.https import Connector, Target
from homebody.outside.resolver import LookupFailedError, Resolver
from homebody.outside.well_known import PORT, WellKnown
from homebody.runtime import event_loop
from homebody.spec import identifiers

DEFAULT_PORT: Final = 8448
SERVICES: Final = ("_matrix-fed._tcp", "_matrix._tcp")
"""The names of SRV records; the second is deprecated, and still in use."""
MAX_HOSTS: Final = 8
MAX_SEARCHES: Final = 200
"""Servers that are looked for at once: somebody could make us look for a thousand whose web servers
never answer, and each search has a socket."""
MAX_WAITING: Final = 2_000
"""Searches that are under way or wait for their turn: anybody can claim to be any server, so that
its keys are fetched, and the search goes on after the request."""
_MAX_TARGETS: Final = 16


@dataclass(frozen=True, slots=True)
class Location:
    """Where a server is."""

    hosts: tuple[tuple[str, int], ...]
    """Host names or IP addresses with ports, in the order in which to try them."""
    host_header: str
    tls_name: str
    """For SNI and the certificate; an IP address has no SNI."""
    step: str
    """The step of the specification by which it was found, or the setting."""
    is_trusted: bool = False
    """Whether the administrator has placed it, so that it may be on this machine."""


class ServerDiscovery:
    """Finds servers, and keeps what it has found."""

    def __init__(self, config: Config, connector: Connector, *, port_443: int = PORT) -> None:
        self._allowed = config.outside_allowed
        self._placed = dict(config.federation_hosts)
        self.resolver = Resolver(config)
        self.well_known = WellKnown(connector, self._locate, port_443)
        self._lock = threading.Lock()
        self._searches = threading.BoundedSemaphore(MAX_SEARCHES)
        self._under_way: dict[str, Future[tuple[Location, list[Target]]]] = {}

    def find(self, server: str, until: float) -> tuple[Location, list[Target]]:
        """Return where a server is, and the addresses to which to connect; at least one.

        What is found in spite of coming too late is kept for the next request. Raises RemoteError.
        """
        with self._lock:
            work = self._under_way.get(server)
            if work is None:
                if len(self._under_way) >= MAX_WAITING:
                    raise RemoteError("timeout", "Too many servers are being looked for")
                work = self._under_way[server] = event_loop.spawn(self._find, server)
        try:
            return work.result(max(until - time.monotonic(), 0))
        except TimeoutError as error:
            raise RemoteError("timeout", f"It takes too long to find {server}") from error

    def forget(self, server: str, *, also_missing: bool = False) -> None:
        """Look a server up again, as it is not where it was.

        `also_missing`: also what it did not have, as it may have it now.
        """
        try:
            host = identifiers.split_server_name(server).host
        except ValueError:
            return
        delegated = self.well_known.forget(host, also_missing=also_missing)
        for name in {host, identifiers.split_server_name(delegated).host if delegated else host}:
            self.resolver.forget(name, also_missing=also_missing)
            for service in SERVICES:
                self.resolver.forget(f"{service}.{name}", also_missing=also_missing)

    def locate(self, server: str) -> Location:
        """Return where a server is, without looking up addresses. Raises RemoteError."""
        try:
            host, port, is_ip_literal = identifiers.split_server_name(server)
        except ValueError as error:
            raise RemoteError("refused", f"{server!r:.300} is not a server name") from error
        if server in self._placed:
            place, place_port, _ = identifiers.split_server_name(self._placed[server])
            hosts = ((place, place_port or DEFAULT_PORT),)
            return Location(hosts, server, host, "federation_hosts", is_trusted=True)
        if is_ip_literal or port is not None:
            return _at(host, port, server, "1" if is_ip_literal else "2")
        delegated = self.well_known.get(host).server
        if delegated is None:
            return self._by_services(host, ("4", "5", "6"))
        target, port, is_ip_literal = identifiers.split_server_name(delegated)
        if is_ip_literal or port is not None:
            return _at(target, port, delegated, "3.1" if is_ip_literal else "3.2")
        return self._by_services(target, ("3.3", "3.4", "3.5"))

    def _find(self, server: str) -> tuple[Location, list[Target]]:
        try:
            with self._searches:
                location = self.locate(server)
                return location, self.targets(location)
        finally:
            with self._lock:
                del self._under_way[server]

    def _by_services(self, host: str, steps: tuple[str, str, str]) -> Location:
        """Return where a host's server is by SRV records, or else at the default port."""
        for service, step in zip(SERVICES, steps[:2], strict=True):
            try:
                hosts = self.resolver.services(f"{service}.{host}")
            except LookupFailedError:
                hosts = []  # as if there were none: some DNS servers fail for names like these
            if hosts:
                return Location(tuple(hosts[:MAX_HOSTS]), host, host, step)
        return Location(((host, DEFAULT_PORT),), host, host, steps[2])

    def targets(self, location: Location) -> list[Target]:
        """Return the addresses of a location to which we may connect; at least one.

        Raises RemoteError.
        """
        found: list[Target] = []
        problem: RemoteError | None = None
        for host, port in location.hosts:
            try:
                found += self._locate(host, port, is_trusted=location.is_trusted)
            except RemoteError as error:
                problem = problem or error
        if not found:
            raise problem or RemoteError("unreachable", f"{location.host_header} has no address")
        return found[:_MAX_TARGETS]

    def _locate(self, host: str, port: int, *, is_trusted: bool = False) -> list[Target]:
        found: list[Address] = self.resolver.addresses(host)
        if not is_trusted:
            found = addresses.checked(host, found, self._allowed)
        return [(address, port) for address in found]


def _at(host: str, port: int | None, host_header: str, step: str) -> Location:
    return Location(((host, DEFAULT_PORT if port is None else port),), host_header, host, step)
