"""Scopes: what an access token allows, and for which device it is.

Spec: client-server-api#scope, client-server-api#allocated-scope-tokens
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from homebody.core.oauth import refusals
from homebody.spec import identifiers

API: Final = frozenset({"urn:matrix:client:api:*", "urn:matrix:org.matrix.msc2967.client:api:*"})
"""Full access. Clients from before the specification had it use the second."""
DEVICE: Final = ("urn:matrix:client:device:", "urn:matrix:org.matrix.msc2967.client:device:")
_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class Scope(NamedTuple):
    """The scope that a client asks for."""

    text: str
    """The tokens that this server knows, which are those that it grants."""
    device_id: str


def parse(text: str) -> Scope:
    """Return the part of a scope that this server knows.

    Raises invalid_scope unless it has full access and exactly one device.
    """
    tokens = list(dict.fromkeys(text.split(" ")))
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise refusals.invalid_scope("The scope is not a list of tokens, separated by one space")
    known = [it for it in tokens if it in API or it.startswith(DEVICE)]
    if API.isdisjoint(known):
        raise refusals.invalid_scope("The scope must have urn:matrix:client:api:*")
    devices = {_device_id(it) for it in known if it not in API}
    if len(devices) != 1:
        raise refusals.invalid_scope("The scope must have one urn:matrix:client:device:<device_id>")
    (device_id,) = devices
    if not device_id or not identifiers.has_at_most_255_bytes(device_id):
        raise refusals.invalid_scope("The device ID in the scope is empty or too long")
    return Scope(" ".join(known), device_id)


def _device_id(token: str) -> str:
    (prefix,) = (it for it in DEVICE if token.startswith(it))
    return token.removeprefix(prefix)
