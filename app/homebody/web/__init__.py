"""What surrounds every request: errors, CORS, the log line, well-known files and pages."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import orjson
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from flask.sessions import NullSession, SessionInterface, SessionMixin
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.routing import MapAdapter

from homebody import context, errors
from homebody.config.settings import Config
from homebody.runtime import logs
from homebody.storage import disk_errors
from homebody.web import email_page, health, metrics, middleware, pages, well_known

LOG = logging.getLogger(__name__)


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
    url_rule_class = middleware.Route

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
    app.url_map.converters["default"] = middleware.SegmentConverter
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # an empty state key stands between two slashes
    for module in (email_page, health, metrics, pages, well_known):
        app.register_blueprint(module.bp)
    app.before_request(begin)
    app.after_request(end)
    app.register_error_handler(errors.MatrixError, answer_error)
    app.register_error_handler(HTTPException, answer_http_error)
    app.register_error_handler(Exception, answer_fault)
    app.wsgi_app = middleware.Edge(app.wsgi_app, config)  # type: ignore[method-assign]  # Flask's own way


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
        middleware.raw_path(request.environ),
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
