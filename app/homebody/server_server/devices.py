"""The devices of this server's users, and their keys.

Spec: server-server-api#device-management, server-server-api#end-to-end-encryption
"""

from __future__ import annotations

from typing import Final

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.encryption import claim_limits, device_keys, one_time_keys
from homebody.server_server.authentication import content_as, from_server, origin
from homebody.spec.events import Json

bp = Blueprint("server_devices", __name__)

MAX_QUERIED: Final = 1_000
"""Users in one request."""
MAX_CLAIMS: Final = 1_000
"""Devices in one request."""


class QueryKeys(msgspec.Struct):
    """The body of a query."""

    device_keys: dict[str, list[str]]


class ClaimKeys(msgspec.Struct):
    """The body of a claim."""

    one_time_keys: dict[str, dict[str, str]]


@bp.get("/v1/user/devices/<user_id>")
@from_server
def get_user_devices(user_id: str) -> Json:
    """Return the devices of a user that have keys, and the user's cross-signing keys."""
    with homeserver.database.read() as tx:
        if accounts.find(tx, user_id) is None:
            raise errors.not_found(f"{user_id} is not a user of this server")
        return device_keys.of_user(tx, user_id)


@bp.post("/v1/user/keys/query")
@from_server
def query_user_encryption_keys() -> Json:
    """Return the identity keys of users and their devices."""
    wanted = content_as(QueryKeys).device_keys
    if len(wanted) > MAX_QUERIED:
        raise errors.too_large(f"A request may query keys of at most {MAX_QUERIED} users")
    with homeserver.database.read() as tx:
        found = device_keys.query(tx, "", wanted)
    return {key: found[key] for key in ("device_keys", "master_keys", "self_signing_keys")}


@bp.post("/v1/user/keys/claim")
@from_server
def claim_user_encryption_keys() -> Json:
    """Claim a one-time key of each device."""
    requested = content_as(ClaimKeys).one_time_keys
    wanted = claim_limits.in_request(requested, MAX_CLAIMS)
    with homeserver.database.read() as tx:
        claims = claim_limits.of_server(tx, origin(), wanted)
    return {"one_time_keys": one_time_keys.claim_all(homeserver.database, claims)}
