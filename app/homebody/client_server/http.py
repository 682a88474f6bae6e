"""The body and the query parameters of a request, checked before a view uses them.

Spec: client-server-api#api-standards
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, TypeVar, cast

import msgspec
import orjson
from flask import g, request
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from homebody import errors
from homebody.client_server import authentication
from homebody.core.sync.spans import SyncToken
from homebody.spec import canonical_json, sticky
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

S = TypeVar("S", bound=msgspec.Struct)

MAX_BODY_BYTES = 2**20
"""For JSON bodies; uploads have a limit of their own. Parsing blocks the event loop: 1 MiB takes
some 20 ms at most, 8 MiB ten times as long."""
MAX_EVENT_BYTES = 512 * 1024
"""For a body that becomes an event of up to 64 KiB: white space and escapes make it longer."""
MAX_LARGE_BODY_BYTES = 8 * 2**20
"""For JSON bodies about thousands of devices or sessions."""
MAX_CONTAINERS = 50_000
"""Objects and arrays in a body. A key backup of 8 MiB has fewer; 8 MiB of nothing but brackets
would block the event loop for seconds."""
MAX_COMMAS = 200_000
"""A key backup of 8 MiB has fewer."""
SAFE_DEPTH = 100
MAX_INTEGER = 2**53 - 1
Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
"""Of a body: SQLite can't store what has more than 64 bits."""
MIB = 2**20
KEPT_BYTES = 2**17
"""The largest body that a view can read twice; see policy_servers.py."""
KEPT_BODY = "homebody.body"
"""Its place in the request's environment."""


def json_object(
    *, may_be_empty: bool = False, max_bytes: int = MAX_BODY_BYTES, scale: int = 1
) -> Json:
    """Return the request's body, which has to be a JSON object.

    `scale`: how many times as many values as usual it may have.

    A body that was lost on its way (a proxy, a broken client) must not empty what is stored, so an
    empty body is an error. With `may_be_empty`, for endpoints that clients do call without a body,
    it counts as `{}`. The Content-Type is ignored: curl and older clients send another.
    Raises M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
    """
    raw = raw_body(max_bytes)
    if not raw.strip():
        if may_be_empty:
            return {}
        raise errors.not_json("The body is empty")
    # Brackets and commas inside strings count too: legitimate bodies still have fewer
    containers = raw.count(b"{") + raw.count(b"[")
    if containers > MAX_CONTAINERS * scale or raw.count(b",") > MAX_COMMAS * scale:
        raise errors.too_large("The body has too many objects, arrays or values")
    try:
        value = orjson.loads(raw)
        if containers > SAFE_DEPTH:
            canonical_json.check_depth(value)
    except orjson.JSONDecodeError as error:
        raise errors.not_json(f"The body is not JSON: {error}") from None
    except ValueError as error:
        raise errors.bad_json(str(error)) from None
    if not isinstance(value, dict):
        raise errors.bad_json("The body must be a JSON object")
    return value


def raw_body(max_bytes: int) -> bytes:
    """Return the body. Raises M_TOO_LARGE before reading more than `max_bytes`."""
    if (kept := request.environ.get(KEPT_BODY)) is not None:  # by an earlier run of the view
        return cast(bytes, kept)
    if (request.content_length or 0) > max_bytes:
        raise errors.too_large(f"The body is larger than {max_bytes} bytes")
    request.max_content_length = max_bytes
    try:
        body = request.get_data(cache=False)
        if len(body) >= max_bytes:  # without a Content-Length, Werkzeug stops there silently
            request.stream.read(1)
    except RequestEntityTooLarge:
        raise errors.too_large(f"The body is larger than {max_bytes} bytes") from None
    except ClientDisconnected:
        raise errors.not_json("The body ended early") from None
    except Exception as error:  # for a bad chunk, each HTTP server raises another
        raise errors.not_json("The body could not be read to its end") from error
    if len(body) <= KEPT_BYTES:
        request.environ[KEPT_BODY] = body
    user: Requester | None = g.get("requester")
    if len(body) >= MIB:  # parsing blocks the event loop: a large body counts as many
        authentication.count_change(user, len(body) // MIB)
    # The body may have come slowly, and not every view writes. Tokens of services don't expire.
    if user is not None and user.service is None:
        authentication.check_still_valid()
    return body


def body_as(kind: type[S], *, may_be_empty: bool = False, max_bytes: int = MAX_BODY_BYTES) -> S:
    """Return the request's body as a struct of this kind. Keys that it doesn't name are ignored.

    Raises M_MISSING_PARAM for a missing key, M_BAD_JSON for a wrong type, M_NOT_JSON, M_TOO_LARGE.
    """
    return convert(json_object(may_be_empty=may_be_empty, max_bytes=max_bytes), kind)


def convert(value: Json, kind: type[S]) -> S:
    """Return a JSON object as a struct. Raises what `body_as` raises."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        if "missing required field" in str(error):
            raise errors.missing_param(str(error)) from None
        raise errors.bad_json(str(error)) from None


def convert_part(value: Json, kind: type[S]) -> S:
    """Return an object from within a body as a struct.

    Raises M_BAD_JSON, also for a missing key: M_MISSING_PARAM is for the request's own parameters.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise errors.bad_json(str(error)) from None


def query_integer(
    name: str, default: int, *, least: int = 0, most: int = MAX_INTEGER, cap: int | None = None
) -> int:
    """Return an integer from the query; more than `cap` counts as `cap`.

    Raises M_INVALID_PARAM for anything else, and outside of `least` and `most`.
    """
    text = request.args.get(name)
    if text is None:
        return default
    try:
        is_short = len(text) < 20 and text.isascii()  # int() reads the digits of all scripts
        value = int(text) if is_short and text.lstrip("-").isdecimal() else None
    except ValueError:
        value = None
    if value is None or not least <= value <= most:
        raise errors.invalid_param(f"{name} must be an integer from {least} to {most}")
    return value if cap is None else min(value, cap)


def query_boolean(name: str, *, default: bool = False) -> bool:
    """Return a boolean from the query. Raises M_INVALID_PARAM for other than true and false."""
    text = request.args.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise errors.invalid_param(f"{name} must be true or false")
    return text == "true"


def query_choice(name: str, allowed: Collection[str], default: str) -> str:
    """Return one of the allowed values from the query. Raises M_INVALID_PARAM for others."""
    text = request.args.get(name, default)
    if text not in allowed:
        raise errors.invalid_param(f"{name} must be one of {', '.join(sorted(allowed))}")
    return text


def query_position(tx: Reader, name: str) -> int | None:
    """Return the position of a sync token in the query; an empty one counts as absent.

    Raises M_INVALID_PARAM for anything but a token of this server.
    """
    text = request.args.get(name)
    return SyncToken.parse(text, tx.position).position if text else None


def query_required(name: str) -> str:
    """Return a required query parameter. Raises M_MISSING_PARAM."""
    value = request.args.get(name)
    if value is None:
        raise errors.missing_param(f"The query parameter {name} is missing")
    return value


def sticky_ms() -> int | None:
    """Return for how long an event is to be sticky (MSC4354), None if it is not.

    Raises M_INVALID_PARAM.
    """
    name = "org.matrix.msc4354.sticky_duration_ms"
    return query_integer(name, 0, most=sticky.MAX_MS) if name in request.args else None


def timestamp() -> int | None:
    """Return the origin_server_ts (ms) that a request sets for its event, None if it sets none.

    Only for application services.

    Raises M_INVALID_PARAM for a value that an event can't have.
    Spec: application-service-api#timestamp-massaging
    """
    return query_integer("ts", 0) if "ts" in request.args else None
