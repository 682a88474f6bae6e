"""Authentication of requests from other servers, by the signature in their Authorization header.

A view declared with `from_server` runs only for requests that another server signed. The signature
covers the method, the path and query as they were sent, both server names, and the body.

Spec: server-server-api#request-authentication
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar, cast

import msgspec
from flask import g, request

from homebody import errors
from homebody.client_server import authentication, http
from homebody.client_server.authentication import Access
from homebody.context import homeserver
from homebody.errors import MatrixError
from homebody.spec import x_matrix
from homebody.spec.events import Json
from homebody.spec.signing import SignatureError
from homebody.spec.x_matrix import Authorization

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)

WITH_BODY: Final = frozenset({"POST", "PUT"})
MAX_BODY_BYTES: Final = http.MAX_BODY_BYTES
MAX_WAIT_S: Final = 10.0
"""For a turn, by the rate limit."""
MIN_WAIT_S: Final = 0.1
"""So that a thousand requests that wait don't all look every millisecond."""


def limited_to(max_bytes: int, scale: int = 1) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a view as `from_server` does, with a limit of its own for the body.

    `scale`: how many times as many JSON values as usual the body may have.
    """

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            signed = _authorizations()
            body = None
            if request.method in WITH_BODY:
                body = http.json_object(max_bytes=max_bytes, scale=scale)
            _check_signature(signed, body)
            g.origin, g.content = signed[0].origin, body
            wait_for_turn()  # not before: anyone can claim to be that server
            homeserver.sender.heard_from(g.origin)
            return view(*args, **kwargs)

        authentication.declared[checked] = Access("server")
        return checked

    return decorate


def from_server(view: Callable[P, R]) -> Callable[P, R]:
    """Run a view only for requests that another server signed; `origin()` is its name.

    The body of a POST or PUT has to be a JSON object, and is read: `content()`.
    Raises M_UNAUTHORIZED, M_FORBIDDEN for servers that the settings exclude, M_LIMIT_EXCEEDED, and
    what `http.json_object` raises.
    """
    return limited_to(MAX_BODY_BYTES)(view)


def origin() -> str:
    """Return the name of the server that makes the request."""
    return cast(str, g.origin)


def content() -> Json:
    """Return the body of a POST or PUT."""
    return cast(Json, g.content)


def content_as(kind: type[S]) -> S:
    """Return the body as a struct of this kind. Raises M_MISSING_PARAM, M_BAD_JSON."""
    return http.convert(content(), kind)


def _authorizations() -> list[Authorization]:
    """Return the signatures in the headers, at least one, all of one server that is allowed.

    WSGI joins several headers by commas.
    """
    try:
        signed = x_matrix.parse(request.headers.get("Authorization", ""))
    except ValueError as error:
        raise errors.unauthorized(str(error)) from None
    sender, own_name = signed[0].origin, homeserver.server.name
    if sender == own_name:
        raise errors.unauthorized("The origin is this server itself")
    if any(it.destination not in {None, own_name} for it in signed):
        raise errors.unauthorized(f"The request is not meant for {own_name}")
    if not homeserver.server.config.is_server_allowed(sender):
        raise errors.forbidden("This server does not talk to yours")
    return signed


def wait_for_turn(cost: int = 1) -> None:
    """Wait until the rate limit allows another request of this server, or so many.

    Other servers take 429 as a failure, and some don't come back for minutes; but they send one
    transaction at a time. Raises M_LIMIT_EXCEEDED where that would take longer than MAX_WAIT_S.
    """
    began = time.monotonic()
    while True:
        try:
            homeserver.rate_limits.check("rc_federation", origin(), cost)
        except MatrixError as error:
            seconds = max(error.fields["retry_after_ms"] / 1000, MIN_WAIT_S)
            if time.monotonic() + seconds > began + MAX_WAIT_S:
                raise
            time.sleep(seconds)
        else:
            break
    g.waited = g.get("waited", 0.0) + time.monotonic() - began


def _check_signature(signed: list[Authorization], body: Json | None) -> None:
    """Raise M_UNAUTHORIZED unless one of the signatures is valid: servers may have several keys."""
    uri, own_name = raw_uri(), homeserver.server.name
    reason = "its keys are not known"
    for it in signed:
        key = homeserver.server_keys.verify_key(it.origin, it.key_id)
        if key is None:
            continue
        try:
            x_matrix.verify(
                it, key, method=request.method, uri=uri, destination=own_name, content=body
            )
        except SignatureError as error:
            reason = str(error)
        else:
            return
    raise errors.unauthorized(f"The request is not signed by {signed[0].origin}: {reason}")


def raw_uri() -> str:
    """Return path and query as they were sent; the middleware normalizes those in PATH_INFO."""
    environ = request.environ
    uri = str(environ.get("RAW_URI") or environ["REQUEST_URI"])
    if uri[:1] != "/":  # absolute form, as proxies may send it
        uri = "/" + uri.partition("://")[2].partition("/")[2]
    return uri
