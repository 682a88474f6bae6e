"""Calls to push gateways.

Spec: push-gateway-api#post_matrixpushv1notify
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from homebody.outside import RemoteError
from homebody.outside.client import Client

TIMEOUT_S: Final = 30.0
MAX_BYTES: Final = 65_536


def notify(client: Client, url: str, notification: dict[str, Any]) -> list[str]:
    """Send a notification; return the pushkeys that the gateway rejects. Raises RemoteError."""
    response = client.request(
        "POST",
        url,
        json={"notification": notification},
        timeout_s=TIMEOUT_S,
        max_bytes=MAX_BYTES,
    )
    if not 200 <= response.status < 300:
        message = f"The push gateway responds with status {response.status}"
        raise RemoteError("bad_response", message)
    try:
        content = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return []  # the status says that it accepted the notification
    rejected = content.get("rejected") if isinstance(content, dict) else None
    return [it for it in rejected if isinstance(it, str)] if isinstance(rejected, list) else []
