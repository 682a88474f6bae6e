"""The log: lines on stderr with the ID of their request and without tokens.

Only our own loggers (`homebody.…`) follow the setting log_level. Libraries stay at WARNING: below
that, urllib3 and SQLAlchemy log URLs and parameters, and so tokens.

Spec: client-server-api#client-authentication
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from typing import Final, Literal
from urllib.parse import unquote_plus

ACCESS: Final = logging.getLogger("homebody.access")
TEXT_FORMAT: Final = (
    "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s"
)
MASK: Final = "***"
SECRET_PARAMETERS: Final = frozenset(
    {"access_token", "loginToken", "token", "client_secret", "session"}
)
HEALTH_CHECKS: Final = frozenset({"/health", "/metrics"})
"""What Docker, Kubernetes and Prometheus request every few seconds; logged with DEBUG only, as are
CORS preflight requests."""
MAX_PATH_CHARACTERS: Final = 1_000
_NAME: Final = re.compile(r"@?[a-z0-9._=/+-]{1,255}(:[a-z0-9.:\[\]-]{1,255})?", re.IGNORECASE)
"""A user name or ID that is safe in a line that other programs parse."""

# Each greenlet has a context of its own, so no request sees another's ID.
_REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="-")
_SECRETS: Final = re.compile(r"(?i)(access_token[\"']?[=:] ?[\"']?|\bBearer )[^\s&\"']+")
# A display name with a line break could forge a log line; an escape sequence could take over
# the terminal that shows it.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Log to stderr from here on, in place of what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    handler.setFormatter(_Json() if style == "json" else _Text(TEXT_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("homebody").setLevel(level)


def begin_request() -> str:
    """Return an ID for the request that begins here; log lines of its greenlet carry it."""
    request_id = secrets.token_hex(4)
    _REQUEST_ID.set(request_id)
    return request_id


def request_id() -> str:
    """Return the ID of the current request, `-` outside of one."""
    return _REQUEST_ID.get()


def log_request(
    address: str, method: str, path: str, user_id: str | None, status: int, seconds: float
) -> None:
    """Log a request.

    `address` is the client's, beyond trusted proxies; `path` is as sent, with the query.
    """
    is_routine = status < 400 and (path in HEALTH_CHECKS or method == "OPTIONS")
    level = logging.DEBUG if is_routine else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    shown = masked_path(path)
    ACCESS.log(
        level,
        "%s %s %s %s %d %.3f s",
        address or "-",
        method,
        shown,
        user_id or "-",
        status,
        seconds,
        extra={
            "fields": {
                "address": address,
                "method": method,
                "path": shown,
                "user_id": user_id,
                "status": status,
                "seconds": round(seconds, 6),
            }
        },
    )


def log_refused_login(address: str, name: str | None) -> None:
    """Log a failed login, for programs such as fail2ban.

    `name` is the user name that the client sent. It is left out if it is not valid: it may be a
    password, or look like the beginning of another line.
    """
    shown = name if name is not None and _NAME.fullmatch(name) else None
    ACCESS.warning(
        "login refused to %s as %s",
        address or "-",
        shown or "-",
        extra={"fields": {"event": "login_refused", "address": address, "user_id": shown}},
    )


def masked_path(raw_path: str) -> str:
    """Return the path and query of a request with secrets masked, cut where it is too long.

    Names are compared decoded: `access%5Ftoken=` is the same parameter to the server.
    """
    path, mark, query = raw_path.partition("?")
    masked = path + mark + "&".join(map(_masked_parameter, query.split("&")))
    return masked if len(masked) <= MAX_PATH_CHARACTERS else masked[:MAX_PATH_CHARACTERS] + "…"


def _masked_parameter(parameter: str) -> str:
    name, mark, _ = parameter.partition("=")
    return f"{name}{mark}{MASK}" if mark and unquote_plus(name) in SECRET_PARAMETERS else parameter


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request = _REQUEST_ID.get()
    return True


def _cleaned(text: str) -> str:
    """Mask tokens in a message, such as that of an exception."""
    return _SECRETS.sub(rf"\1{MASK}", text)


class _Text(logging.Formatter):
    """`time - logger - line - level - request - message`, as in the log of Synapse."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = record.message.translate(_CONTROLS)
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return _cleaned(super().format(record))


class _Json(logging.Formatter):
    """One JSON object per line, with times in UTC and a key for each part of a request."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record),
            "logger": record.name,
            "line": record.lineno,
            "level": record.levelname,
            "request": getattr(record, "request", "-"),
            "message": _cleaned(record.getMessage()),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = _cleaned(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str)
