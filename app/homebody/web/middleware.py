"""What surrounds every request: paths, CORS, JSON, errors, the access log and request metrics.

- Paths: a room ID or state key may contain an escaped slash, which WSGI's PATH_INFO can't tell from
  a real one. So slashes and percent signs stay escaped here, until SegmentConverter passes the
  segment to the view.
- Older prefixes: r0 differs from v3 only in its name.
- CORS: every response has the headers, and OPTIONS is allowed for every path.
- Every response has the id of its log lines as X-Request-Id; a trusted proxy may choose it.
- If /metrics has an address of its own, it is served there alone.

Spec: client-server-api#web-browser-clients, client-server-api#api-versions,
client-server-api#client-authentication
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, unquote_plus, unquote_to_bytes

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter, MapAdapter, Rule

from homebody import context, errors
from homebody.context import homeserver
from homebody.runtime import logs, times
from homebody.runtime.times import Times
from homebody.storage import disk_errors
from homebody.storage.database import Server
from homebody.web import (
    account,
    browser_sessions,
    forwarded,
    health,
    invitations,
    metrics,
    pages,
    probe,
    tracing,
    well_known,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

CORS_HEADERS = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Origin, X-Requested-With, Content-Type, Accept, Authorization, Date, Range, If-None-Match,"
        " If-Match",
    ),
    (
        "Access-Control-Expose-Headers",
        "Content-Range, ETag, Retry-After, Content-Disposition, X-Request-Id",
    ),
]
REQUEST_ID = "X-Request-Id"
ACCESS = logging.getLogger("homebody.access")
SECRET_PATHS = frozenset(
    {("_homebody", "invite"), ("_homebody", "reset"), ("v1", "registration_tokens")}
    | {(it, "delayed_events") for it in ("v1", "org.matrix.msc4140")}
)
"""What follows them in a path is a token, or works like one."""
HEALTH_CHECKS = frozenset({"/health", "/metrics"})
"""What Docker, Kubernetes and Prometheus request every few seconds; logged with DEBUG only, as are
CORS preflight requests."""
MAX_PATH_CHARACTERS = 1_000
_SLASHES = re.compile("/|%2f", re.IGNORECASE)
_NAME = re.compile(r"@?[a-z0-9._=/+-]{1,255}(:[a-z0-9.:\[\]-]{1,255})?", re.IGNORECASE)
"""A user name or ID that is safe in a line that other programs parse."""

MAX_PARAMETERS = 1000
"""In a query. Each is parsed in Python: 50,000 would block the event loop for half a second."""
_UNIX_PEER = "127.0.0.1"
"""The address of what connects to a Unix socket, where there is none: a program of this machine."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ESCAPED = re.compile(rb"(%2[Ff]|%25)")
_OLD_PREFIX = re.compile(r"^/_matrix/client/(?:r0|unstable|v2_alpha|api/v1)(?=/)")
_OLD_MEDIA = re.compile(r"^/_matrix/media/(?:r0|v1)(?=/)(?!/create$)")


class SegmentConverter(BaseConverter):
    """One segment of a path, in which %2F and %25 are still escaped; see the module."""

    regex = "[^/]*"
    part_isolating = True

    def to_python(self, value: str) -> str:
        """Return the segment with its remaining escapes decoded."""
        return value.replace("%2F", "/").replace("%25", "%")


class Route(Rule):
    """A rule that matches paths but cannot build URLs.

    Werkzeug compiles a function for each rule that builds its URL. Nothing calls it here, and for
    all rules it takes as long as the rest of create_app, which every test runs.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: FBT001, FBT002 - werkzeug's
        return _no_path


def _no_path(*_args: object, **_kwargs: object) -> tuple[str, str]:
    raise NotImplementedError("URLs are never built from rules")


class Edge:
    """The WSGI application that gunicorn calls, around Flask."""

    def __init__(self, application: WSGIApplication, server: Server) -> None:
        self._application = application
        self._server = server
        self._has_metrics_listener = server.config.metrics_bind is not None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle one request."""
        peer = environ.get("REMOTE_ADDR") or _UNIX_PEER
        is_forwarded = (
            "HTTP_X_FORWARDED_FOR" in environ
            or "HTTP_X_FORWARDED_PROTO" in environ
            or "HTTP_X_REQUEST_ID" in environ
        )
        is_by_proxy = is_forwarded and self._server.config.is_trusted_proxy(peer)
        request_id = begin_request(environ.get("HTTP_X_REQUEST_ID") if is_by_proxy else None)
        more = [*CORS_HEADERS, (REQUEST_ID, request_id)]

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, headers + more, exc_info)

        if is_by_proxy:
            forwarded.see_through(environ, self._server.config.is_trusted_proxy)
        if self._has_metrics_listener and _is_elsewhere(environ):
            error = errors.unrecognized("There is nothing here")
            return _respond(environ, start, "404 Not Found", error.body)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return _respond(environ, start, "200 OK", {})
        if environ["QUERY_STRING"].count("&") > MAX_PARAMETERS:
            return _refuse(environ, start, "The query has too many parameters")
        try:
            environ["PATH_INFO"] = routing_path(environ)
        except UnicodeDecodeError:
            return _refuse(environ, start, "The path is not UTF-8")
        return self._application(environ, start)


def _is_elsewhere(environ: WSGIEnvironment) -> bool:
    """Return whether a request came in at metrics_bind that is for another path."""
    if not getattr(environ.get("gunicorn.socket"), "is_for_metrics", False):
        return False
    environ[metrics.IS_AT_METRICS_BIND] = True
    return raw_path(environ).partition("?")[0] not in HEALTH_CHECKS


def begin_request(proxys: str | None = None) -> str:
    """Return an ID for the request that begins here; log lines of its greenlet carry it.

    `proxys`: the one that a trusted proxy has given it, so that its log and ours fit together.
    """
    is_usable = proxys is not None and _REQUEST_ID.fullmatch(proxys)
    request_id = proxys if proxys is not None and is_usable else secrets.token_hex(4)
    logs.REQUEST_ID.set(request_id)
    times.CURRENT.set(Times())
    return request_id


def raw_path(environ: WSGIEnvironment) -> str:
    """Return path and query as the client sent them."""
    return str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"])


def routing_path(environ: WSGIEnvironment) -> str:
    """Return the path for Flask's routing, in the encoding of WSGI.

    Raises UnicodeDecodeError for a path that is not UTF-8.
    """
    path = raw_path(environ).partition("?")[0].encode("latin-1", "replace")
    if path[:1] != b"/" and b"://" in path[:8]:  # absolute form, as proxies may send it
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    decoded = b"".join(
        piece.upper() if _ESCAPED.fullmatch(piece) else unquote_to_bytes(piece)
        for piece in _ESCAPED.split(path)
    )
    text = decoded.decode("utf-8")
    text = _OLD_PREFIX.sub("/_matrix/client/v3", text)
    text = _OLD_MEDIA.sub("/_matrix/media/v3", text)
    return text.encode("utf-8").decode("latin-1")


def _refuse(environ: WSGIEnvironment, start: Callable[..., Any], why: str) -> Iterable[bytes]:
    return _respond(environ, start, "400 Bad Request", errors.invalid_param(why).body)


def _respond(
    environ: WSGIEnvironment, start: Callable[..., Any], status: str, value: dict[str, Any]
) -> Iterable[bytes]:
    """Respond to a request that does not reach Flask, and log it."""
    body = orjson.dumps(value)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(status, headers)
    address, method = environ.get("REMOTE_ADDR", ""), environ["REQUEST_METHOD"]
    log_request(address, method, raw_path(environ), None, int(status[:3]), 0.0)
    return [body]


class OrjsonProvider(JSONProvider):
    """JSON by orjson: views return dicts, with an `orjson.Fragment` where a part is encoded."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        """Return the JSON text of a value."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        """Return the value of a JSON text."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a response with a JSON body."""
        value = args[0] if args else kwargs
        return Response(orjson.dumps(value), mimetype="application/json")


class Application(Flask):
    """The Flask application, with the homeserver whose API it serves."""

    homeserver: context.Homeserver
    json_provider_class = OrjsonProvider
    url_rule_class = Route

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return the adapter that matches a request, by its method and path alone.

        Werkzeug's own also parses the host, on which no route depends.
        """
        if request is None:
            return None
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name="localhost",  # for redirects, of which there are none
            script_name="/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            default_method=environ["REQUEST_METHOD"],
            query_args=None,
        )


def register(app: Flask, server: Server) -> None:
    """Add the hooks, error handlers and pages to an application."""
    app.url_map.converters["default"] = SegmentConverter
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # an empty state key stands between two slashes
    with_views = (account, browser_sessions, health, invitations, metrics, pages, probe, well_known)
    for module in with_views:
        app.register_blueprint(module.bp)
    app.before_request(begin)
    app.after_request(end)
    app.register_error_handler(errors.MatrixError, error_response)
    app.register_error_handler(HTTPException, http_error_response)
    app.register_error_handler(Exception, fault_response)
    app.wsgi_app = Edge(app.wsgi_app, server)  # type: ignore[method-assign]  # Flask's own way


MAY_BE_EMPTY = frozenset({"state_key", "file_name", "key_id"})
"""Path parameters that may be empty. Most state has an empty key; a download without a file name
may have a slash after the media ID, and a query for all keys of a server one at its end."""


def begin() -> None:
    """Start the request's clock, and refuse a path with an empty parameter.

    A second request with an empty transaction ID would count as a repetition, and lose a message;
    an empty event type or tag would be stored, and no client could address it again.
    Raises M_INVALID_PARAM.
    """
    g.began = time.monotonic()
    for name, value in (request.view_args or {}).items():
        if value == "" and name not in MAY_BE_EMPTY:
            raise errors.invalid_param(f"{name} is empty in the path")


def end(response: Response) -> Response:
    """Count the request, and write its log line."""
    seconds = time.monotonic() - g.began
    busy = seconds - g.get("waited", 0.0)
    homeserver.metrics.note_request(request.endpoint, response.status_code, busy)
    known, address = g.get("requester") or g.get("browser_session"), request.remote_addr or ""
    if "refused_login" in g:
        log_refused_login(address, g.refused_login)
    if homeserver.traces.sockets:
        tracing.note(known, masked_path(raw_path(request.environ)), response, seconds)
    log_request(
        address,
        request.method,
        raw_path(request.environ),
        g.get("origin") if known is None else known.user_id,
        response.status_code,
        seconds,
        times.CURRENT.get(),
    )
    return response


NOT_COUNTED = Times()


def log_request(
    address: str,
    method: str,
    path: str,
    user_id: str | None,
    status: int,
    seconds: float,
    database: Times = NOT_COUNTED,
) -> None:
    """Log a request.

    `address` is the client's, beyond trusted proxies; `path` is as sent, with the query; `database`
    is the part of `seconds` that was spent there.
    """
    is_routine = status < 400 and (path in HEALTH_CHECKS or method == "OPTIONS")
    level = logging.DEBUG if is_routine else logging.INFO
    if not ACCESS.isEnabledFor(level):
        return
    shown = masked_path(path)
    ACCESS.log(
        level,
        "%s %s %s %s %d %.3f s (database: read %.3f, turn %.3f, write %.3f, commit %.3f)",
        address or "-",
        method,
        shown,
        user_id or "-",
        status,
        seconds,
        database.read,
        database.turn,
        database.write,
        database.commit,
        extra={
            "fields": {
                "address": address,
                "method": method,
                "path": shown,
                "user_id": user_id,
                "status": status,
                "seconds": round(seconds, 6),
                "read_seconds": round(database.read, 6),
                "turn_seconds": round(database.turn, 6),
                "write_seconds": round(database.write, 6),
                "commit_seconds": round(database.commit, 6),
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
    parts = [it for it in _SLASHES.split(path) if it]
    names = list(map(unquote, parts))
    for end in range(2, len(parts)):
        if (names[end - 2], names[end - 1]) in SECRET_PATHS:
            path = "/".join(["", *parts[:end], logs.MASK])
            break
    masked = path + mark + "&".join(map(_masked_parameter, query.split("&")))
    return masked if len(masked) <= MAX_PATH_CHARACTERS else masked[:MAX_PATH_CHARACTERS] + "…"


def _masked_parameter(parameter: str) -> str:
    name, mark, _ = parameter.partition("=")
    is_secret = mark and unquote_plus(name) in logs.SECRET_PARAMETERS
    return f"{name}{mark}{logs.MASK}" if is_secret else parameter


def error_response(error: errors.MatrixError) -> Response:
    """Return the response for an error."""
    response = Response(orjson.dumps(error.body), error.status, mimetype="application/json")
    if "retry_after_ms" in error.fields:
        response.headers["Retry-After"] = str(-(-error.fields["retry_after_ms"] // 1000))
    return response


def http_error_response(error: HTTPException) -> Response:
    """Return the response for what Flask itself refuses: mostly unknown paths and methods."""
    if isinstance(error, MethodNotAllowed):
        response = error_response(errors.unrecognized("This endpoint has no such method", 405))
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response
    if error.code == 404:
        return error_response(errors.unrecognized())
    if error.code == 413:
        return error_response(errors.too_large("The body is too large"))
    return error_response(errors.unknown(error.description or error.name, error.code or 500))


def fault_response(error: Exception) -> Response:
    """Return the response for a bug, or for a database file that is full, locked or damaged."""
    if (answer := disk_errors.answer_to(error)) is not None:
        return error_response(answer)
    LOG.exception("fault in a request")
    return error_response(errors.unknown("Something is wrong with the server", 500))
