"""Requests to application services.

Their URLs come from the administrator's files, so they may be private. Where a service does not
know a current path, the legacy one is tried.
Spec: application-service-api#homeserver---application-service-api
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import orjson

from homebody.config.settings import Config
from homebody.outside import RemoteError
from homebody.outside.client import Client, Response
from homebody.spec.appservices import Service
from homebody.spec.events import Json

V1: Final = "/_matrix/app/v1"
_UNKNOWN_ROUTE: Final = {404, 405, 501}
QUERY_SECONDS: Final = 30.0
"""For a service that creates a user or a room before it responds."""
LOOKUP_SECONDS: Final = 10.0
TRANSACTION_SECONDS: Final = 60.0
PING_SECONDS: Final = 20.0
_MAX_BODY_IN_ERRORS: Final = 1000


def send_transaction(config: Config, service: Service, txn_id: str, body: Any) -> None:
    """Send events to a service. Raises RemoteError unless it accepts them."""
    path = f"/transactions/{quote(txn_id, safe='')}"
    if _call(config, service, "PUT", path, json=body, timeout_s=TRANSACTION_SECONDS) is None:
        raise RemoteError("bad_response", f"{service.id} responds to a transaction with status 404")


def has_user(config: Config, service: Service, user_id: str) -> bool:
    """Ask a service whether a user exists; it may create it. Raises RemoteError."""
    path = f"/users/{quote(user_id, safe='')}"
    return _call(config, service, "GET", path, timeout_s=QUERY_SECONDS) is not None


def has_alias(config: Config, service: Service, alias: str) -> bool:
    """Ask a service whether an alias exists; it may create the room. Raises RemoteError."""
    path = f"/rooms/{quote(alias, safe='')}"
    return _call(config, service, "GET", path, timeout_s=QUERY_SECONDS) is not None


def third_party(config: Config, service: Service, path: str, query: Mapping[str, str]) -> Any:
    """Return what a service knows of a third-party network, None for 404. Raises RemoteError."""
    response = _call(
        config,
        service,
        "GET",
        f"/thirdparty/{quote(path)}",
        query=query,
        legacy_prefix="/_matrix/app",
        timeout_s=LOOKUP_SECONDS,
    )
    try:
        return None if response is None else orjson.loads(response.body)
    except orjson.JSONDecodeError as error:
        raise RemoteError("bad_response", f"The response of {service.id} is not JSON") from error


def ping(config: Config, service: Service, body: Json) -> tuple[int, str]:
    """Ping a service; return the status and body of its response. Raises RemoteError."""
    url = f"{service.url}{V1}/ping"
    response = _request(config, service, "POST", url, json=body, timeout_s=PING_SECONDS)
    return response.status, response.body.decode(errors="replace")[:_MAX_BODY_IN_ERRORS]


def _call(
    config: Config,
    service: Service,
    method: str,
    path: str,
    *,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    json: Any = None,
    legacy_prefix: str = "",
) -> Response | None:
    """Return the response at the current path, or else at the legacy one; None for 404.

    Raises RemoteError for other errors.

    The token is in the URL only for services that need it there by their registration: proxies and
    services log URLs.

    Deviates: "does not indicate success" would double each request to a failing service; only the
    three statuses of an unknown path lead to the legacy one.
    Spec: application-service-api#legacy-routes
    """
    parameters = dict(query or {})
    if service.wants_token_in_query:
        parameters["access_token"] = service.hs_token
    suffix = f"{path}?{urlencode(parameters)}" if parameters else path
    for prefix in (V1, legacy_prefix):
        url = f"{service.url}{prefix}{suffix}"
        response = _request(config, service, method, url, json=json, timeout_s=timeout_s)
        if response.status not in _UNKNOWN_ROUTE:
            break
    if response.status == 404:
        return None
    if response.status >= 300:
        raise RemoteError("bad_response", f"{service.id} responds with status {response.status}")
    return response


def _request(
    config: Config, service: Service, method: str, url: str, *, timeout_s: float, json: Any = None
) -> Response:
    return _client(config).request(
        method,
        url,
        json=json,
        headers={"Authorization": f"Bearer {service.hs_token}"},
        timeout_s=timeout_s,
        is_trusted=True,
    )


@functools.lru_cache(maxsize=1)
def _client(config: Config) -> Client:
    return Client(config)
