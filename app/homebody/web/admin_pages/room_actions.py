"""What administrators do to rooms, by the buttons of their pages."""

from __future__ import annotations

from typing import Final

from homebody import errors
from homebody.context import homeserver
from homebody.core.media import in_rooms, quarantine
from homebody.core.rooms import (
    blocked,
    deletion,
    extremities,
    history_purge,
    listing,
    ordered_joins,
    room_admins,
)
from homebody.core.rooms.deletion import Deletion
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.layout import Action, Field

DAY_MS: Final = 86_400_000


def _make_admin(room_id: str) -> None:
    user_id = layout.text_of("user_id") or layout.actor()
    if not homeserver.server.is_local(user_id):
        raise errors.invalid_param("This is not a user of this server")
    with homeserver.database.write() as tx:
        room_admins.make_admin(tx, layout.actor(), room_id, user_id)


def _join(room_id: str) -> None:
    user_id = layout.text_of("user_id")
    with homeserver.database.read() as tx:
        ordered_joins.check_user(tx, user_id)
    with homeserver.database.write() as tx:
        ordered_joins.join(tx, layout.actor(), room_id, user_id)


def _quarantine_files(room_id: str) -> None:
    files = in_rooms.uris(homeserver.database, room_id)
    quarantine.put_many(homeserver.database, layout.actor(), files)


def _purge_history(room_id: str) -> None:
    days = layout.number_of("days", "Days", 1, 36_500)
    with homeserver.database.read() as tx:
        before = history_purge.bound_at_time(tx, room_id, tx.now_ms - days * DAY_MS)
    with homeserver.database.write() as tx:
        history_purge.order(
            *(tx, layout.actor(), room_id, before), delete_local_events=layout.is_checked("local")
        )


def _delete(room_id: str) -> None:
    creator = layout.text_of("new_room_by") or None
    wanted = Deletion(
        layout.actor(),
        room_id,
        is_blocking=layout.is_checked("block"),
        is_purging=layout.is_checked("purge"),
        is_forced=layout.is_checked("force"),
        new_room_user_id=creator,
        new_room_name=layout.text_of("new_room_name") or None,
        message=layout.text_of("message") or None,
    )
    with homeserver.database.read() as tx:
        if creator is not None:
            ordered_joins.check_user(tx, creator)
        listing.details(tx, room_id)
    with homeserver.database.write() as tx:
        deletion.order(tx, wanted)


ACTIONS: Final[dict[str, Action]] = {
    "block": Action(
        "Block",
        "The room is blocked.",
        "Nobody of this server can join the room, or be invited to it, until you unblock it. Users"
        " who are in it stay there.",
        layout.in_one_write(blocked.block),
    ),
    "unblock": Action(
        "Unblock",
        "The room is not blocked any more.",
        "Users of this server can join the room again.",
        layout.in_one_write(blocked.unblock),
        is_asking=False,
    ),
    "make-admin": Action(
        "Give power",
        "The user has the power of the room's strongest user of this server.",
        "A user gets the power of the strongest user of this server who is in the room, and is"
        " invited to it if necessary.",
        _make_admin,
        fields=(Field("user_id", "User ID", "text", hint="Leave it empty to choose yourself"),),
    ),
    "join": Action(
        "Join a user",
        "The user is in the room.",
        "A user of this server joins the room. If users need an invite, you invite them, so you"
        " have to be in the room.",
        _join,
        fields=(Field("user_id", "User ID", "text", is_required=True),),
    ),
    "quarantine-files": Action(
        "Quarantine all files",
        "The room's files are quarantined, but for protected ones.",
        "Nobody of this server can download the files of the room's unencrypted messages.",
        _quarantine_files,
    ),
    "purge-history": Action(
        "Purge the history",
        "The history is being purged.",
        "Old messages are deleted from this server. The room's state and its newest message stay."
        " Other servers keep what they have. This can't be undone.",
        _purge_history,
        is_final=True,
        fields=(
            Field("days", "Delete what is older than how many days", "number", is_required=True),
            Field(
                "local",
                "Also delete what users of this server have sent: nobody else may have it."
                " Otherwise it is only hidden",
            ),
        ),
    ),
    "trim-extremities": Action(
        "Remove forward extremities",
        "The room has one forward extremity.",
        "All ends of the room's graph are removed but the newest. Where servers were apart for"
        " long, a room may have many, which makes each event expensive.",
        layout.in_one_write(extremities.remove_all_but_one),
    ),
    "delete": Action(
        "Delete",
        "The room is being deleted.",
        "All users of this server leave the room, and this server deletes its messages and state."
        " Other servers keep what they have. This can't be undone.",
        _delete,
        is_final=True,
        fields=(
            Field("purge", "Delete the messages and state", is_checked=True),
            Field("block", "Block the room, so that nobody comes back", is_checked=True),
            Field("force", "Delete it also if some users could not leave"),
            Field(
                *("new_room_by", "User ID of the creator of a new room", "text"),
                hint="The users are moved there. Empty: there is no new room",
            ),
            Field("new_room_name", "Name of the new room", "text"),
            Field("message", "What the users read there", "lines"),
        ),
    ),
}
"""By their names in the path."""
