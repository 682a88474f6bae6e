"""Settings that conflict with each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from homebody.config import values
from homebody.spec import identifiers

if TYPE_CHECKING:
    from homebody.config.settings import Config


def found(config: Config) -> Iterator[tuple[str, str]]:
    """Yield each key whose value conflicts with another setting, and the reason."""
    is_public = not is_this_machine(config.server_name)
    if config.registration == "open" and not config.registration_open_to_all and is_public:
        yield (
            "registration",
            f'"open" would let anybody make accounts on {config.server_name}; choose "token", or'
            " set registration_open_to_all = true if you mean it",
        )
    bind = values.to_toml(config.bind)
    if config.password_hashing == "cheap" and not config.is_loopback():  # noqa: S105 - a way of hashing
        yield (
            "password_hashing",
            f'"cheap" is for tests, and bind = {bind} lets others in; choose "argon2id"',
        )
    for name, address in config.federation_hosts:
        if not is_this_machine(address) and not _is_allowed(address, config.outside_allowed):
            host = identifiers.split_server_name(address).host
            yield (
                "federation_hosts",
                f"{name} is at {address}, which is not this machine; allow it by outside_allowed ="
                f' ["{host}"]',
            )


def _is_allowed(address: str, allowed: Collection[str | values.Network]) -> bool:
    """Return whether the host of an address is among the destinations that are allowed."""
    host, _, is_ip_literal = identifiers.split_server_name(address)
    if not is_ip_literal:
        return host.lower() in allowed
    return any(ipaddress.ip_address(host) in it for it in allowed if not isinstance(it, str))


def is_this_machine(address: str) -> bool:
    """Return whether a server name or address, with or without a port, is this machine."""
    host, _, is_ip_literal = identifiers.split_server_name(address)
    if is_ip_literal:
        return ipaddress.ip_address(host).is_loopback
    return f".{host.lower()}".endswith(".localhost")
