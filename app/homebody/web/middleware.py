"""What happens to a request before Flask sees it, and to an answer after.

- Paths: a room id or state key may contain an escaped slash, which WSGI's PATH_INFO can't tell from
  a real one. So the path is decoded here segment by segment, and what must stay apart stays escaped
  until the converter `segment` gives it to the view.
- Older prefixes: r0 differs from v3 in its name only.
- CORS: every answer carries the headers, and OPTIONS is answered for every path.
- Every answer carries the id of its lines in the log as X-Request-Id.

Spec: client-server-api#web-browser-clients, client-server-api#api-versions
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import BaseConverter, MapAdapter, Rule

from homebody import context, errors
from homebody.config.settings import Config
from homebody.runtime import logs
from homebody.storage import disk_errors
from homebody.web import email_page, health, metrics, pages, well_known

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

CORS_HEADERS = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Origin, X-Requested-With, Content-Type, Accept, Authorization, Date, Range, If-None-Match",
    ),
    (
        "Access-Control-Expose-Headers",
        "Content-Range, ETag, Retry-After, Content-Disposition, X-Request-Id",
    ),
]
REQUEST_ID = "X-Request-Id"
MAX_PARAMETERS = 1000
"""Of a query. Each is parsed in Python: 50,000 would hold up everybody else for half a second."""
_ESCAPED = re.compile(rb"%2[Ff]|%25")
_OLD_PREFIX = re.compile(r"^/_matrix/client/(?:r0|unstable|v2_alpha|api/v1)(?=/)")
_OLD_MEDIA = re.compile(r"^/_matrix/media/(?:r0|v1)(?=/)(?!/create$)")


class SegmentConverter(BaseConverter):
    """One segment of a path, in which %2F and %25 are still escaped; see the module."""

    regex = "[^/]*"
    part_isolating = True

    def to_python(self, value: str) -> str:
        """The segment as the client meant it."""
        return value.replace("%2F", "/").replace("%25", "%")


class Route(Rule):
    """A rule that matches paths and makes none.

    Werkzeug compiles each rule's function that makes a path of arguments. Nobody calls it here, and
    for all rules it takes as long as the rest of create_app, which every test runs.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:  # noqa: FBT001, FBT002 - werkzeug's
        return _no_path


def _no_path(*_args: object, **_kwargs: object) -> tuple[str, str]:
    raise NotImplementedError("Paths are only matched here, never made")


class Edge:
    """The WSGI application that gunicorn calls: this module's rules around Flask."""

    def __init__(self, application: WSGIApplication, config: Config) -> None:
        self._application = application
        self._config = config

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        more = [*CORS_HEADERS, (REQUEST_ID, logs.begin_request())]

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            return start_response(status, headers + more, exc_info)

        self._see_through_proxies(environ)
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return _answer(environ, start, "200 OK", {})
        if environ["QUERY_STRING"].count("&") > MAX_PARAMETERS:
            return _refuse(environ, start, "The query has too many parameters")
        try:
            environ["PATH_INFO"] = routing_path(environ)
        except UnicodeDecodeError:
            return _refuse(environ, start, "The path is not UTF-8")
        return self._application(environ, start)

    def _see_through_proxies(self, environ: WSGIEnvironment) -> None:
        """Put the client's own address and scheme in place of a trusted proxy's.

        The headers list what a request came through, the nearest last: the last address that is no
        proxy of ours is the client. Anything before it the client may have made up, and what is no
        address says nothing. Host stays as it is, and X-Forwarded-Host unread: addresses in answers
        are made of `public_url` alone.
        """
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        schemes = environ.get("HTTP_X_FORWARDED_PROTO")
        is_told = forwarded or schemes
        if not is_told or not self._config.is_trusted_proxy(environ.get("REMOTE_ADDR", "")):
            return
        proxies = 1
        for text in reversed((forwarded or "").split(",")):
            address = _address(text.strip())
            if address is None:
                break
            environ["REMOTE_ADDR"] = address
            if not self._config.is_trusted_proxy(address):
                break
            proxies += 1
        if schemes:
            told = schemes.lower().split(",")  # one for each proxy, or that of the nearest alone
            scheme = told[-min(proxies, len(told))].strip()
            if scheme in {"http", "https"}:
                environ["wsgi.url_scheme"] = scheme


def raw_path(environ: WSGIEnvironment) -> str:
    """Return path and query as the client sent them."""
    return str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or environ["PATH_INFO"])


def routing_path(environ: WSGIEnvironment) -> str:
    """The path as Flask routes it, in the encoding that WSGI prescribes.

    Raises UnicodeDecodeError for a path that is not UTF-8.
    """
    path = raw_path(environ).partition("?")[0].encode("latin-1", "replace")
    if path[:1] != b"/" and b"://" in path[:8]:  # absolute form, as proxies may send it
        path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
    decoded = b"".join(
        piece.upper() if _ESCAPED.fullmatch(piece) else unquote_to_bytes(piece)
        for piece in _split_keeping(path)
    )
    text = decoded.decode("utf-8")
    text = _OLD_PREFIX.sub("/_matrix/client/v3", text)
    text = _OLD_MEDIA.sub("/_matrix/media/v3", text)
    return text.encode("utf-8").decode("latin-1")


def _address(text: str) -> str | None:
    """The IP address of an entry of X-Forwarded-For, to which some proxies add the port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def _split_keeping(path: bytes) -> Iterable[bytes]:
    """The path cut around the escapes that have to stay."""
    at = 0
    for match in _ESCAPED.finditer(path):
        yield path[at : match.start()]
        yield match.group()
        at = match.end()
    yield path[at:]


def _refuse(environ: WSGIEnvironment, start: Callable[..., Any], why: str) -> Iterable[bytes]:
    return _answer(environ, start, "400 Bad Request", errors.invalid_param(why).body)


def _answer(
    environ: WSGIEnvironment, start: Callable[..., Any], status: str, value: dict[str, Any]
) -> Iterable[bytes]:
    """Answer a request that Flask never sees, and log it as those that it sees."""
    body = orjson.dumps(value)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start(status, headers)
    address, method = environ.get("REMOTE_ADDR", ""), environ["REQUEST_METHOD"]
    logs.log_request(address, method, raw_path(environ), None, int(status[:3]), 0.0)
    return [body]


class OrjsonProvider(JSONProvider):
    """Views return dicts, with `orjson.Fragment`s where a part is encoded already."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        """JSON of a value."""
        return orjson.dumps(obj).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        """The value of a JSON text."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """An answer with a JSON body."""
        value = args[0] if args else kwargs
        return Response(orjson.dumps(value), mimetype="application/json")


class NoSessions(SessionInterface):
    """Sessions in cookies, which nothing here uses."""

    _SESSION = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        """Return the same empty session each time."""
        return self._SESSION

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save nothing; never called for this kind of session."""


class Application(Flask):
    """Flask with our JSON and our routes, and the server that answers them."""

    homeserver: context.Homeserver
    session_interface = NoSessions()
    json_provider_class = OrjsonProvider
    url_rule_class = Route

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what matches the path of a request: by its method and path alone.

        Werkzeug would go through the names of the host too, and no route depends on those.
        """
        if request is None:
            return None
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name="localhost",  # stands in redirects only, of which there are none
            script_name="/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            default_method=environ["REQUEST_METHOD"],
            query_args=None,
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """The function itself: none is a coroutine, and Flask would look at each request anew."""
        return func


def register(app: Flask, config: Config) -> None:
    """Put this module's rules around an application."""
    app.url_map.converters["default"] = SegmentConverter
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # an empty state key stands between two slashes
    for module in (email_page, health, metrics, pages, well_known):
        app.register_blueprint(module.bp)
    app.before_request(begin)
    app.after_request(end)
    app.register_error_handler(errors.MatrixError, answer_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_fault)
    app.wsgi_app = Edge(app.wsgi_app, config)  # type: ignore[method-assign]  # Flask's own way


MAY_BE_EMPTY = frozenset({"state_key", "file_name"})
"""The parts of a path that may be empty. Most state has an empty key; a file that is downloaded
without a name may have a slash after its id."""


def begin() -> None:
    """Note when the request came, and refuse a path with an empty part.

    An empty transaction id would be taken for the one of the request before, which swallows a
    message; an empty event type or tag would be stored, and no client could name it again.
    Raises M_INVALID_PARAM.
    """
    g.began = time.monotonic()
    for name, value in (request.view_args or {}).items():
        if value == "" and name not in MAY_BE_EMPTY:
            raise errors.invalid_param(f"The path has nothing in the place of {name}")


def end(answer: Response) -> Response:
    """Count the request, and write its line into the log."""
    seconds = time.monotonic() - g.began
    busy = seconds - g.get("waited", 0.0)
    context.homeserver().metrics.note_request(request.endpoint, answer.status_code, busy)
    asker, address = g.get("requester"), request.remote_addr or ""
    if "refused_login" in g:
        logs.log_refused_login(address, g.refused_login)
    logs.log_request(
        address,
        request.method,
        raw_path(request.environ),
        None if asker is None else asker.user_id,
        answer.status_code,
        seconds,
    )
    return answer


def answer_error(error: errors.MatrixError) -> Response:
    """The answer that an error is."""
    answer = Response(orjson.dumps(error.body), error.status, mimetype="application/json")
    if "retry_after_ms" in error.fields:
        answer.headers["Retry-After"] = str(-(-error.fields["retry_after_ms"] // 1000))
    return answer


def answer_http_error(error: HTTPException) -> Response:
    """What Flask itself refuses: unknown paths and methods, mostly."""
    if isinstance(error, MethodNotAllowed):
        answer = answer_error(errors.unrecognized("This endpoint has no such method", 405))
        answer.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return answer
    if error.code == 404:
        return answer_error(errors.unrecognized())
    if error.code == 413:
        return answer_error(errors.too_large("The body is too large"))
    return answer_error(errors.unknown(error.description or error.name, error.code or 500))


def answer_fault(error: Exception) -> Response:
    """A fault of ours, unless the database's file is the matter."""
    if (answer := disk_errors.answer_to(error)) is not None:
        return answer_error(answer)
    LOG.exception("fault in a request")
    return answer_error(errors.unknown("Something is wrong with the server", 500))
