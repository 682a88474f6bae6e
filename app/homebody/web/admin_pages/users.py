"""Accounts: the list, the page of each, and what administrators do to them."""

from __future__ import annotations

from typing import Any, Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core import audit
from homebody.core.accounts import moderation
from homebody.core.accounts.accounts import AccountInfo
from homebody.core.administration import user_changes, user_devices, user_list, users
from homebody.core.sessions import deactivation, invitations
from homebody.spec.events import Json
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.invitations import show_link
from homebody.web.admin_pages.layout import Action, Field
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_user_pages", __name__)

RESET_LIFETIME_MS: Final = 24 * 3_600_000
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
    part = layout.part(total)
    return layout.page("users.html", users=found, part=part, order=order, orders=ORDERS)


@bp.get("/users/<user_id>")
@signed_in(admins_only=True)
def show_user(user_id: str) -> Response:
    """Return the page of an account."""
    with homeserver.database.read() as tx:
        user = users.described(tx, user_id, homeserver.last_seen)
        devices = user_devices.all_of(tx, user_id, homeserver.last_seen)
        entries = audit.latest(tx, 10, subject=user_id)
    offered = [] if user_id == layout.actor() else _offered(user)
    return layout.page(
        "user.html",
        user=user,
        devices=devices,
        entries=entries,
        actions=[(name, ACTIONS[name]) for name in offered],
        done=layout.done({**ACTIONS, "device": _LOG_OUT}),
    )


@bp.get("/users/<user_id>/<action>")
@signed_in(admins_only=True)
def ask_about_user(user_id: str, action: str) -> Response:
    """Return the page that asks before something is done to an account."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
    return layout.ask(chosen, user_id, f"users/{layout.segment(user_id)}")


@bp.post("/users/<user_id>/<action>")
@signed_in(admins_only=True)
def act_on_user(user_id: str, action: str) -> Response:
    """Do something to an account."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        _check_other(users.find(tx, user_id))
    return layout.perform(chosen, f"users/{layout.segment(user_id)}", user_id)


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
    return layout.ask(_LOG_OUT, subject, f"users/{layout.segment(user_id)}")


@bp.post("/users/<user_id>/devices/<device_id>")
@signed_in(admins_only=True)
def log_out_device(user_id: str, device_id: str) -> Response:
    """End the session of a device."""
    back = f"users/{layout.segment(user_id)}"
    return layout.perform(_LOG_OUT, back, user_id, device_id)


def _offered(user: Json) -> list[str]:
    """Return the actions that make sense for an account."""
    if user["deactivated"]:
        return ["reactivate"]
    return [
        "unlock" if user["locked"] else "lock",
        "unsuspend" if user["suspended"] else "suspend",
        "end-shadow-ban" if user["shadow_banned"] else "shadow-ban",
        "reset-link",
        "end-admin" if user["admin"] else "make-admin",
        "deactivate",
    ]


def _check_other(account: AccountInfo) -> None:
    """Raise M_FORBIDDEN for the administrator's own account: a mistake would lock them out."""
    if account.user_id == layout.actor():
        raise errors.forbidden("You can't do this to your own account here")


def _changing(change: Any, **values: bool) -> Any:
    """Return what makes a change that one transaction makes."""

    def run(user_id: str) -> None:
        with homeserver.database.write() as tx:
            change(tx, layout.actor(), users.find(tx, user_id), **values)

    return run


def _deactivate(user_id: str) -> None:
    erase = layout.is_checked("erase")
    user_changes.deactivate(homeserver.database, layout.actor(), user_id, erase=erase)


def _reactivate(user_id: str) -> None:
    with homeserver.database.write() as tx:
        deactivation.reactivate(tx, layout.actor(), user_id)


def _reset_link(user_id: str) -> Response:
    with homeserver.database.write() as tx:
        link = invitations.reset_link(tx, layout.actor(), user_id, RESET_LIFETIME_MS)
    back = f"users/{layout.segment(user_id)}"
    return show_link(f"A new password for {user_id}", link, back, days=1)


def _log_out_device(user_id: str, device_id: str) -> None:
    user_devices.delete(homeserver.database, layout.actor(), user_id, [device_id])


_LOG_OUT: Final = Action(
    "Log out",
    "The device is logged out.",
    "The device loses its access and its encryption keys. Messages that only it could read can't be"
    " read any more, unless the user has a key backup.",
    _log_out_device,
)

ACTIONS: Final[dict[str, Action]] = {
    "lock": Action(
        "Lock",
        "The account is locked.",
        "The user can't use the account until you unlock it. The devices stay logged in.",
        _changing(moderation.set_locked, is_locked=True),
    ),
    "unlock": Action(
        "Unlock",
        "The account is unlocked.",
        "The user can use the account again.",
        _changing(moderation.set_locked, is_locked=False),
        is_asking=False,
    ),
    "suspend": Action(
        "Suspend",
        "The account is suspended.",
        "The user can read, but not send, until you end the suspension.",
        _changing(moderation.set_suspended, is_suspended=True),
    ),
    "unsuspend": Action(
        "End the suspension",
        "The account is not suspended any more.",
        "The user can send again.",
        _changing(moderation.set_suspended, is_suspended=False),
        is_asking=False,
    ),
    "shadow-ban": Action(
        "Shadow-ban",
        "The account is shadow-banned.",
        "What the user sends reaches nobody, and the user does not notice.",
        _changing(moderation.set_shadow_banned, is_shadow_banned=True),
    ),
    "end-shadow-ban": Action(
        "End the shadow ban",
        "The account is not shadow-banned any more.",
        "What the user sends from now on reaches others again.",
        _changing(moderation.set_shadow_banned, is_shadow_banned=False),
        is_asking=False,
    ),
    "reset-link": Action(
        "Link for a new password",
        "",
        "The link lets the person who has it set a new password once, within 24 hours. All devices"
        " are logged out then.",
        _reset_link,
    ),
    "make-admin": Action(
        "Make administrator",
        "The user is an administrator.",
        "Administrators can do all that these pages offer, also to you.",
        _changing(moderation.set_admin, is_admin=True),
    ),
    "end-admin": Action(
        "End the administrator's rights",
        "The user is not an administrator any more.",
        "The user keeps the account, without the rights of an administrator.",
        _changing(moderation.set_admin, is_admin=False),
    ),
    "deactivate": Action(
        "Deactivate",
        "The account is deactivated.",
        "The user is logged out everywhere, leaves all rooms, and loses the display name, the"
        " avatar, the e-mail addresses and all data of the account. Nobody can register the name"
        " again. Messages that the user has sent stay in their rooms.",
        _deactivate,
        fields=(Field("erase", "Hide the user's messages from users who join their rooms later"),),
    ),
    "reactivate": Action(
        "Activate again",
        "The account is active again. It needs a new password.",
        "The user can use the name again, with a new password. What was deleted stays deleted.",
        _reactivate,
    ),
}
"""By their names in the path."""
