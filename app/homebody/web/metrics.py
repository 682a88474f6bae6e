"""GET /metrics, for Prometheus: how the server is, in numbers without names of people or rooms.

Whoever asks from this machine itself may read them, unless a proxy asks for somebody else; others
have to show the token of the configuration. A proxy that says nothing of itself can't be told from
a program on this machine: for that, there is `metrics_without_token`.
"""

from __future__ import annotations

import hmac
import importlib
import ipaddress
from typing import Final

from flask import Blueprint, Response, request

from homebody import context, errors
from homebody.client_server.authentication import access_token, unauthenticated
from homebody.runtime import event_loop

bp = Blueprint("metrics", __name__)

PROXY_HEADERS: Final = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP", "Forwarded", "Via")
"""Who comes by a proxy may be anybody."""


@bp.get("/metrics")
@unauthenticated
def metrics() -> Response:
    """All numbers, in Prometheus' text form. Raises M_FORBIDDEN."""
    if not _may_read():
        raise errors.forbidden("The metrics are for this machine, or for who has metrics_token")
    # 1 MB that a server which nobody watches need not carry, and 20 ms for who reads first
    event_loop.offload(importlib.import_module, "homebody.web.prometheus")
    from homebody.web import prometheus  # noqa: PLC0415 - see above

    families = prometheus.families(context.homeserver())
    text = event_loop.offload(prometheus.text, families)
    return Response(text, content_type=prometheus.CONTENT_TYPE)


def _may_read() -> bool:
    config = context.server().config
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
        return False  # a Unix socket: who is behind it, we can't know
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback
