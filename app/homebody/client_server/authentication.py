"""Authentication and authorization: access tokens, guests, suspended and locked accounts.

Each view declares what it needs with `authenticated` or `unauthenticated`, and in doing so counts
its requests under the rate limit for changes. `make routes` prints what all of them declare.

Spec: client-server-api#client-authentication, client-server-api#guest-access
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, ParamSpec, TypeVar, cast

from flask import g, has_request_context, request

from homebody import errors
from homebody.client_server import policy_servers
from homebody.context import homeserver
from homebody.core import ratelimits
from homebody.core.accounts import access_tokens, accounts
from homebody.core.ratelimits import RateLimits
from homebody.core.sessions import appservice_users, browser_sessions
from homebody.core.timeline.policies import UnapprovedError
from homebody.spec.appservices import Service
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Tx

P = ParamSpec("P")
R = TypeVar("R")
Allowed = bool | Literal["partly"]
"""Whether a kind of account may use a view; "partly" when the view or the core looks closer."""

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
ADMINS_ONLY: Final = "Only administrators of the server may do this"


@dataclass(frozen=True, slots=True)
class Access:
    """What a view declares: whether it needs a token, who may use it, whether it changes anything.

    `suspended` concerns requests that are not GET: suspended users may read whatever they could.
    `locked`: also users whose account is locked. `services_only`: application services alone.
    `only_reads`: its requests are not counted as changes, though clients POST them.
    `admins_only`: administrators of this server alone.
    """

    authentication: Literal["required", "optional", "none", "server", "browser"] = "required"
    """`server`: not a token, but the signature of another server. `browser`: a cookie, see
    web/browser_sessions.py."""
    guests: Allowed = False
    suspended: Allowed = False
    locked: bool = False
    services_only: bool = False
    only_reads: bool = False
    admins_only: bool = False


declared: Final[dict[Callable[..., object], Access]] = {}
"""What each view has declared."""


def authenticated(
    *,
    optional: bool = False,
    guests: Allowed = False,
    suspended: Allowed = False,
    locked: bool = False,
    services_only: bool = False,
    only_reads: bool = False,
    admins_only: bool = False,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Run a view only for requests with a valid access token; `requester()` is then its user.

    The keywords are those of Access; `optional` also lets requests without a token pass, but not
    those with one that is not valid. A view that `only_reads` needs a rate limit of its own, unless
    it answers long polls, which limit themselves, or is as cheap as a GET.
    Raises M_MISSING_TOKEN and M_UNKNOWN_TOKEN (401), M_USER_LOCKED, M_LIMIT_EXCEEDED,
    M_GUEST_ACCESS_FORBIDDEN, M_USER_SUSPENDED, and M_FORBIDDEN when only services or only
    administrators may do this.
    """
    authentication: Literal["required", "optional"] = "optional" if optional else "required"
    access = Access(
        authentication, guests, suspended, locked, services_only, only_reads, admins_only
    )

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            token, user = access_token(), None
            if token is not None:
                user = _user_of(token, may_be_locked=locked)
                note_seen(user.user_id, user.device_id)
                g.requester, g.access = user, access
            elif not optional:
                raise errors.missing_token()
            if request.method not in READING and not only_reads:
                count_change(user)
            restricted = services_only or admins_only
            if user is not None and (user.is_guest or user.is_suspended or restricted):
                _check_may(user, access)
            try:
                return view(*args, **kwargs)
            except UnapprovedError as needed:
                again = functools.partial(view, *args, **kwargs)
                return policy_servers.with_approval(needed, again)

        declared[checked] = access
        return checked

    return decorate


def unauthenticated(view: Callable[P, R]) -> Callable[P, R]:
    """Run a view for everyone, without a look at the access token.

    Raises M_LIMIT_EXCEEDED for too many changes from one address.
    """

    @functools.wraps(view)
    def counted(*args: P.args, **kwargs: P.kwargs) -> R:
        if request.method not in READING:
            count_change(None)
        return view(*args, **kwargs)

    declared[counted] = Access("none", guests=True, suspended=True, locked=True)
    return counted


def rate_limits() -> RateLimits:
    """Return the rate limits that apply to the requester."""
    limits = homeserver.rate_limits
    user: Requester | None = g.get("requester")
    if "approved" in g:  # the request has been counted before
        return limits.without()
    if user is None:
        return limits
    is_ordinary = user.message_limit is None and user.service is None
    return limits if is_ordinary else limits.of(user)


def count_change(user: Requester | None, cost: int = 1) -> None:
    """Count a request that may change something, for its user if there is one, or its address.

    Raises M_LIMIT_EXCEEDED.
    """
    if user is not None:
        rate_limits().check("rc_writes", user.user_id, cost)
    elif _service() is None:  # a bridge registers all its users at its first start
        rate_limits().check("rc_writes", address_key(), cost)


def _check_may(user: Requester, access: Access) -> None:
    if user.is_guest and not access.guests:
        raise errors.guest_access_forbidden("Guests can't do this: register first")
    if user.is_suspended and request.method not in READING and not access.suspended:
        raise errors.user_suspended()
    if access.services_only and user.service is None:
        raise errors.forbidden("Only application services may do this")
    if access.admins_only and not user.is_admin:
        raise errors.forbidden(ADMINS_ONLY)


def _user_of(token: str, *, may_be_locked: bool = False) -> Requester:
    service = _service() if homeserver.server.appservices.all else None
    if service is None:
        return access_tokens.authenticate(homeserver.database, token, may_be_locked=may_be_locked)
    query = request.args
    # its name before version 1.17, which bridges still send
    device_id = query.get("device_id") or query.get("org.matrix.msc3202.device_id")
    user_id = query.get("user_id")
    return appservice_users.act_as(
        homeserver.database, service, user_id, device_id, may_be_locked=may_be_locked
    )


def _service() -> Service | None:
    """Return the application service whose token the request has, if it is one."""
    services = homeserver.server.appservices
    token = access_token() if services.all else None
    return services.by_token(token) if token is not None else None


def limit_strangers() -> None:
    """Count a request that needs no account, unless it has the token of one.

    An invalid token counts as none: such a request needs no other response.
    Raises M_LIMIT_EXCEEDED.
    """
    if maybe_requester() is None and not _has_account():
        rate_limits().check("rc_strangers", address_key())


def limit_lookups() -> None:
    """Count a request for which other servers are asked. Raises M_LIMIT_EXCEEDED."""
    user = maybe_requester()
    rate_limits().check("rc_lookups", address_key() if user is None else user.user_id)


def _has_account() -> bool:
    token = access_token()
    try:
        return token is not None and _user_of(token) is not None
    except errors.MatrixError:
        return False


def check_still_valid() -> None:
    """Check the token again, after its request has waited.

    Raises M_UNKNOWN_TOKEN when it was revoked meanwhile, M_USER_LOCKED, M_USER_SUSPENDED.
    """
    user = requester()
    if user.service is None and access_tokens.is_still_valid(homeserver.database, user):
        return
    _keep_requester(_user_of(access_token() or "", may_be_locked=g.access.locked))


def admit(tx: Tx) -> None:
    """Check the token again inside each write transaction of its request.

    A request may have waited for its body, for a password hash or for its turn, and the session may
    be over by now: the server would do what the user may not request any more. See Database.admit.
    Raises as `check_still_valid` does.
    """
    if not has_request_context():
        return
    user: Requester | None = g.get("requester")
    if "browser_session" in g:
        _keep_account(browser_sessions.check_still_valid(tx, g.browser_session))
    elif user is None:
        return
    if user is None:
        pass
    elif user.service is not None:
        again = appservice_users.refresh_requester(
            tx, user.service, user, may_be_locked=g.access.locked
        )
        _keep_requester(again)
    elif not access_tokens.is_still_valid(tx, user):
        again = access_tokens.reauthenticate(tx, user, may_be_locked=g.access.locked)
        _keep_requester(again)
    tx.approved = g.get("approved", {})
    if "proved" in g:
        accounts.check_password_unchanged(tx, g.proved)


def rely_on(proved: accounts.AccountInfo) -> None:
    """Allow the writes of this request only while the account has the password that was proved.

    Checking a password takes time, and so does hashing a new one: a request that began with an old
    password could otherwise take the account back after the user has set another one.
    """
    g.proved = proved


def _keep_requester(user: Requester) -> None:
    """Make `requester()` return what is known now.

    Raises M_FORBIDDEN for a former administrator, and M_USER_SUSPENDED for an account that was
    suspended meanwhile, also where the view would have looked closer: that look may be over.
    """
    _check_still_may(g.access, was=requester(), now=user)
    g.requester = user


def _keep_account(now: accounts.AccountInfo) -> None:
    """Make the account of a browser's session what is known now. Raises as `_keep_requester`."""
    access: Access | None = g.get("access")
    if access is not None:  # else its view is for everyone
        _check_still_may(access, was=g.browser_account, now=now)
    g.browser_account = now


def _check_still_may(
    access: Access, *, was: Requester | accounts.AccountInfo, now: Requester | accounts.AccountInfo
) -> None:
    if access.admins_only and not now.is_admin:
        raise errors.forbidden(ADMINS_ONLY)
    is_newly_suspended = now.is_suspended and not was.is_suspended
    if is_newly_suspended and request.method not in READING and access.suspended is not True:
        raise errors.user_suspended()


def note_seen(user_id: str, device_id: str) -> None:
    """Remember when and from where this device was last used: now, by this request."""
    user_agent = request.headers.get("User-Agent", "")[:255]
    homeserver.last_seen.note(user_id, device_id, request.remote_addr or "", user_agent)


def logged_in(session: Json) -> Json:
    """Return the response with a new session as it is, and count its device as seen.

    The newest device would otherwise be listed as never used.
    """
    note_seen(session["user_id"], session["device_id"])
    return session


def requester() -> Requester:
    """Return the user who makes the request, in an authenticated view."""
    return cast(Requester, g.requester)


def service() -> Service:
    """Return the application service that makes the request, in a view for services only."""
    return cast(Service, requester().service)


def maybe_requester() -> Requester | None:
    """Return the user who makes the request, or None where it needs no token and has none."""
    return cast("Requester | None", g.get("requester"))


def must_be_me(user_id: str) -> None:
    """Raise M_FORBIDDEN when a path names another user than the requester."""
    if user_id != requester().user_id:
        raise errors.forbidden("You can only do this for yourself")


def must_not_be_suspended() -> None:
    """Raise M_USER_SUSPENDED, in a view that suspended users may use partly.

    Spec: client-server-api#account-suspension
    """
    if requester().is_suspended:
        raise errors.user_suspended()


def appservice() -> Service:
    """Return the application service that makes the request, in a view without authentication.

    Raises M_MISSING_TOKEN and M_UNKNOWN_TOKEN (401).
    """
    token = access_token()
    if token is None:
        raise errors.missing_token()
    service = homeserver.server.appservices.by_token(token)
    if service is None:
        raise errors.unknown_token("This is not a token of an application service")
    return service


def access_token() -> str | None:
    """Return the token from the Authorization header or, as older clients do, from the query."""
    header = request.headers.get("Authorization", "")
    if header[:7].lower() == "bearer ":
        return header[7:].strip()
    return request.args.get("access_token")


def address_key() -> str:
    """Return the key of clients without an account in rate limits: IPv4 address or IPv6 network."""
    return ratelimits.network_of(request.remote_addr or "")
