"""GET /metrics, for Prometheus: numbers about the server, without names of users or rooms.

Programs on this machine may read them, unless the request came through a proxy; others have to send
the token of the configuration. A proxy that adds no header looks like a program on this machine:
for that, there is `metrics_without_token`.
"""

from __future__ import annotations

import hmac
import importlib
import ipaddress
from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.client_server.authentication import access_token, unauthenticated
from homebody.context import homeserver
from homebody.runtime import event_loop

IS_AT_METRICS_BIND: Final = "homebody.is_at_metrics_bind"
"""A key in the environment of requests that came in at metrics_bind."""

bp = Blueprint("metrics", __name__)

PROXY_HEADERS: Final = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")
"""What proxies add. A request that came through one may be anybody's."""


@bp.get("/metrics")
@unauthenticated
def metrics() -> Response:
    """Return all numbers in Prometheus' text format. Raises M_FORBIDDEN, M_UNRECOGNIZED."""
    is_at_metrics_bind = IS_AT_METRICS_BIND in request.environ
    if homeserver.server.config.metrics_bind is not None and not is_at_metrics_bind:
        raise errors.unrecognized()
    if not is_at_metrics_bind and not _may_read():
        raise errors.forbidden(
            "/metrics is for programs on this machine and for the bearer of metrics_token"
        )
    # 1.2 MB and 24 ms that a server without a Prometheus saves
    event_loop.offload(importlib.import_module, "homebody.web.prometheus")
    from homebody.web import prometheus  # noqa: PLC0415 - see above

    snapshot = prometheus.Snapshot(homeserver)
    text = event_loop.offload(snapshot.text)  # 30 ms
    return Response(text, content_type=prometheus.CONTENT_TYPE)


def _may_read() -> bool:
    config = homeserver.server.config
    token = config.metrics_token
    if token is not None and hmac.compare_digest((access_token() or "").encode(), token.encode()):
        return True
    if not config.metrics_without_token:
        return False
    return _is_this_machine() and not any(name in request.headers for name in PROXY_HEADERS)


def _is_this_machine() -> bool:
    try:
        ip = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False  # a Unix socket, behind which may be a proxy
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
