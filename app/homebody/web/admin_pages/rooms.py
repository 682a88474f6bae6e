"""Rooms: the list, the page of each, and the questions before something is done to them."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request

from homebody import errors
from homebody.context import homeserver
from homebody.core import audit, tasks
from homebody.core.events import state
from homebody.core.rooms import blocked, deletion, extremities, history_purge, listing
from homebody.errors import MatrixError
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.web.admin_pages import layout
from homebody.web.admin_pages.room_actions import ACTIONS
from homebody.web.browser_sessions import signed_in

bp = Blueprint("admin_room_pages", __name__)

ORDERS: Final = {
    "name": "Name",
    "joined_members": "Members",
    "joined_local_members": "Members of this server",
    "state_events": "State events",
}
TASKS: Final = (deletion.ACTION, history_purge.ACTION)
MAX_MEMBERS: Final = 200
"""Shown on the page of a room."""


@bp.get("/rooms")
@signed_in(admins_only=True)
def list_rooms() -> Response:
    """Return the page with a part of the rooms."""
    order = request.args.get("order", "")
    order = order if order in ORDERS else "name"
    query = listing.Query(
        start=layout.start_of_part(),
        limit=layout.PER_PAGE,
        order_by=order,
        search_term=layout.searched() or None,
    )
    with homeserver.database.read() as tx:
        found, total = listing.page(tx, query)
        are_blocked = {it["room_id"] for it in blocked.all_blocked(tx)}
    part = layout.part(total)
    return layout.page(
        "rooms.html", rooms=found, part=part, order=order, orders=ORDERS, blocked=are_blocked
    )


@bp.get("/rooms/<room_id>")
@signed_in(admins_only=True)
def show_room(room_id: str) -> Response:
    """Return the page of a room, which is blocked or known."""
    with homeserver.database.read() as tx:
        by = blocked.blocked_by(tx, room_id)
        room = _find(tx, room_id, is_blocked=by is not None)
        joined = sorted(state.joined_users(tx, room_id)) if room else []
        work = tasks.select_tasks(tx, actions=TASKS, resource_id=room_id)
        ends = len(extremities.describe(tx, room_id))
        entries = audit.latest(tx, 10, subject=room_id)
    offered = ["block" if by is None else "unblock"]
    if room:
        offered += ["join", "make-admin", "quarantine-files", "purge-history"]
        offered += [*(["trim-extremities"] if ends > 1 else []), "delete"]
    return layout.page(
        "room.html",
        room_id=room_id,
        room=room,
        blocked_by=by,
        members=joined[:MAX_MEMBERS],
        member_count=len(joined),
        is_local=homeserver.server.is_local,
        tasks=work[::-1],
        ends=ends,
        entries=entries,
        actions=[(name, ACTIONS[name]) for name in offered],
        done=layout.done(ACTIONS),
    )


@bp.get("/rooms/<room_id>/<action>")
@signed_in(admins_only=True)
def ask_about_room(room_id: str, action: str) -> Response:
    """Return the page that asks before something is done to a room."""
    _check(room_id)
    chosen = layout.choose(ACTIONS, action)
    return layout.ask(chosen, _subject(room_id), f"rooms/{layout.segment(room_id)}")


@bp.post("/rooms/<room_id>/<action>")
@signed_in(admins_only=True)
def act_on_room(room_id: str, action: str) -> Response:
    """Do something to a room."""
    _check(room_id)
    chosen = layout.choose(ACTIONS, action)
    back = f"rooms/{layout.segment(room_id)}"
    return layout.perform(
        chosen, back, room_id, again=layout.again(chosen, _subject(room_id), back)
    )


def _find(tx: Reader, room_id: str, *, is_blocked: bool) -> Json | None:
    """Return the details of a room; None for a blocked one that is not known. M_NOT_FOUND."""
    try:
        return listing.details(tx, room_id)
    except MatrixError:
        deleted = tasks.select_tasks(tx, actions=[deletion.ACTION], resource_id=room_id)
        if is_blocked or deleted:
            return None
        raise


def _subject(room_id: str) -> str:
    """Return how questions call a room. Names are from users, so the ID is in it as well."""
    with homeserver.database.read() as tx:
        name = layout.names_of(tx, [room_id]).get(room_id)
    return room_id if name is None else f"{name} ({room_id})"


def _check(room_id: str) -> None:
    if not identifiers.is_room_id(room_id):
        raise errors.invalid_param("This is not a room ID")
