"""Settings that are dangerous on a public server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from homebody.config.settings import Config
from homebody.doctor.examination import Examination
from homebody.doctor.findings import Finding
from homebody.outside import addresses
from homebody.outside.addresses import Network

MIN_SECRET_CHARACTERS: Final = 16
MAX_PROXY_ADDRESSES: Final = 2**16
WIDE_ADDRESSES: Final = 2**24


def settings(ex: Examination) -> Iterator[Finding]:
    """Check the settings."""
    found = list(_dangers(ex))
    yield from found
    for id_ in ("open-registration", "rate-limits", "trusted-proxies"):
        if not any(it.id == id_ for it in found):
            yield ex.report.ok(id_, "as it should be")


def _dangers(ex: Examination) -> Iterator[Finding]:
    config, report = ex.config, ex.report
    is_public = not ex.is_local
    if config.registration == "open" and is_public:
        yield report.warning("open-registration", "anybody may register, without a token")
    if not config.rate_limits and is_public:
        yield report.broken("rate-limits", "rate_limits is false")
    if config.password_hashing == "cheap":  # noqa: S105 - a way of hashing
        made = report.broken if is_public else report.warning
        yield made("password-hashing", 'password_hashing is "cheap"')
    if config.media_without_token and is_public:
        yield report.warning("media-without-token", "media_without_token is true")
    secret = config.registration_shared_secret
    if secret is not None and len(secret) < MIN_SECRET_CHARACTERS:
        seen = f"registration_shared_secret has {len(secret)} characters"
        yield report.broken("shared-secret", seen)
    if config.log_level == "DEBUG":
        yield report.warning("debug-log", 'log_level is "DEBUG"')
    yield from _networks(ex, config)


def _networks(ex: Examination, config: Config) -> Iterator[Finding]:
    for network in config.trusted_proxies:
        if network.num_addresses > MAX_PROXY_ADDRESSES and _has_public_addresses(network):
            yield ex.report.broken("trusted-proxies", f"trusted_proxies contains {network}")
    wide = [
        it
        for it in config.outside_allowed
        if not isinstance(it, str) and it.num_addresses >= WIDE_ADDRESSES
    ]
    if wide and not ex.is_local:
        seen = f"outside_allowed contains {', '.join(map(str, wide))}"
        yield ex.report.warning("outside-allowed", seen)
    if not config.is_loopback() and ex.scheme == "https":
        yield ex.report.warning("listener-public", f"bind is {', '.join(config.bind)}")


def _has_public_addresses(network: Network) -> bool:
    """Return whether there are public addresses in a network, by some of its addresses."""
    return any(addresses.is_public(network[it * network.num_addresses // 8]) for it in range(8))
