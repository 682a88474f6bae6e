"""Accounts: the list, the page of each, and the questions before something is done to them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core import audit
from homebody.core.accounts import external_ids, overrides, threepids
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.administration import user_activity, user_devices, user_list, users
from homebody.core.media import limits, store
from homebody.spec.events import Json
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.user_actions import ACTIONS, LOG_OUT, UNLINK
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_user_pages", __name__)

MAX_ROOMS: Final = 200
"""Shown on the page of a user."""
ORDERS: Final = {"name": "Name", "creation_ts": "Created", "last_seen_ts": "Last seen"}
_NEWEST_FIRST: Final = {"creation_ts", "last_seen_ts"}


@bp.get("/users")
@signed_in(admins_only=True)
def list_users() -> Response:
    """Return the page with a part of the accounts."""
    order = request.args.get("order", "")
    order = order if order in ORDERS else "name"
    query = user_list.Query(
        start=layout.start_of_part(),
        limit=layout.PER_PAGE,
        name=layout.searched() or None,
        is_deactivated=None,
        with_locked=True,
        order_by=order,
        is_descending=order in _NEWEST_FIRST,
    )
    homeserver.last_seen.write()
    with homeserver.database.read() as tx:
        found, total = user_list.page(tx, query)
        owner = threepids.owner(tx, layout.searched()) if "@" in layout.searched()[1:] else None
    part = layout.part(total)
    return layout.page(
        "users.html", users=found, part=part, order=order, orders=ORDERS, owner=owner
    )


@bp.get("/users/<user_id>")
@signed_in(admins_only=True)
def show_user(user_id: str) -> Response:
    """Return the page of an account."""
    with homeserver.database.read() as tx:
        user = users.described(tx, user_id, homeserver.last_seen)
        account = users.find(tx, user_id)
        devices = user_devices.all_of(tx, user_id, homeserver.last_seen)
        max_bytes, used_bytes = limits.of(tx, user_id), store.used_bytes(tx, user_id)
        limit = overrides.find(tx, user_id)
        memberships = user_activity.memberships(tx, user_id)
        names = layout.names_of(tx, list(memberships)[:MAX_ROOMS])
        entries = audit.latest(tx, 10, subject=user_id)
    offered = {} if user_id == layout.actor() else _offered(user)
    return layout.page(
        "user.html",
        user=user,
        devices=devices,
        entries=entries,
        groups=[(title, [(it, ACTIONS[it]) for it in names]) for title, names in offered.items()],
        names=names,
        max_bytes=max_bytes,
        used_bytes=used_bytes,
        limit=limit,
        expires_ts=account.expires_ts,
        memberships=list(memberships.items())[:MAX_ROOMS],
        membership_count=len(memberships),
        providers={it.id: it.name for it in homeserver.login_providers.all},
        done=layout.done({**ACTIONS, "device": LOG_OUT, "login": UNLINK}),
    )


@bp.get("/users/<user_id>/<action>")
@signed_in(admins_only=True)
def ask_about_user(user_id: str, action: str) -> Response:
    """Return the page that asks before something is done to an account."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
        values = {} if chosen.current is None else chosen.current(tx, user_id)
    return layout.ask(chosen, user_id, f"users/{layout.segment(user_id)}", entered=values)


@bp.post("/users/<user_id>/<action>")
@signed_in(admins_only=True)
def act_on_user(user_id: str, action: str) -> Response:
    """Do something to an account."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
    back = f"users/{layout.segment(user_id)}"
    again = layout.again(chosen, user_id, back)
    return layout.perform(chosen, back, user_id, again=again)


@bp.get("/users/<user_id>/devices/<device_id>")
@signed_in(admins_only=True)
def ask_about_device(user_id: str, device_id: str) -> Response:
    """Return the page that asks before a device is logged out."""
    with homeserver.database.read() as tx:
        known = user_devices.all_of(tx, user_id, homeserver.last_seen)
    device = next((it for it in known if it["device_id"] == device_id), None)
    if device is None:
        raise errors.not_found("The user has no such device")
    subject = f"{device['display_name'] or device_id} of {user_id}"
    return layout.ask(LOG_OUT, subject, f"users/{layout.segment(user_id)}")


@bp.post("/users/<user_id>/devices/<device_id>")
@signed_in(admins_only=True)
def log_out_device(user_id: str, device_id: str) -> Response:
    """End the session of a device."""
    back = f"users/{layout.segment(user_id)}"
    return layout.perform(LOG_OUT, back, user_id, device_id)


@bp.get("/users/<user_id>/logins/<auth_provider>/<external_id>")
@signed_in(admins_only=True)
def ask_about_login(user_id: str, auth_provider: str, external_id: str) -> Response:
    """Return the page that asks before the link to a login at a provider is removed."""
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
        if external_ids.owner(tx, auth_provider, external_id) != user_id:
            raise errors.not_found("The account has no such link")
    subject = f"{external_id} at {auth_provider}, of {user_id}"
    return layout.ask(UNLINK, subject, f"users/{layout.segment(user_id)}")


@bp.post("/users/<user_id>/logins/<auth_provider>/<external_id>")
@signed_in(admins_only=True)
def unlink(user_id: str, auth_provider: str, external_id: str) -> Response:
    """Remove the link to a login at a provider."""
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
    back = f"users/{layout.segment(user_id)}"
    return layout.perform(UNLINK, back, user_id, auth_provider, external_id)


def _offered(user: Json) -> dict[str, list[str]]:
    """Return the actions that make sense for an account, by what they are about."""
    content = ["redact", "quarantine-files", "delete-files"]
    if user["deactivated"]:
        return {"Account": ["reactivate"], "Messages and files": content}
    can_get_notices = homeserver.server.config.server_notices_user is not None
    return {
        "Account": ["edit", "end-admin" if user["admin"] else "make-admin", "expire", "deactivate"],
        "Access": ["reset-link", "log-out", "replace-keys"],
        "Moderation": [
            *(["notice"] if can_get_notices else []),
            "unsuspend" if user["suspended"] else "suspend",
            "unlock" if user["locked"] else "lock",
            "end-shadow-ban" if user["shadow_banned"] else "shadow-ban",
        ],
        "Limits": ["quota", "limit"],
        "Messages and files": content,
    }


def _check_other(account: AccountInfo) -> None:
    """Raise M_FORBIDDEN for the administrator's own account: a mistake would lock them out."""
    if account.user_id == layout.actor():
        raise errors.forbidden("You can't do this to your own account here")
