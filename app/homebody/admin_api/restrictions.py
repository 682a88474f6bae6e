"""What administrators do to accounts: deactivating, suspending, shadow-banning, new passwords."""

from __future__ import annotations

from typing import Any

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.admin_api import known
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import moderation, overrides
from homebody.core.administration import user_changes, users
from homebody.spec.events import Json

bp = Blueprint("admin_restrictions", __name__)


class Deactivate(msgspec.Struct):
    """The body of POST /deactivate."""

    erase: bool = False


class Suspend(msgspec.Struct):
    """The body of PUT /suspend."""

    suspend: bool


class ResetPassword(msgspec.Struct):
    """The body of POST /reset_password."""

    new_password: str
    logout_devices: bool = True


class LogIn(msgspec.Struct):
    """The body of POST /login."""

    valid_until_ms: http.Integer | None = None


class Validity(msgspec.Struct):
    """The body of POST /validity; without a time the account does not expire."""

    user_id: str
    expiration_ts: http.Integer | None


@bp.post("/v1/deactivate/<user_id>")
@authenticated(admins_only=True)
def deactivate(user_id: str) -> Json:
    """Deactivate an account."""
    with homeserver.database.read() as tx:
        users.find(tx, user_id)
    body = http.body_as(Deactivate, may_be_empty=True)
    me = requester()
    user_changes.deactivate(
        homeserver.database, me.user_id, user_id, erase=body.erase, own_device=me.device_id
    )
    return {"id_server_unbind_result": "success"}


@bp.put("/v1/suspend/<user_id>")
@authenticated(admins_only=True)
def suspend(user_id: str) -> Json:
    """Suspend an account, or end its suspension."""
    body = http.body_as(Suspend)
    with homeserver.database.write() as tx:
        account = users.find(tx, user_id)
        moderation.set_suspended(tx, requester().user_id, account, is_suspended=body.suspend)
    return {f"user_{user_id}_suspended": body.suspend}


@bp.post("/v1/users/<user_id>/shadow_ban")
@authenticated(admins_only=True)
def shadow_ban(user_id: str) -> Json:
    """Shadow-ban an account: see core/timeline/shadow_bans.py."""
    return _shadow_ban(user_id, is_shadow_banned=True)


@bp.delete("/v1/users/<user_id>/shadow_ban")
@authenticated(admins_only=True)
def end_shadow_ban(user_id: str) -> Json:
    """End the shadow ban of an account."""
    return _shadow_ban(user_id, is_shadow_banned=False)


def _shadow_ban(user_id: str, *, is_shadow_banned: bool) -> Json:
    with homeserver.database.write() as tx:
        account = known.account(tx, user_id)
        moderation.set_shadow_banned(
            tx, requester().user_id, account, is_shadow_banned=is_shadow_banned
        )
    return {}


@bp.post("/v1/reset_password/<user_id>")
@authenticated(admins_only=True)
def reset_password(user_id: str) -> Json:
    """Set a new password, and log out all devices unless the body says otherwise."""
    body = http.body_as(ResetPassword)
    me = requester()
    user_changes.reset_password(
        homeserver.database,
        me.user_id,
        user_id,
        body.new_password,
        logout_devices=body.logout_devices,
        own_device=me.device_id,
    )
    return {}


@bp.post("/v1/users/<user_id>/login")
@authenticated(admins_only=True)
def log_in_as(user_id: str) -> Json:
    """Return an access token of the user, which has no device and outlives the user's logout."""
    body = http.body_as(LogIn, may_be_empty=True)
    _check_time(body.valid_until_ms)
    with homeserver.database.write() as tx:
        token = user_changes.log_in_as(tx, requester().user_id, user_id, body.valid_until_ms)
    return {"access_token": token}


@bp.get("/v1/users/<user_id>/override_ratelimit")
@authenticated(admins_only=True)
def get_rate_limit(user_id: str) -> Json:
    """Return the limit of events that was set for an account, {} without one."""
    with homeserver.database.read() as tx:
        users.find(tx, user_id)
        found = overrides.find(tx, user_id)
    return {} if found is None else _shown(found)


@bp.post("/v1/users/<user_id>/override_ratelimit")
@authenticated(admins_only=True)
def set_rate_limit(user_id: str) -> Json:
    """Set the limit of events of an account; 0 a second stands for none."""
    body = http.json_object(may_be_empty=True)
    override = overrides.Override(
        _whole(body.get("messages_per_second", 0)), _whole(body.get("burst_count", 0))
    )
    with homeserver.database.write() as tx:
        users.find(tx, user_id)
        overrides.put(tx, requester().user_id, user_id, override)
    return _shown(override)


@bp.delete("/v1/users/<user_id>/override_ratelimit")
@authenticated(admins_only=True)
def remove_rate_limit(user_id: str) -> Json:
    """Have the general limits apply to an account again."""
    with homeserver.database.write() as tx:
        users.find(tx, user_id)
        overrides.remove(tx, requester().user_id, user_id)
    return {}


def _shown(override: overrides.Override) -> Json:
    return {
        "messages_per_second": override.messages_per_second,
        "burst_count": override.burst_count,
    }


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= http.MAX_INTEGER:  # True is an int to isinstance
        raise errors.invalid_param("messages_per_second and burst_count must be whole numbers")
    return value


@bp.post("/v1/account_validity/validity")
@authenticated(admins_only=True)
def set_validity() -> Json:
    """Set when an account expires."""
    body = http.body_as(Validity)
    _check_time(body.expiration_ts)
    with homeserver.database.write() as tx:
        account = users.find(tx, body.user_id)
        moderation.set_expiry(tx, requester().user_id, account, body.expiration_ts)
    return {"expiration_ts": body.expiration_ts}


def _check_time(ts: int | None) -> None:
    if ts is not None and not 0 <= ts <= http.MAX_INTEGER:
        raise errors.invalid_param("A time is a number of milliseconds since 1970")


@bp.post("/v1/users/<user_id>/_allow_cross_signing_replacement_without_uia")
@authenticated(admins_only=True)
def allow_cross_signing_replacement(user_id: str) -> Json:
    """Let a user who has lost password and devices replace the cross-signing keys once."""
    with homeserver.database.write() as tx:
        until_ts = user_changes.allow_key_replacement(tx, requester().user_id, user_id)
    return {"updatable_without_uia_before_ms": until_ts}
