"""Files: lists, deletion, quarantine and protection, as Synapse's admin API has them."""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint, request

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.administration import media_retention
from homebody.core.federation import remote_media
from homebody.core.media import deletion, in_rooms, listing, quarantine, references, store
from homebody.core.media.listing import Page
from homebody.core.media.references import References
from homebody.spec.events import Json
from homebody.storage.database import Reader

bp = Blueprint("admin_media", __name__)

LEAST_TS: Final = 30_000_000_000
"""An earlier time (December 1970) was probably given in seconds."""


@bp.get("/v1/media/<server_name>/<media_id>")
@authenticated(admins_only=True)
def get_media(server_name: str, media_id: str) -> Json:
    """Return what is known of a file."""
    homeserver.media_used.write()
    with homeserver.database.read() as tx:
        return {"media_info": listing.described(tx, server_name, media_id)}


@bp.delete("/v1/media/<server_name>/<media_id>")
@authenticated(admins_only=True)
def delete_media(server_name: str, media_id: str) -> Json:
    """Delete a file of this server. Raises M_NOT_FOUND, M_UNKNOWN for one of another server."""
    _check_is_here(server_name)
    found = _delete([media_id])
    if not found["total"]:
        raise errors.not_found("There is no such file")
    return found


@bp.post("/v1/media/delete")
@authenticated(admins_only=True)
def delete_old_media() -> Json:
    """Delete files of this server that were last used before a time."""
    before_ts = _before_ts()
    size_gt = http.query_integer("size_gt", 0)
    keep_profiles = http.query_boolean("keep_profiles", default=True)
    homeserver.media_used.write()
    used = references.collect(homeserver.database) if keep_profiles else None
    found = media_retention.unused_files(
        homeserver.database, before_ts, larger_than=size_gt, used=used
    )
    return _delete([it.media_id for it in found], used)


@bp.post("/v1/media/<server_name>/delete")
@authenticated(admins_only=True)
def delete_old_media_by_old_path(server_name: str) -> Json:
    """Delete files as POST /v1/media/delete does, on the path that older tools use."""
    _before_ts()
    _check_is_here(server_name)
    return delete_old_media()


@bp.post("/v1/purge_media_cache")
@authenticated(admins_only=True)
def purge_media_cache() -> Json:
    """Delete files of other servers that were last used before a time."""
    steps = remote_media.purge(homeserver.database, requester().user_id, _before_ts())
    return {"deleted": sum(step.files for step in steps)}


@bp.post("/v1/media/quarantine/<server_name>/<media_id>")
@authenticated(admins_only=True)
def quarantine_media(server_name: str, media_id: str) -> Json:
    """Quarantine a file, which need not be known."""
    with homeserver.database.write() as tx:
        quarantine.put(tx, requester().user_id, [(server_name, media_id)])
    return {}


@bp.post("/v1/media/unquarantine/<server_name>/<media_id>")
@authenticated(admins_only=True)
def unquarantine_media(server_name: str, media_id: str) -> Json:
    """Let users download a file again."""
    with homeserver.database.write() as tx:
        quarantine.lift(tx, requester().user_id, server_name, media_id)
    return {}


@bp.get("/v1/media/quarantine_changes")
@authenticated(admins_only=True)
def get_quarantine_changes() -> Json:
    """Return which files were quarantined, or released, since an earlier response."""
    since = http.query_integer("from", 0)
    with homeserver.database.read() as tx:
        if since > quarantine.last_change(tx):
            raise errors.invalid_param("from must be the next_batch of an earlier response")
        changes, next_batch = quarantine.changes(tx, since)
    return {"changes": changes, "next_batch": next_batch}


@bp.post("/v1/media/protect/<media_id>")
@authenticated(admins_only=True)
def protect_media(media_id: str) -> Json:
    """Spare a file from quarantine. Raises M_UNKNOWN (404) for an unknown one."""
    with homeserver.database.write() as tx:
        store.protect(tx, requester().user_id, media_id, is_protected=True)
    return {}


@bp.post("/v1/media/unprotect/<media_id>")
@authenticated(admins_only=True)
def unprotect_media(media_id: str) -> Json:
    """End the protection of a file. Raises as `protect_media` does."""
    with homeserver.database.write() as tx:
        store.protect(tx, requester().user_id, media_id, is_protected=False)
    return {}


@bp.get("/v1/room/<room_id>/media")
@authenticated(admins_only=True)
def list_room_media(room_id: str) -> Json:
    """Return the files of a room's unencrypted events."""
    found = in_rooms.uris(homeserver.database, room_id)
    listed: Json = {"local": [], "remote": []}
    for origin, media_id in found:
        place = "local" if origin == homeserver.server.name else "remote"
        listed[place].append(f"mxc://{origin}/{media_id}")
    return listed


@bp.post("/v1/room/<room_id>/media/quarantine")
@authenticated(admins_only=True)
def quarantine_room_media(room_id: str) -> Json:
    """Quarantine the files of a room's unencrypted events."""
    found = in_rooms.uris(homeserver.database, room_id)
    return _quarantine(found)


@bp.post("/v1/quarantine_media/<room_id>")
@authenticated(admins_only=True)
def quarantine_room_media_by_old_path(room_id: str) -> Json:
    """Quarantine the files of a room, on the path that older tools use."""
    return quarantine_room_media(room_id)


@bp.post("/v1/user/<user_id>/media/quarantine")
@authenticated(admins_only=True)
def quarantine_user_media(user_id: str) -> Json:
    """Quarantine the files that a user of this server has uploaded."""
    with homeserver.database.read() as tx:
        ids = listing.ids_of_user(tx, user_id)
    return _quarantine([(homeserver.server.name, media_id) for media_id in ids])


@bp.get("/v1/users/<user_id>/media")
@authenticated(admins_only=True)
def list_user_media(user_id: str) -> Json:
    """Return a page of the files that a user has uploaded, the newest first."""
    page = _page("created_ts", listing.ORDERS, newest_first=True)
    homeserver.media_used.write()
    with homeserver.database.read() as tx:
        _check_account(tx, user_id)
        found, total = listing.of_user(tx, user_id, page)
    return {"media": found, "total": total, **_next_token(page, found, total)}


@bp.delete("/v1/users/<user_id>/media")
@authenticated(admins_only=True)
def delete_user_media(user_id: str) -> Json:
    """Delete a page of the files that a user has uploaded, the newest first."""
    page = _page("created_ts", listing.ORDERS, newest_first=True)
    homeserver.media_used.write()
    with homeserver.database.read() as tx:
        _check_account(tx, user_id)
        found, _ = listing.of_user(tx, user_id, page)
    return _delete([it["media_id"] for it in found])


@bp.get("/v1/statistics/users/media")
@authenticated(admins_only=True)
def get_media_statistics() -> Json:
    """Return a page of the users with files, with the number and the size of those."""
    page = _page("user_id", listing.USAGE_ORDERS, newest_first=False)
    from_ts = http.query_integer("from_ts", 0)
    until_ts = http.query_integer("until_ts", 0) if "until_ts" in request.args else None
    if until_ts is not None and until_ts <= from_ts:
        raise errors.invalid_param("until_ts must be greater than from_ts")
    search_term = request.args.get("search_term")
    if search_term == "":
        raise errors.invalid_param("search_term must not be empty")
    with homeserver.database.read() as tx:
        found, total = listing.usage(
            tx, page, from_ts=from_ts, until_ts=until_ts, search_term=search_term
        )
    return {"users": found, "total": total, **_next_token(page, found, total)}


def _page(order_by: str, orders: tuple[str, ...], *, newest_first: bool) -> Page:
    """Return the page in the query. Raises M_INVALID_PARAM."""
    is_sorted = "order_by" in request.args or "dir" in request.args
    default = "b" if newest_first and not is_sorted else "f"
    return Page(
        start=http.query_integer("from", 0),
        limit=http.query_integer("limit", 100),
        order_by=http.query_choice("order_by", orders, order_by),
        is_descending=http.query_choice("dir", ("f", "b"), default) == "b",
    )


def _next_token(page: Page, found: list[Json], total: int) -> Json:
    """Return the number from which the next page begins, if there is one."""
    return {"next_token": page.start + len(found)} if page.start + page.limit < total else {}


def _before_ts() -> int:
    """Return the time in the query (ms). Raises M_MISSING_PARAM, M_INVALID_PARAM."""
    http.query_required("before_ts")
    before_ts = http.query_integer("before_ts", 0)
    if before_ts < LEAST_TS:
        raise errors.invalid_param("before_ts is in 1970: it has to be in milliseconds")
    return min(before_ts, time.time_ns() // 1_000_000 + 1)


def _check_is_here(server_name: str) -> None:
    if server_name != homeserver.server.name:
        raise errors.unknown("Only files of this server can be deleted")


def _check_account(tx: Reader, user_id: str) -> None:
    """Raise M_NOT_FOUND for an unknown user, M_UNKNOWN (400) for one of another server."""
    if not tx.server.is_local(user_id):
        raise errors.unknown("Only users of this server can be looked up")
    if accounts.find(tx, user_id) is None:
        raise errors.not_found("This server has no such user")


def _delete(media_ids: list[str], spared: References | None = None) -> Json:
    done = deletion.delete_files(homeserver.database, media_ids, requester().user_id, spared)
    return {"deleted_media": done.media_ids, "total": len(done.media_ids)}


def _quarantine(files: list[tuple[str, str]]) -> Json:
    count = quarantine.put_many(homeserver.database, requester().user_id, files)
    return {"num_quarantined": count}
