"""What every endpoint does first and last: who asks, what the body says, how an error is told.

Spec: client-server-api#api-standards, client-server-api#client-authentication
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final, ParamSpec, TypeVar, cast

import msgspec
import orjson
from flask import g, has_request_context, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge

from homebody import context, errors
from homebody.client_server import guest_access, suspension
from homebody.core import ratelimits
from homebody.core.accounts import access_tokens, accounts
from homebody.core.sessions import appservice_users
from homebody.core.sync import tokens
from homebody.errors import MatrixError
from homebody.spec import canonical_json
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader, Tx

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=msgspec.Struct)
View = Callable[..., ResponseReturnValue]

MAX_BODY_BYTES = 2**20
"""Of a JSON body; uploads have a limit of their own. While a body is parsed nobody else is served:
1 MiB takes some 20 ms at most, 8 MiB ten times as long."""
MAX_LARGE_BODY_BYTES = 8 * 2**20
"""The same where one request carries what belongs to thousands of devices or sessions."""
MAX_CONTAINERS = 50_000
"""Objects and arrays in a body. A key backup of 8 MiB has fewer; 8 MiB of nothing but brackets
would take seconds to parse, during which nobody else is served."""
MAX_COMMAS = 200_000
"""A key backup of 8 MiB has fewer."""
SAFE_DEPTH = 100
MAX_INTEGER = 2**53 - 1
MIB = 2**20
_REFUSED: Final = frozenset({"M_FORBIDDEN", "M_USER_DEACTIVATED", "M_LIMIT_EXCEEDED"})
CHANGING: Final = frozenset({"POST", "PUT", "DELETE"})

_only_reading: set[Callable[..., object]] = set()
"""Views whose POST only asks something."""
_authenticating: set[Callable[..., object]] = set()
"""Views that count their changes by account, as soon as they know it."""


def only_reads(view: Callable[P, R]) -> Callable[P, R]:
    """Do not count the requests of a view as changes, though clients POST them.

    Such a view needs a limit of its own, or answers long polls, which limit themselves.
    """
    _only_reading.add(view)
    return view


def limit_changes(view: Callable[..., object], who: Requester | None) -> None:
    """Count a request that may change something, for its user if there is one, or its address.

    Raises M_LIMIT_EXCEEDED.
    """
    if request.method in CHANGING and view not in _only_reading:
        _count_change(who, 1)


@functools.cache
def limit_anonymous_changes(view: View) -> View:
    """Return a view that counts its requests in the same way, if it asks for no access token."""
    if view in _authenticating or view in _only_reading:
        return view

    @functools.wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> ResponseReturnValue:
        limit_changes(view, None)
        return view(*args, **kwargs)

    return wrapped


def _count_change(who: Requester | None, cost: int) -> None:
    if who is not None:
        context.rate_limits().check("rc_writes", who.user_id, cost)
    elif _service() is None:  # a bridge registers all its users at its first start
        context.rate_limits().check("rc_writes", address_key(), cost)


def authenticated(view: Callable[P, R]) -> Callable[P, R]:
    """Run a view only for who shows a valid access token; `requester()` then tells who it is.

    Raises M_MISSING_TOKEN and M_UNKNOWN_TOKEN (401), M_GUEST_ACCESS_FORBIDDEN for what guests may
    not ask, M_USER_SUSPENDED for what the suspended may not.
    """

    @functools.wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        token = access_token()
        if token is None:
            raise errors.missing_token()
        who = _recognise(token)
        limit_changes(view, who)
        if who.is_guest:
            guest_access.check()
        if who.is_suspended:
            suspension.check()
        return view(*args, **kwargs)

    _authenticating.add(wrapped)
    return wrapped


def authenticated_if_locked(view: Callable[P, R]) -> Callable[P, R]:
    """The same also for who is locked out: "all but the following APIs", /logout and /logout/all.

    Spec: client-server-api#account-locking
    """

    @functools.wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        token = access_token()
        if token is None:
            raise errors.missing_token()
        limit_changes(view, _recognise(token, may_be_locked=True))
        return view(*args, **kwargs)

    _authenticating.add(wrapped)
    return wrapped


def optionally_authenticated(view: Callable[P, R]) -> Callable[P, R]:
    """Run a view for anybody, but refuse a token that is shown and not valid."""

    @functools.wraps(view)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        token = access_token()
        limit_changes(view, None if token is None else _recognise(token))
        return view(*args, **kwargs)

    _authenticating.add(wrapped)
    return wrapped


def _recognise(token: str, *, may_be_locked: bool = False) -> Requester:
    """Return who has this token, as `requester()` does from now on; note that they were here."""
    who = _who_has(token, may_be_locked=may_be_locked)
    note_seen(who.user_id, who.device_id)
    g.requester, g.may_be_locked = who, may_be_locked
    return who


def _who_has(token: str, *, may_be_locked: bool = False) -> Requester:
    service = _service()
    if service is None:
        return access_tokens.authenticate(context.db(), token, may_be_locked=may_be_locked)
    query = request.args
    # its name before version 1.17, which bridges still send
    device_id = query.get("device_id") or query.get("org.matrix.msc3202.device_id")
    user_id = query.get("user_id")
    return appservice_users.act_as(
        context.db(), service, user_id, device_id, may_be_locked=may_be_locked
    )


def _service() -> Service | None:
    """Return the application service whose token the request shows, if it is one."""
    services = context.server().appservices
    token = access_token() if services.all else None
    return services.by_token(token) if token is not None else None


def limit_strangers() -> None:
    """Count a question that needs no account, unless somebody with an account asks it.

    A token that is not valid any more counts as none: such a question needs no other answer.
    Raises M_LIMIT_EXCEEDED.
    """
    if maybe_requester() is None and not _has_account():
        context.rate_limits().check("rc_strangers", address_key())


def _has_account() -> bool:
    token = access_token()
    try:
        return token is not None and _who_has(token) is not None
    except MatrixError:
        return False


def check_still_valid() -> None:
    """Look at the token again, after its request has waited.

    Raises M_UNKNOWN_TOKEN when it was revoked meanwhile, M_USER_LOCKED, M_USER_SUSPENDED.
    """
    who = requester()
    if who.service is None and access_tokens.is_still_valid(context.db(), who):
        return
    _keep_requester(_who_has(access_token() or "", may_be_locked=g.may_be_locked))


def admit(tx: Tx) -> None:
    """Look at the token again inside a write of its request, whichever function writes.

    A request may have waited for its body, for a password hash or for its turn, and the session may
    be over by now: the server would do what nobody may ask any more. See Database.admit.
    Raises as `check_still_valid` does.
    """
    who = maybe_requester() if has_request_context() else None
    if who is None:
        return
    if who.service is not None:
        _keep_requester(appservice_users.refresh_requester(tx, who, may_be_locked=g.may_be_locked))
    elif not access_tokens.is_still_valid(tx, who):
        again = access_tokens.reauthenticate(tx, who, may_be_locked=g.may_be_locked)
        _keep_requester(again)
    if "proved" in g:
        accounts.check_password_unchanged(tx, g.proved)


def rely_on(proved: accounts.AccountInfo) -> None:
    """Let the writes of this request happen only while the account has the password it had then.

    A check takes its time, and hashing a new one again: whoever was under way with an old password
    when the user set another one could take the account back.
    """
    g.proved = proved


def _keep_requester(who: Requester) -> None:
    """Let `requester()` return what is known now. Raises M_USER_SUSPENDED."""
    if who.is_suspended and not requester().is_suspended:
        suspension.check(is_late=True)
    g.requester = who


def note_seen(user_id: str, device_id: str) -> None:
    """Remember when and from where this device was last used: now, by this request."""
    context.homeserver().last_seen.note(user_id, device_id, client_address(), user_agent())


def logged_in(session: Json) -> Json:
    """Return the answer with a new session as it is, and count its device as seen.

    A user who looks at the list of devices would otherwise find the newest as never used.
    """
    note_seen(session["user_id"], session["device_id"])
    return session


def requester() -> Requester:
    """Who asks, in an authenticated view."""
    return cast(Requester, g.requester)


def maybe_requester() -> Requester | None:
    """Who asks, where that need not be known."""
    return cast("Requester | None", g.get("requester"))


def must_be_me(user_id: str) -> None:
    """Raises M_FORBIDDEN when a path names another user than the one who asks."""
    if user_id != requester().user_id:
        raise errors.forbidden("You can only do this for yourself")


def must_not_be_suspended() -> None:
    """Raises M_USER_SUSPENDED where suspension.py leaves it to the view to look closer.

    Spec: client-server-api#account-suspension
    """
    if requester().is_suspended:
        raise errors.user_suspended()


def appservice() -> Service:
    """The application service that asks, where it need not say as whom.

    Raises M_MISSING_TOKEN and M_UNKNOWN_TOKEN (401).
    """
    token = access_token()
    if token is None:
        raise errors.missing_token()
    service = context.server().appservices.by_token(token)
    if service is None:
        raise errors.unknown_token("This is no token of an application service")
    return service


def timestamp() -> int | None:
    """The time at which an application service wants an event to have been sent (ms), if it does.

    Raises M_INVALID_PARAM for what no event can hold.
    Spec: application-service-api#timestamp-massaging
    """
    if requester().service is None or "ts" not in request.args:
        return None
    return query_integer("ts", 0)


def access_token() -> str | None:
    """The token from the Authorization header or, as older clients send it, from the query."""
    header = request.headers.get("Authorization", "")
    if header[:7].lower() == "bearer ":
        return header[7:].strip()
    return request.args.get("access_token")


def client_address() -> str:
    """The address of the client, seen through the proxies that are trusted."""
    return request.remote_addr or ""


def address_key() -> str:
    """What rate limits know the client by who has no account: its address, or its IPv6 network."""
    return ratelimits.network_of(client_address())


def user_agent() -> str:
    """What the client calls itself."""
    return request.headers.get("User-Agent", "")[:255]


@contextmanager
def logging_refusals(name: str | None) -> Iterator[None]:
    """Have every failed proof of who somebody is logged, with the address that it came from."""
    try:
        yield
    except errors.MatrixError as error:
        if error.errcode in _REFUSED:
            g.refused_login = name  # web/ writes the log
        raise


def json_object(*, may_be_empty: bool = False, max_bytes: int = MAX_BODY_BYTES) -> Json:
    """Return the request's body, which has to be a JSON object.

    A body that was lost on its way (a proxy, a broken client) must not empty what is stored, so no
    body at all is an error. `may_be_empty` is for endpoints that clients really call without one;
    it counts as `{}` there. The Content-Type is not looked at: curl and older clients send another.
    Raises M_NOT_JSON, M_BAD_JSON, M_TOO_LARGE.
    """
    raw = raw_body(max_bytes)
    if may_be_empty and not raw.strip():
        return {}
    value = _parsed(raw)
    if not isinstance(value, dict):
        raise errors.bad_json("The body must be a JSON object")
    return value


def _parsed(raw: bytes) -> Any:
    """Return the JSON value in a body. Raises as `json_object` does."""
    if not raw.strip():
        raise errors.not_json("The body is empty, and must be JSON")
    if len(raw) > MAX_CONTAINERS:
        _check_count(raw)
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise errors.not_json(f"The body is not JSON: {error}") from None
    # Brackets inside strings count too: that only makes the check run where it need not
    if raw.count(b"{") + raw.count(b"[") > SAFE_DEPTH:
        try:
            canonical_json.check_depth(value)
        except ValueError as error:
            raise errors.bad_json(str(error)) from None
    return value


def _check_count(raw: bytes) -> None:
    """Raises M_TOO_LARGE for a body of too many values. Those that stand in strings count too."""
    containers = raw.count(b"{") + raw.count(b"[")
    if containers > MAX_CONTAINERS or raw.count(b",") > MAX_COMMAS:
        raise errors.too_large("The body has too many objects, arrays or values")


def raw_body(max_bytes: int) -> bytes:
    """The bytes of the body. Raises M_TOO_LARGE before reading more than `max_bytes`."""
    if (request.content_length or 0) > max_bytes:
        raise errors.too_large(f"The body is larger than {max_bytes} bytes")
    request.max_content_length = max_bytes
    try:
        body = request.get_data(cache=False)
        if len(body) >= max_bytes:  # without a Content-Length, Werkzeug stops there in silence
            request.stream.read(1)
    except RequestEntityTooLarge:
        raise errors.too_large(f"The body is larger than {max_bytes} bytes") from None
    except ClientDisconnected:
        raise errors.not_json("The body ended early") from None
    except Exception as error:  # each HTTP server has its own for a bad chunk
        raise errors.not_json("The body could not be read to its end") from error
    who = maybe_requester()
    if len(body) >= MIB:  # parsing takes time on the event loop: so large bodies count as many
        _count_change(who, len(body) // MIB)
    # The body may have come slowly, and not every view writes. A service's token can't end.
    if (
        who is not None
        and who.service is None
        and not access_tokens.is_still_valid(context.db(), who)
    ):
        check_still_valid()
    return body


def body_as(kind: type[S], *, may_be_empty: bool = False, max_bytes: int = MAX_BODY_BYTES) -> S:
    """Return the request's body as a struct of this kind. Keys that it doesn't name are ignored.

    Raises M_MISSING_PARAM for a missing key, M_BAD_JSON for a wrong type, M_NOT_JSON, M_TOO_LARGE.
    """
    return convert(json_object(may_be_empty=may_be_empty, max_bytes=max_bytes), kind)


def convert(value: Json, kind: type[S]) -> S:
    """A JSON object as a struct. Raises as `body_as` does."""
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
    """A whole number from the query; more than `cap` counts as `cap`.

    Raises M_INVALID_PARAM for anything else, or outside of least and most.
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
        raise errors.invalid_param(f"{name} must be a whole number from {least} to {most}")
    return value if cap is None else min(value, cap)


def query_boolean(name: str, *, default: bool = False) -> bool:
    """`true` or `false` from the query. Raises M_INVALID_PARAM for anything else."""
    text = request.args.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise errors.invalid_param(f"{name} must be true or false")
    return text == "true"


def query_choice(name: str, allowed: Collection[str], default: str) -> str:
    """One of some words from the query. Raises M_INVALID_PARAM for anything else."""
    text = request.args.get(name, default)
    if text not in allowed:
        raise errors.invalid_param(f"{name} must be one of {', '.join(sorted(allowed))}")
    return text


def query_position(tx: Reader, name: str) -> int | None:
    """The position of a sync token in the query; an empty one counts as none.

    Raises M_INVALID_PARAM for what is no token of this server.
    """
    text = request.args.get(name)
    return tokens.parse(text, tx.position).position if text else None


def query_required(name: str) -> str:
    """A parameter of the query that must be there. Raises M_MISSING_PARAM."""
    value = request.args.get(name)
    if value is None:
        raise errors.missing_param(f"The query parameter {name} is missing")
    return value
