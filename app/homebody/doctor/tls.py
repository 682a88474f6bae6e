"""Names and certificates: whether DNS and TLS lead clients to this server."""

from __future__ import annotations

import concurrent.futures
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from homebody.doctor.examination import Examination
from homebody.doctor.fetching import CONNECT_S, UnreachableError, reason
from homebody.doctor.findings import Finding
from homebody.outside import RemoteError, addresses
from homebody.outside.addresses import Address
from homebody.spec import identifiers

DAYS_BEFORE_EXPIRY: Final = 14
_DAY_S: Final = 86_400
# Of OpenSSL's x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_SELF_SIGNED = {18, 19}
_NO_ISSUER = {20, 21}
_WRONG_NAME = {62, 64}


def names(ex: Examination) -> Iterator[Finding]:
    """Check the addresses of the public URL."""
    if ex.is_local:
        yield ex.report.skipped("dns", "the public URL is of this machine")
    else:
        yield from _addresses(ex, ex.host, ex.port)


def _addresses(ex: Examination, host: str, port: int) -> Iterator[Finding]:
    if ex.fetcher.given_target(host, port) is not None:
        yield ex.report.skipped("dns", f"{host}: the option --connect-to names an address")
        return
    try:
        targets = [(str(it), port) for it in _published(ex, host)]
    except RemoteError as error:
        yield ex.report.broken("dns", str(error))
        return
    shown = ", ".join(address for address, _ in targets)
    yield ex.report.ok("dns", f"{host}: {shown}")
    private = [it for it, _ in targets if not addresses.is_public(ipaddress.ip_address(it))]
    if private and identifiers.is_public(host):
        yield ex.report.warning("dns-private", f"{host}: {', '.join(private)}")
    if len(targets) > 1:
        with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
            problems = [it for it in pool.map(_problem, targets) if it]
        if len(problems) < len(targets):  # or `reachable` says it
            yield from (ex.report.warning("dns-address", it) for it in problems)


def _published(ex: Examination, host: str) -> list[Address]:
    """Return the addresses that others see. Raises RemoteError.

    The hosts file does not count: Debian writes the machine's own name there, with 127.0.1.1.
    """
    resolver = ex.fetcher.resolver
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not host.endswith(".localhost"):
            return resolver.published(host)
    return resolver.addresses(host)


def _problem(target: tuple[str, int]) -> str | None:
    """Return why an address does not accept connections, if it doesn't."""
    try:
        socket.create_connection(target, CONNECT_S).close()
    except OSError as error:
        return f"{target[0]} port {target[1]}: {reason(error)}"
    return None


def certificate(ex: Examination) -> Iterator[Finding]:
    """Check the certificate of the public URL."""
    if ex.scheme == "https":
        yield from of_host(ex, ex.host, ex.port)
    elif ex.is_local:
        yield ex.report.skipped("tls", "the public URL is of this machine")
    else:
        yield ex.report.broken("https", f"the public URL is {ex.url}")


def certificate_of_name(ex: Examination) -> Iterator[Finding]:
    """Check the certificate of the server name, from which clients get the well-known file."""
    host = ex.name_host
    if host == ex.host or ex.is_local or ex.config.server_name != host:
        return
    try:
        ex.fetcher.connect(host, 443).close()
    except UnreachableError:
        return  # `well-known-client` says it
    yield from of_host(ex, host, 443)


def of_host(ex: Examination, host: str, port: int, id_: str | None = None) -> Iterator[Finding]:
    """Check the certificate of a host; `id_` replaces that of a certificate that is not valid.

    Raises UnreachableError.
    """
    plain = ex.fetcher.connect(host, port)
    try:
        with ex.fetcher.secured(plain, host, is_strict=True) as secured:
            yield _expiry(ex, host, secured.getpeercert() or {})
    except ssl.SSLCertVerificationError as error:
        kind, seen = _kind_of(error)
        yield ex.report.broken(id_ or kind, f"{host}: {seen}", host=host, tls_name=host)
    except OSError as error:
        yield ex.report.broken(id_ or "tls", f"{host}: {reason(error)}", host=host, tls_name=host)
    finally:
        plain.close()


def _kind_of(error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Return the id for an error, and what it says."""
    code, said = error.verify_code, str(error.verify_message)
    if code == _EXPIRED:
        return "tls-expired", "the certificate has expired"
    if code == _NOT_YET_VALID:
        return "tls", "the certificate is not valid yet: does the clock go wrong?"
    if code in _WRONG_NAME:
        return "tls-name", said
    if code in _SELF_SIGNED:
        return "tls-authority", said
    if code in _NO_ISSUER:
        return "tls-chain", "the server sends no certificate that leads to a known authority"
    return "tls", said


def _expiry(ex: Examination, host: str, found: Any) -> Finding:
    expires = ssl.cert_time_to_seconds(str(found["notAfter"]))
    # Caddy's own authority issues them for 12 hours, and renews them when a third of that is left
    lifetime_s = expires - ssl.cert_time_to_seconds(str(found["notBefore"]))
    left_s = expires - time.time()
    days = int(left_s / _DAY_S)
    seen = f"{host}: valid until {datetime.fromtimestamp(expires, UTC):%Y-%m-%d}, {days} days"
    if left_s < min(DAYS_BEFORE_EXPIRY * _DAY_S, lifetime_s / 4):
        return ex.report.warning("tls-expires", seen, host=host)
    return ex.report.ok("tls", seen)
