"""Files: what takes the space, quarantine, protection, deletion."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core.administration import users
from homebody.core.media import deletion, limits, listing, quarantine, store
from homebody.core.media.listing import Page
from homebody.errors import MatrixError
from homebody.storage.database import Tx
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.layout import Action
from homebody.web.browser_sessions import message_of, signed_in

bp = Blueprint("admin_media_pages", __name__)

LARGEST: Final = 25
ORDERS: Final = {"media_length": "Size", "created_ts": "Time", "last_access_ts": "Last use"}
_MXC: Final = "mxc://"


@bp.get("/media")
@signed_in(admins_only=True)
def list_media() -> Response:
    """Return the page with the largest files, and the users with the most."""
    return _page()


def _page(error: MatrixError | None = None) -> Response:
    page = Page(layout.start_of_part(), layout.PER_PAGE, "media_length", is_descending=True)
    with homeserver.database.read() as tx:
        by_user, total = listing.usage(tx, page, search_term=layout.searched() or None)
        largest = listing.largest(tx, LARGEST)
        quotas = limits.all_own(tx)
    return layout.page(
        "media.html",
        200 if error is None else error.status,
        mxc="" if error is None else layout.text_of("mxc"),
        problem="" if error is None else message_of(error),
        quotas=quotas,
        default_quota=homeserver.server.config.quotas.media_bytes,
        by_user=by_user,
        largest=largest,
        part=layout.part(total),
        is_local=homeserver.server.is_local,
        done=layout.done({"mxc": _QUARANTINE_MXC}),
    )


@bp.get("/media/users/<user_id>")
@signed_in(admins_only=True)
def list_media_of_user(user_id: str) -> Response:
    """Return the page with a part of a user's files."""
    order = request.args.get("order", "")
    order = order if order in ORDERS else "media_length"
    page = Page(layout.start_of_part(), layout.PER_PAGE, order, is_descending=True)
    with homeserver.database.read() as tx:
        users.find(tx, user_id)
        found, total = listing.of_user(tx, user_id, page)
    part = layout.part(total)
    return layout.page(
        "media_of_user.html", user_id=user_id, files=found, part=part, orders=ORDERS, order=order
    )


@bp.get("/media/files/<media_id>")
@signed_in(admins_only=True)
def show_file(media_id: str) -> Response:
    """Return the page of a file of this server."""
    with homeserver.database.read() as tx:
        found = listing.described(tx, homeserver.server.name, media_id)
    is_protected, is_quarantined = found["safe_from_quarantine"], found["quarantined_by"]
    offered = [
        "lift" if is_quarantined else "quarantine",
        "unprotect" if is_protected else "protect",
        "delete",
    ]
    return layout.page(
        "file.html",
        file=found,
        mxc=f"{_MXC}{homeserver.server.name}/{media_id}",
        actions=[(name, ACTIONS[name]) for name in offered],
        done=layout.done(ACTIONS),
    )


@bp.get("/media/files/<media_id>/<action>")
@signed_in(admins_only=True)
def ask_about_file(media_id: str, action: str) -> Response:
    """Return the page that asks before something is done to a file."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        file = listing.described(tx, homeserver.server.name, media_id)
    subject = file["upload_name"] or media_id
    return layout.ask(chosen, subject, f"media/files/{layout.segment(media_id)}")


@bp.post("/media/files/<media_id>/<action>")
@signed_in(admins_only=True)
def act_on_file(media_id: str, action: str) -> Response:
    """Do something to a file."""
    chosen = layout.choose(ACTIONS, action)
    with homeserver.database.read() as tx:
        listing.described(tx, homeserver.server.name, media_id)
    back = "media" if action == "delete" else f"media/files/{layout.segment(media_id)}"
    return layout.perform(chosen, back, media_id)


@bp.post("/media/quarantine")
@signed_in(admins_only=True)
def quarantine_mxc() -> Response:
    """Quarantine a file of any server, given by its mxc URI."""
    return layout.perform(_QUARANTINE_MXC, "media", again=_page)


def _quarantine_mxc() -> None:
    uri = layout.text_of("mxc")
    origin, slash, media_id = uri.removeprefix(_MXC).partition("/")
    if not uri.startswith(_MXC) or not origin or not slash or not media_id or "/" in media_id:
        raise errors.invalid_param("Enter an mxc URI, such as mxc://example.org/abc")
    quarantine.put_many(homeserver.database, layout.actor(), [(origin, media_id)])


def _quarantine(tx: Tx, actor: str, media_id: str) -> None:
    if not quarantine.put(tx, actor, [(tx.server.name, media_id)]):
        raise errors.unknown("The file is protected: end that first")


def _lift(tx: Tx, actor: str, media_id: str) -> None:
    quarantine.lift(tx, actor, tx.server.name, media_id)


def _delete(media_id: str) -> None:
    deletion.delete_files(homeserver.database, [media_id], layout.actor())


_QUARANTINE_MXC: Final = Action(
    "Quarantine the file",
    "The file is quarantined, unless it is protected.",
    "",
    _quarantine_mxc,
    is_asking=False,
)
ACTIONS: Final[dict[str, Action]] = {
    "quarantine": Action(
        "Quarantine",
        "The file is quarantined.",
        "Nobody can download the file, or others of this server with the same content, until you"
        " lift the quarantine.",
        layout.in_one_write(_quarantine),
    ),
    "lift": Action(
        "Lift the quarantine",
        "The file can be downloaded again.",
        "Users can download the file again.",
        layout.in_one_write(_lift),
        is_asking=False,
    ),
    "protect": Action(
        "Protect",
        "The file is protected.",
        "The file is spared when files are quarantined.",
        layout.in_one_write(store.protect, is_protected=True),
        is_asking=False,
    ),
    "unprotect": Action(
        "End the protection",
        "The file is not protected any more.",
        "The file can be quarantined again.",
        layout.in_one_write(store.protect, is_protected=False),
        is_asking=False,
    ),
    "delete": Action(
        "Delete",
        "The file is deleted.",
        "The file is deleted from this server's disk, unless other files have the same content."
        " Messages with the file stay, but nobody can open it any more. This can't be undone.",
        _delete,
        is_final=True,
    ),
}
"""By their names in the path."""
