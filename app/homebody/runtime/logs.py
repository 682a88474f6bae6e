"""The log: lines on stderr with the ID of their request and without tokens.

Only our own loggers (`homebody.…`) follow the setting log_level. Libraries stay at WARNING: below
that, urllib3 and SQLAlchemy log URLs and parameters, and so tokens. web/middleware.py writes the
lines of requests.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from contextvars import ContextVar
from typing import Final, Literal

TEXT_FORMAT: Final = (
    "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s"
)
MASK: Final = "***"
SECRET_PARAMETERS: Final = frozenset(
    {"access_token", "loginToken", "token", "client_secret", "session", "code", "state"}
    | {"user_code", "next"}
)
"""Parameters of queries that the access log masks; `next` is a URL that may have others of them."""

# Each greenlet has a context of its own, so no request sees another's ID.
REQUEST_ID: Final[ContextVar[str]] = ContextVar("request_id", default="-")
"""The ID of the current request, `-` outside of one; set by web/middleware.py."""
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


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request = REQUEST_ID.get()
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
