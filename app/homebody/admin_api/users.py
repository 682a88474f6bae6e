"""Accounts: looking them up, listing, creating and changing them."""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.admin_api import known
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import accounts, external_ids, moderation, threepids
from homebody.core.administration import user_changes, user_list, users
from homebody.core.sessions import registration
from homebody.spec.events import Json

bp = Blueprint("admin_users", __name__)


@bp.get("/v2/users")
@authenticated(admins_only=True)
def list_users() -> Json:
    """Return a page of the accounts; without `deactivated=true` only those that are active."""
    return _page(is_deactivated=None if http.query_boolean("deactivated") else False)


@bp.get("/v3/users")
@authenticated(admins_only=True)
def list_users_by_state() -> Json:
    """Return a page of the accounts; `deactivated` selects those that are, or are not."""
    is_given = "deactivated" in request.args
    return _page(is_deactivated=http.query_boolean("deactivated") if is_given else None)


def _page(*, is_deactivated: bool | None) -> Json:
    query = user_list.Query(
        start=http.query_integer("from", 0),
        limit=http.query_integer("limit", 100),
        name=request.args.get("name"),
        user_id=request.args.get("user_id"),
        with_guests=http.query_boolean("guests", default=True),
        is_deactivated=is_deactivated,
        with_locked=http.query_boolean("locked"),
        is_admin=http.query_boolean("admins") if "admins" in request.args else None,
        not_user_types=request.args.getlist("not_user_type"),
        order_by=http.query_choice("order_by", user_list.ORDERS, "name"),
        is_descending=http.query_choice("dir", ("f", "b"), "f") == "b",
    )
    homeserver.last_seen.write()
    with homeserver.database.read() as tx:
        found, total = user_list.page(tx, query)
    more = {}
    if query.start + query.limit < total:
        more["next_token"] = str(query.start + len(found))
    return {"users": found, "total": total, **more}


@bp.get("/v2/users/<user_id>")
@authenticated(admins_only=True)
def get_user(user_id: str) -> Json:
    """Return all about an account."""
    with homeserver.database.read() as tx:
        return users.described(tx, user_id, homeserver.last_seen)


@bp.put("/v2/users/<user_id>")
@authenticated(admins_only=True)
def put_user(user_id: str) -> tuple[Json, int]:
    """Change an account, or create it (201); unknown keys of the body are ignored."""
    changes = http.body_as(user_changes.Changes)
    me = requester()
    is_new = user_changes.put(
        homeserver.database, me.user_id, user_id, changes, own_device=me.device_id
    )
    with homeserver.database.read() as tx:
        return users.described(tx, user_id, homeserver.last_seen), 201 if is_new else 200


class Admin(msgspec.Struct):
    """The body of PUT /admin."""

    admin: bool


@bp.get("/v1/users/<user_id>/admin")
@authenticated(admins_only=True)
def get_admin(user_id: str) -> Json:
    """Return whether a user is an administrator; users who don't exist are not.

    Tools learn from the 400 for another server's user that they may use this API.
    """
    users.check_local(homeserver.server, user_id)
    with homeserver.database.read() as tx:
        account = accounts.find(tx, user_id)
    return {"admin": account is not None and account.is_admin}


@bp.put("/v1/users/<user_id>/admin")
@authenticated(admins_only=True)
def set_admin(user_id: str) -> Json:
    """Make a user an administrator, or end that."""
    body = http.body_as(Admin)
    with homeserver.database.write() as tx:
        account = known.account(tx, user_id)
        moderation.set_admin(tx, requester().user_id, account, is_admin=body.admin)
    return {}


@bp.get("/v1/username_available")
@authenticated(admins_only=True)
def get_username_available() -> Json:
    """Return whether a name can be registered. Raises M_USER_IN_USE, M_INVALID_USERNAME."""
    username = http.query_required("username")
    if username != username.lower():  # the name that an account would have
        raise errors.invalid_username("A user name has no capital letters")
    with homeserver.database.read() as tx:
        registration.free_user_id(tx, username)
    return {"available": True}


@bp.get("/v1/threepid/<medium>/users/<address>")
@authenticated(admins_only=True)
def get_user_of_address(medium: str, address: str) -> Json:
    """Return the user who has a third-party identifier."""
    with homeserver.database.read() as tx:
        return _found(threepids.find(tx, medium, address))


@bp.get("/v1/auth_providers/<provider>/users/<external_id>")
@authenticated(admins_only=True)
def get_user_of_external_id(provider: str, external_id: str) -> Json:
    """Return the user who has an id at an identity provider."""
    with homeserver.database.read() as tx:
        return _found(external_ids.owner(tx, provider, external_id))


def _found(user_id: str | None) -> Json:
    if user_id is None:
        raise errors.not_found("No user has this identifier")
    return {"user_id": user_id}
