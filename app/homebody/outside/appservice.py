"""What this server asks of application services, and tells them.

Their addresses come from the owner's files, so they may be private. Paths from before the first
version of the API are tried where a service does not know today's.
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
from homebody.outside.client import Answer, Client
from homebody.spec.appservices import Service
from homebody.spec.events import Json

V1: Final = "/_matrix/app/v1"
_UNKNOWN_ROUTE: Final = {404, 405, 501}
QUERY_SECONDS: Final = 30.0
"""For a service that makes a user or a room before it answers."""
LOOKUP_SECONDS: Final = 10.0
TRANSACTION_SECONDS: Final = 60.0
PING_SECONDS: Final = 20.0
_MAX_BODY_IN_ERRORS: Final = 1000


def send_transaction(config: Config, service: Service, txn_id: str, body: Any) -> None:
    """Give a service events. Raises RemoteError unless it has taken them."""
    path = f"/transactions/{quote(txn_id, safe='')}"
    answer = _ask(config, service, "PUT", path, json=body, timeout_s=TRANSACTION_SECONDS)
    if answer.status >= 300:
        raise RemoteError("answer", f"{service.id} answers a transaction with {answer.status}")


def has_user(config: Config, service: Service, user_id: str) -> bool:
    """Whether a service knows the user, and so has made them. Raises RemoteError."""
    return _has(config, service, f"/users/{quote(user_id, safe='')}")


def has_alias(config: Config, service: Service, alias: str) -> bool:
    """Whether a service knows the alias, and so has made its room. Raises RemoteError."""
    return _has(config, service, f"/rooms/{quote(alias, safe='')}")


def third_party(config: Config, service: Service, path: str, query: Mapping[str, str]) -> Any:
    """What a service tells of a network: decoded JSON, None for 404. Raises RemoteError."""
    answer = _ask(
        config,
        service,
        "GET",
        f"/thirdparty/{quote(path)}",
        query=query,
        old_prefix="/_matrix/app",
        timeout_s=LOOKUP_SECONDS,
    )
    if answer.status == 404:
        return None
    if answer.status >= 300:
        raise RemoteError("answer", f"{service.id} answers with {answer.status}")
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        raise RemoteError("answer", f"{service.id} answers what is no JSON") from error


def ping(config: Config, service: Service, body: Json) -> tuple[int, str]:
    """(status, body) of a service's answer to a ping. Raises RemoteError."""
    url = f"{service.url}{V1}/ping"
    answer = _request(config, service, "POST", url, json=body, timeout_s=PING_SECONDS)
    return answer.status, answer.body.decode(errors="replace")[:_MAX_BODY_IN_ERRORS]


def _has(config: Config, service: Service, path: str) -> bool:
    answer = _ask(config, service, "GET", path, timeout_s=QUERY_SECONDS)
    if answer.status == 404:
        return False
    if answer.status >= 300:
        raise RemoteError("answer", f"{service.id} answers with {answer.status}")
    return True


def _ask(
    config: Config,
    service: Service,
    method: str,
    path: str,
    *,
    timeout_s: float,
    query: Mapping[str, str] | None = None,
    json: Any = None,
    old_prefix: str = "",
) -> Answer:
    """Return the answer of today's path, or else of the older one.

    The token is in the URL only for services that ask for it in their registration: proxies and the
    services themselves write URLs into their logs.

    Deviates: "does not indicate success" would double each request to a service in trouble; who
    does not know a path says so by one of three statuses.
    Spec: application-service-api#legacy-routes
    """
    asked = dict(query or {})
    if service.wants_token_in_query:
        asked["access_token"] = service.hs_token
    suffix = f"{path}?{urlencode(asked)}" if asked else path
    for prefix in (V1, old_prefix):
        url = f"{service.url}{prefix}{suffix}"
        answer = _request(config, service, method, url, json=json, timeout_s=timeout_s)
        if answer.status not in _UNKNOWN_ROUTE:
            break
    return answer


def _request(
    config: Config, service: Service, method: str, url: str, *, timeout_s: float, json: Any = None
) -> Answer:
    return _client(config).request(
        method,
        url,
        json=json,
        headers={"Authorization": f"Bearer {service.hs_token}"},
        timeout_s=timeout_s,
        is_owners=True,
    )


@functools.lru_cache(maxsize=1)
def _client(config: Config) -> Client:
    return Client(config)
