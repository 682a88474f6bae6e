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
    """The pushkeys that the gateway calls invalid. Raises RemoteError when it did not take it."""
    answer = client.request(
        "POST",
        url,
        json={"notification": notification},
        timeout_s=TIMEOUT_S,
        max_bytes=MAX_BYTES,
    )
    if not 200 <= answer.status < 300:
        raise RemoteError("answer", f"The push gateway answers with status {answer.status}")
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return []  # it has taken the notification, and only that counts
    rejected = told.get("rejected") if isinstance(told, dict) else None
    return [it for it in rejected if isinstance(it, str)] if isinstance(rejected, list) else []
