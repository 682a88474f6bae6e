"""What administrators do to accounts, by the buttons of their pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from flask import Response, request

from homebody import errors
from homebody.config import values
from homebody.context import homeserver
from homebody.core.accounts import moderation, overrides
from homebody.core.administration import user_changes, user_devices, users
from homebody.core.media import deletion, limits, listing, quarantine
from homebody.core.rooms import user_redaction
from homebody.core.rooms.user_redaction import Redaction
from homebody.core.sessions import deactivation, invitations
from homebody.storage.database import Reader, Tx
from homebody.web.admin_pages import PREFIX, layout, notices
from homebody.web.admin_pages.invitations import show_link
from homebody.web.admin_pages.layout import Action, Field
from homebody.web.browser_sessions import see_other

RESET_LIFETIME_MS: Final = 24 * 3_600_000
DAY_MS: Final = 86_400_000
SIZE: Final = values.size(0)
MOST: Final = 1_000_000


def _changing(change: Callable[..., None], **options: bool) -> Callable[..., None]:
    """Return what an action runs that changes an account in one transaction."""

    def run(tx: Tx, actor: str, user_id: str) -> None:
        change(tx, actor, users.find(tx, user_id), **options)

    return layout.in_one_write(run)


def _deactivate(user_id: str) -> None:
    erase = layout.is_checked("erase")
    user_changes.deactivate(homeserver.database, layout.actor(), user_id, erase=erase)


def _reset_link(user_id: str) -> Response:
    with homeserver.database.write() as tx:
        link = invitations.reset_link(tx, layout.actor(), user_id, RESET_LIFETIME_MS)
    back = f"users/{layout.segment(user_id)}"
    return show_link(f"A new password for {user_id}", link, back, days=1)


def _log_out_device(user_id: str, device_id: str) -> None:
    user_devices.delete(homeserver.database, layout.actor(), user_id, [device_id])


def _unlink(user_id: str, auth_provider: str, external_id: str) -> None:
    with homeserver.database.write() as tx:
        user_changes.unlink(tx, layout.actor(), user_id, auth_provider, external_id)


def _log_out_everywhere(user_id: str) -> None:
    user_devices.delete_all(homeserver.database, layout.actor(), user_id)


def _edit(user_id: str) -> None:
    addresses = request.form.get("emails", "").split()
    with homeserver.database.read() as tx:
        threepids = user_changes.with_emails(tx, user_id, addresses)
    changes = user_changes.Changes(
        displayname=layout.text_of("displayname") or None,
        threepids=threepids,
        user_type=layout.text_of("user_type") or None,
    )
    user_changes.put(homeserver.database, layout.actor(), user_id, changes)


def _edited(tx: Reader, user_id: str) -> dict[str, str]:
    found = users.described(tx, user_id, homeserver.last_seen)
    emails = [it["address"] for it in found["threepids"] if it["medium"] == "email"]
    return {
        "displayname": found["displayname"] or "",
        "emails": " ".join(emails),
        "user_type": found["user_type"] or "",
    }


def _set_quota(user_id: str) -> None:
    text = layout.text_of("size")
    try:
        max_bytes = SIZE.parse(SIZE.from_text(text)) if text else None
    except ValueError:
        raise errors.invalid_param('Enter a size such as "5 GiB"') from None
    with homeserver.database.write() as tx:
        users.find(tx, user_id)
        limits.put(tx, layout.actor(), user_id, max_bytes)


def _quota(tx: Reader, user_id: str) -> dict[str, str]:
    own = limits.own(tx, user_id)
    return {} if own is None else {"size": SIZE.show(own).strip('"')}


def _set_limit(user_id: str) -> None:
    if not layout.text_of("per_second"):
        with homeserver.database.write() as tx:
            overrides.remove(tx, layout.actor(), user_id)
        return
    limit = overrides.Override(
        layout.number_of("per_second", "Events a second", 0, MOST),
        layout.number_of("burst", "Events at once", 0, MOST) if layout.text_of("burst") else 0,
    )
    with homeserver.database.write() as tx:
        users.find(tx, user_id)
        overrides.put(tx, layout.actor(), user_id, limit)


def _limit(tx: Reader, user_id: str) -> dict[str, str]:
    found = overrides.find(tx, user_id)
    if found is None:
        return {}
    return {"per_second": str(found.messages_per_second), "burst": str(found.burst_count)}


def _set_expiry(user_id: str) -> None:
    days = layout.number_of("days", "Days", 0, 36_500) if layout.text_of("days") else None
    with homeserver.database.write() as tx:
        expires_ts = None if days is None else tx.now_ms + days * DAY_MS
        moderation.set_expiry(tx, layout.actor(), users.find(tx, user_id), expires_ts)


def _redact(user_id: str) -> Response:
    wanted = Redaction(layout.actor(), user_id, reason=layout.text_of("reason") or None)
    user_redaction.order(homeserver.database, wanted)
    return see_other(f"{PREFIX}/tasks")


def _quarantine_files(user_id: str) -> None:
    with homeserver.database.read() as tx:
        ids = listing.ids_of_user(tx, user_id)
    files = [(homeserver.server.name, it) for it in ids]
    quarantine.put_many(homeserver.database, layout.actor(), files)


def _delete_files(user_id: str) -> None:
    with homeserver.database.read() as tx:
        ids = listing.ids_of_user(tx, user_id)
    deletion.delete_files(homeserver.database, ids, layout.actor())


LOG_OUT: Final = Action(
    "Log out",
    "The device is logged out.",
    "The device loses its access and its encryption keys. Messages that only it could read can't be"
    " read any more, unless the user has a key backup.",
    _log_out_device,
)

UNLINK: Final = Action(
    "Remove the link",
    "The link is removed.",
    "Nobody can get into the account with this login any more. Sessions that began with it go on"
    " until you log them out. A user without a password, and without another login, needs a link"
    " for a new password.",
    _unlink,
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
    "log-out": Action(
        "Log out everywhere",
        "All devices of the user are logged out.",
        "All devices lose their access and their encryption keys, and browsers are logged out of"
        " the pages of this server. Messages that only the devices could"
        " read can't be read any more, unless the user has a key backup. The password stays as it"
        " is: somebody who knows it can log in again.",
        _log_out_everywhere,
    ),
    "edit": Action(
        "Edit",
        "The account is changed.",
        "",
        _edit,
        fields=(
            Field("displayname", "Display name", "text"),
            Field("emails", "E-mail addresses", "text", hint="Several are separated by spaces"),
            Field("user_type", "Type", "text", hint="bot or support; empty: a person"),
        ),
        current=_edited,
    ),
    "quota": Action(
        "Quota",
        "The quota is set.",
        "How much the user may upload in all. Files that are there already stay.",
        _set_quota,
        fields=(
            Field("size", "Size", "text", hint="Such as 5 GiB; empty: as for all other users"),
        ),
        current=_quota,
    ),
    "limit": Action(
        "Rate limit",
        "The rate limit is set.",
        "How many events the user may send, in place of what the setting rc_message says.",
        _set_limit,
        fields=(
            Field(
                *("per_second", "Events a second", "number"),
                hint="0: no limit at all; empty: as for all other users",
            ),
            Field("burst", "Events at once", "number"),
        ),
        current=_limit,
    ),
    "expire": Action(
        "Expiry",
        "The expiry is set.",
        "From then on the account can't be used any more. Nothing is deleted.",
        _set_expiry,
        fields=(Field("days", "In how many days", "number", hint="Empty: never"),),
    ),
    "notice": Action(
        "Send a notice",
        "The notice is sent.",
        "The user finds it in a room of its own, and can't answer.",
        notices.send_to,
        fields=(Field("text", "Text", "lines", is_required=True),),
    ),
    "redact": Action(
        "Redact all messages",
        "",
        "The content of the newest events that the user has sent is deleted, in all rooms. Other"
        " servers are asked to do the same. This can't be undone.",
        _redact,
        is_final=True,
        fields=(Field("reason", "Reason, which the members of the rooms see", "text"),),
    ),
    "quarantine-files": Action(
        "Quarantine all files",
        "The user's files are quarantined, but for protected ones.",
        "Nobody can download the files that the user has uploaded, or others of this server with"
        " the same content.",
        _quarantine_files,
    ),
    "delete-files": Action(
        "Delete all files",
        "The user's files are deleted.",
        "All files that the user has uploaded are deleted, with avatars. Messages with them stay,"
        " but nobody can open the files any more. This can't be undone.",
        _delete_files,
        is_final=True,
    ),
    "replace-keys": Action(
        "Allow new encryption keys",
        "The user can replace the keys within the next ten minutes.",
        "For a user who has lost all devices: lets the user replace the cross-signing keys once,"
        " within ten minutes. Other users are warned that the identity has changed.",
        layout.in_one_write(user_changes.allow_key_replacement),
    ),
    "deactivate": Action(
        "Deactivate",
        "The account is deactivated.",
        "The user is logged out everywhere, leaves all rooms, and loses the display name, the"
        " avatar, the e-mail addresses and all data of the account. Nobody can register the name"
        " again. Messages that the user has sent stay in their rooms.",
        _deactivate,
        is_final=True,
        fields=(Field("erase", "Hide the user's messages from users who join their rooms later"),),
    ),
    "reactivate": Action(
        "Activate again",
        "The account is active again. It needs a new password.",
        "The user can use the name again, with a new password. What was deleted stays deleted.",
        layout.in_one_write(deactivation.reactivate),
    ),
}
"""By their names in the path."""
