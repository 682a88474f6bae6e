"""Requests that are answered when there is something to tell, or when their time is over.

Spec: client-server-api#syncing
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TypeVar, cast

from flask import g, request

from homebody import context
from homebody.client_server import http

R = TypeVar("R")

MAX_TIMEOUT_MS = 600_000
"""Ten minutes; longer waits end early, as connections rarely last."""


def first(
    user_id: str,
    timeout_ms: int,
    look: Callable[[], R],
    is_news: Callable[[R], bool],
    *,
    room_id: str | None = None,
) -> R:
    """What `look` finds as soon as that is news, or what it finds when the time is over.

    It is called again whenever something concerns the user, or the room if one is named. It takes
    and gives back whatever it reads with: nothing is held while the request waits.
    Raises M_UNKNOWN_TOKEN when the session was ended meanwhile.
    """
    wakeups = context.homeserver().wakeups
    connection = cast("socket.socket | None", request.environ.get("gunicorn.socket"))
    until = time.monotonic() + timeout_ms / 1000
    keys = (user_id,) if room_id is None else (user_id, room_id)
    with wakeups.waiting(*keys) as waiter:
        while True:
            waiter.rest()
            # After the waiter was registered: a logout just before that woke nobody
            http.check_still_valid()
            found = look()
            left = until - time.monotonic()
            if is_news(found) or left <= 0 or wakeups.is_closing or waiter.is_gone:
                return found
            waiter.wait(left, connection)
            g.waited = g.get("waited", 0.0) + left - (until - time.monotonic())
