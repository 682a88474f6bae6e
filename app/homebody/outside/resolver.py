"""Look up other servers in the DNS.

`getaddrinfo` knows no SRV records and no time limit, and under gevent each call takes a thread of
the pool that also runs COMMIT. dnspython's sockets are gevent's, and wait as long as we say. The
hosts file comes first, as administrators place servers of their own network there.
"""

from __future__ import annotations

import ipaddress
import random
import time
from pathlib import Path
from typing import Any, Final

import dns.exception
import dns.nameserver
import dns.rdata
import dns.resolver

from homebody.config.settings import Config
from homebody.outside import RemoteError
from homebody.outside.addresses import Address
from homebody.outside.expiring import Expiring
from homebody.runtime import event_loop
from homebody.spec import identifiers

HOSTS_FILE: Final = Path("/etc/hosts")
SECONDS_PER_TRY: Final = 1.5
"""For an answer of one DNS server, before the next is asked, or the same one again."""
SECONDS_PER_LOOKUP: Final = 5.0
MIN_SECONDS, MAX_SECONDS = 60.0, 3600.0
"""The bounds of how long an answer is kept, whatever its TTL."""
MISSING_SECONDS: Final = 600.0
"""How long we remember that a name has no such record: rooms are full of dead servers."""
FAILURE_SECONDS: Final = 60.0
"""How long we remember that no DNS server answered."""
MAX_RECORDS: Final = 16
MAX_NAMES: Final = 20_000
_SECONDS_BETWEEN_READS: Final = 60.0
_SECONDS_FOR_IPV6: Final = 1.0

Record = dns.rdata.Rdata


class LookupFailedError(Exception):
    """The DNS servers could not say whether there is such a record; the text says why."""


class Resolver:
    """Looks names up and keeps the answers."""

    def __init__(self, config: Config) -> None:
        self._given = tuple(map(_nameserver, config.dns_servers))
        self._answers: Expiring[tuple[str, str], list[Any] | str] = Expiring(MAX_NAMES)
        self._dns: dns.resolver.Resolver | None = None
        self._dns_until = 0.0

    def addresses(self, host: str) -> list[Address]:
        """Return the addresses of a host name or IP literal, those of IPv6 first; at least one.

        Raises RemoteError (unreachable).
        """
        known = _literal(host) or _special(host) or _in_hosts_file(host)
        return known or self.published(host)

    def published(self, host: str) -> list[Address]:
        """Return the addresses of a host name in the DNS, whatever the hosts file says.

        Raises RemoteError (unreachable).
        """
        ipv6 = event_loop.spawn(self._lookup, host, "AAAA")
        try:
            ipv4, problem = self._lookup(host, "A"), ""
        except LookupFailedError as error:
            ipv4, problem = [], str(error)
        try:
            # Some DNS servers don't answer questions for AAAA: then the other answer is enough
            found = [*ipv6.result(_SECONDS_FOR_IPV6 if ipv4 else None), *ipv4]
        except (LookupFailedError, TimeoutError) as error:
            found, problem = ipv4, problem or str(error)
        if not found:
            raise RemoteError("unreachable", f"{host} has no address{problem and f': {problem}'}")
        return [ipaddress.ip_address(record.address) for record in found][:MAX_RECORDS]

    def services(self, name: str) -> list[tuple[str, int]]:
        """Return (host, port) of the SRV records of a name, in the order in which to try them.

        Empty if there are none. Raises LookupFailedError, and RemoteError (unreachable) if the
        record says that there is no such service.
        Spec: server-server-api#resolving-server-names
        """
        records = self._lookup(name, "SRV")
        if [record.target.to_text() for record in records] == ["."]:
            raise RemoteError("unreachable", f"The SRV record of {name} says: no such service")
        found = [(it.target.to_text(omit_final_dot=True), it.port) for it in _by_weight(records)]
        return [(host, port) for host, port in found if identifiers.is_server_name(host)]

    def forget(self, name: str, *, also_missing: bool = False) -> None:
        """Look up the records of a name again at the next call; or only those that there are."""
        for kind in ("A", "AAAA", "SRV"):
            key = (name.lower(), kind)
            answer = self._answers.get(key)
            if also_missing or (answer and not isinstance(answer, str)):
                self._answers.drop(key)

    def _lookup(self, name: str, kind: str) -> list[Any]:
        """Return the records of a name. Raises LookupFailedError."""
        key = (name.lower(), kind)
        answer = self._answers.get(key)
        if answer is None:
            answer, seconds = self._ask(*key)
            self._answers.put(key, answer, seconds)
        if isinstance(answer, str):
            raise LookupFailedError(answer)
        return answer

    def _ask(self, name: str, kind: str) -> tuple[list[Any] | str, float]:
        """Return the records of a name, or why there is no answer, and how long that is valid."""
        try:
            answer = self._resolver().resolve(
                f"{name}.", kind, search=False, lifetime=SECONDS_PER_LOOKUP
            )
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return [], MISSING_SECONDS
        except (dns.exception.DNSException, OSError, ValueError) as problem:
            return " ".join(str(problem).split())[:200], FAILURE_SECONDS
        ttl = max(MIN_SECONDS, min(answer.rrset.ttl if answer.rrset else 0, MAX_SECONDS))
        return list(answer)[:MAX_RECORDS], ttl

    def _resolver(self) -> dns.resolver.Resolver:
        """Return dnspython's resolver; the system's servers may change, on a laptop for example."""
        now = time.monotonic()
        if self._dns is None or now > self._dns_until:
            self._dns = dns.resolver.Resolver(configure=not self._given)
            if self._given:
                self._dns.nameservers = list(self._given)
            self._dns.timeout = SECONDS_PER_TRY
            self._dns_until = now + _SECONDS_BETWEEN_READS
        return self._dns


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    """Return a DNS server of the setting `dns_servers`."""
    if not identifiers.is_server_name(text):
        return dns.nameserver.Do53Nameserver(text)  # IPv6 without brackets
    host, port, _ = identifiers.split_server_name(text)
    return dns.nameserver.Do53Nameserver(host, 53 if port is None else port)


def _literal(host: str) -> list[Address]:
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        return []


def _special(host: str) -> list[Address]:
    """Return the addresses of localhost, which DNS servers don't know (RFC 6761)."""
    if host.lower() != "localhost" and not host.lower().endswith(".localhost"):
        return []
    return [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]


def _in_hosts_file(host: str) -> list[Address]:
    """Return the addresses that the hosts file has for a name."""
    try:
        lines = HOSTS_FILE.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found: list[Address] = []
    for line in lines:
        address, *names = line.partition("#")[0].lower().split() or [""]
        if host.lower() in names:
            found += _literal(address.partition("%")[0])
    return found


def _by_weight(records: list[Any]) -> list[Any]:
    """Return SRV records in the order of RFC 2782: by priority, then at random by weight."""
    # The key of weight w is the time until the first event of a process of that rate
    return sorted(
        records,
        key=lambda it: (it.priority, random.expovariate(it.weight or 0.01)),
    )
