"""Requests to other servers while a client waits for the response.

A client gives up after a minute or less, and its user before that. So these requests have little
time, and less where a server has just failed.
"""

from __future__ import annotations

from typing import Any, Final

from homebody import errors
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, Query
from homebody.spec import canonical_json, identifiers
from homebody.spec.events import Json

SECONDS: Final = 25.0
SECONDS_IF_FAILING: Final = 10.0


def seconds_for(client: FederationClient, server: str) -> float:
    """Return how long a client's request may wait for a server."""
    return SECONDS_IF_FAILING if client.is_failing(server) else SECONDS


def ask(
    client: FederationClient,
    server: str,
    method: str,
    path: str,
    *,
    max_bytes: int,
    query: Query | None = None,
    json: Any = None,
    seconds: float = SECONDS,
) -> Json:
    """Return the JSON object with which a server responds.

    Raises M_INVALID_PARAM for what is not a server name, and as `error_of` does.
    """
    if not identifiers.is_server_name(server):
        raise errors.invalid_param(f"{server!r} is not a server name")
    try:
        found = client.request(
            server,
            method,
            path,
            query=query,
            json=json,
            timeout_s=min(seconds, seconds_for(client, server)),
            max_bytes=max_bytes,
            decode=_decode,
        )
    except RemoteError as error:
        raise error_of(server, error) from error
    if not isinstance(found, dict):
        raise errors.unknown(f"{server} responds with something else than was asked for", 502)
    return found


def put(
    client: FederationClient, server: str, path: str, body: Json | bytes, *, max_bytes: int
) -> object:
    """Return what a server responds to an event that it is sent. Raises RemoteError."""
    found: object = client.request(
        server,
        "PUT",
        path,
        json=body,
        timeout_s=seconds_for(client, server),
        max_bytes=max_bytes,
    )
    return found


def is_unknown_endpoint(error: RemoteError) -> bool:
    """Return whether a server does not know the operation, as older ones don't know newer ones.

    Spec: server-server-api#unsupported-endpoints
    """
    return error.errcode == "M_UNRECOGNIZED" or (error.status == 404 and error.errcode is None)


def error_of(server: str, error: RemoteError) -> MatrixError:
    """Return the error for a client whose request needs the response of another server.

    M_NOT_FOUND if that server does not have it, M_FORBIDDEN if it refuses or the settings exclude
    it, else M_UNKNOWN: 504 if it does not respond in time, 502 for other failures.
    """
    if error.status == 404:
        return errors.not_found(f"{server} does not have this")
    if error.status == 403 or error.kind == "refused":
        return errors.forbidden(str(error))
    if error.kind == "timeout":
        return errors.unknown(f"{server} does not respond in time", 504)
    return errors.unknown(f"{server} can't be asked at the moment: {error}", 502)


def _decode(body: bytes) -> Any:
    """Return the value of a response, which becomes part of one. Raises ValueError."""
    value = canonical_json.decode(body)
    canonical_json.check_depth(value)
    return value
