"""What a trace (`homebody trace`) shows of a request, with secrets masked."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import orjson
from flask import Response, g, request

from homebody.client_server import http
from homebody.context import homeserver
from homebody.core.sessions.browser_sessions import BrowserSession
from homebody.runtime import logs, traces
from homebody.spec.events import Json
from homebody.storage.caches import Requester

MAX_BODY_BYTES: Final = traces.MAX_BYTES - 4096
"""Longer bodies are left out; the rest of a datagram is the path and what is short."""
MAX_DEPTH: Final = 50
"""Of what is shown; clients may send deeper JSON than Python's stack allows to walk through."""
_SECRETS: Final = re.compile(
    r"passw|token|secret|passphrase|session_?key|private_?key|recovery_?key|push_?key"
    r"|^(?:mac|code|nonce|sid|delay_id)$",
    re.IGNORECASE,
)
"""Keys whose values are masked: rather one too many."""
_SHOWN_AUTH: Final = frozenset({"type", "identifier", "user"})
"""What is shown of `auth`: the session is a secret, and so are answers to its questions."""
_LOGINS: Final = frozenset({"login", "register"})


def note(
    known: Requester | BrowserSession | None, path: str, response: Response, seconds: float
) -> None:
    """Send a request that has ended to the traces of its user. `path` has its secrets masked."""
    user_id = _new_user(response) if known is None else known.user_id
    if user_id is None or not homeserver.traces.follows(user_id):
        return
    requester: Requester | None = g.get("requester")
    homeserver.traces.send(
        user_id,
        {
            "time_ms": int(time.time() * 1000),
            "user_id": user_id,
            "device_id": None if requester is None else requester.device_id,
            "request_id": logs.REQUEST_ID.get(),
            "method": request.method,
            "path": path,
            "has_token": requester is not None,
            "body": _body(),
            "body_bytes": request.content_length or 0,
            "status": response.status_code,
            "seconds": round(seconds, 6),
        },
    )


def _new_user(response: Response) -> str | None:
    """Return the user of a login or registration, also of a login that was refused."""
    if request.path.rsplit("/", 1)[-1] not in _LOGINS:
        return None
    name: str | None = g.get("refused_login")
    if name is not None:
        return name if name[:1] == "@" else f"@{name.lower()}:{homeserver.server.name}"
    content = response.get_json(silent=True) if response.status_code == 200 else None
    return content.get("user_id") if isinstance(content, dict) else None


def _body() -> Json | None:
    raw = request.environ.get(http.KEPT_BODY)
    if not raw or len(raw) > MAX_BODY_BYTES:
        return None
    try:
        body = masked(orjson.loads(raw))
    except orjson.JSONDecodeError:  # such as a form, or a file
        return None
    if not isinstance(body, dict) or len(orjson.dumps(body)) > MAX_BODY_BYTES:
        return None
    return body


def masked(value: Any, depth: int = 0) -> Any:
    """Return a JSON value with its secrets masked."""
    if depth > MAX_DEPTH:
        return logs.MASK
    if isinstance(value, list):
        return [masked(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _masked_member(key, item, depth + 1) for key, item in value.items()}


def _masked_member(key: str, value: Any, depth: int) -> Any:
    if _SECRETS.search(key):
        return logs.MASK
    if key == "auth" and isinstance(value, dict):
        return {
            name: masked(item, depth + 1) if name in _SHOWN_AUTH else logs.MASK
            for name, item in value.items()
        }
    return masked(value, depth)
