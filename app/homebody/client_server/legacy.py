"""The 2014 API, from before the first version of the specification: /matrix/client/api/v1.

It serves the same accounts and rooms as the current API, with other paths and formats. A token is a
position of the clock as a bare number (`215` for today's `s215`), or START or END.

The page for /login/fallback is in web/pages.py, with the other paths of that page.
"""

from __future__ import annotations

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import (
    http,
    legacy_events,
    login,
    membership,
    registration,
    room_send,
    room_state,
    rooms,
    sync,
)
from homebody.client_server.authentication import (
    authenticated,
    must_be_me,
    requester,
    unauthenticated,
)
from homebody.context import homeserver
from homebody.core.ephemeral import presence
from homebody.core.events import history, members, paging, state
from homebody.core.events.paging import Page
from homebody.core.legacy import event_stream
from homebody.core.legacy.event_stream import RoomInfo, StreamRange
from homebody.core.rooms import state_events
from homebody.core.sessions import registration as registration_rules
from homebody.core.sync.spans import SyncToken
from homebody.core.timeline import sending
from homebody.spec import identifiers
from homebody.spec.events import Json
from homebody.storage.database import Reader

bp = Blueprint("legacy", __name__, url_prefix="/matrix/client/api/v1")

WAIT_MS = 5000
"""Default timeout of GET /events."""
MAX_NEWS = 100
"""Events in one response to GET /events."""
START, END = "START", "END"


class Register(msgspec.Struct):
    """The body of a request to register; `user_id` is only the part before the colon."""

    user_id: str | None = None
    password: str | None = None


class Message(msgspec.Struct):
    """The required fields of a message; others are kept."""

    msgtype: str


@bp.post("/register")
@unauthenticated
def register() -> Json:
    """Create an account. The response to an incomplete request has the stages, as today."""
    body = http.json_object()
    wanted = http.convert(body, Register)
    dummy = {"type": registration_rules.DUMMY}
    return registration.register_by(
        {"username": wanted.user_id, "password": wanted.password, "auth": body.get("auth", dummy)}
    )


@bp.get("/login")
@unauthenticated
def get_login() -> Json:
    """Return the supported login type."""
    return {"type": login.PASSWORD}


bp.post("/login")(login.log_in)
bp.post("/rooms")(rooms.create_room)


@bp.put("/join/<room_id_or_alias>")
@authenticated()
def join_room(room_id_or_alias: str) -> Json:
    """Join by id or alias."""
    return membership.join(room_id_or_alias)


@bp.put("/rooms/<room_id>/messages/<sender>/<msg_id>")
@authenticated(suspended="partly")
def put_message(room_id: str, sender: str, msg_id: str) -> Json:
    """Send a message under an id that the client chose; a repeated request sends nothing."""
    must_be_me(sender)
    draft = sending.Draft(room_id, sender, legacy_events.MESSAGE, {}, txn_id=msg_id)
    if room_send.sent_before_or_limited("rc_message", draft) is not None:
        return {}
    content = room_send.event_content()
    http.convert(content, Message)
    if not identifiers.has_at_most_255_bytes(msg_id):
        raise errors.invalid_param("The message ID is longer than 255 bytes")
    with homeserver.database.write() as tx:
        sending.send_message(tx, requester(), room_id, legacy_events.MESSAGE, content, msg_id)
    return {}


@bp.get("/rooms/<room_id>/messages/<sender>/<msg_id>")
@authenticated()
def get_message(room_id: str, sender: str, msg_id: str) -> Json:
    """Return the content of a message, with its timestamp."""
    with homeserver.database.read() as tx:
        event_id = sending.sent_as(tx, room_id, sender, legacy_events.MESSAGE, msg_id)
        event = history.event(tx, requester().user_id, event_id or msg_id, room_id)
    if (event.type, event.sender) != (legacy_events.MESSAGE, sender):
        raise errors.not_found("There is no such message")
    content: Json = legacy_events.event(event)["content"]
    return content


@bp.get("/rooms/<room_id>/messages/list")
@authenticated()
def get_messages(room_id: str) -> Json:
    """Return the messages of a room or, with from, to and limit, a page of them."""
    user_id = requester().user_id
    with homeserver.database.read() as tx:
        page = event_stream.read(tx, user_id, room_id, _page_range(tx), legacy_events.KNOWN)
        return _chunk(tx, page)


@bp.get("/rooms/<room_id>/members/list")
@authenticated()
def get_members(room_id: str) -> Json:
    """Return all member events of a room."""
    with homeserver.database.read() as tx:
        found = members.members(tx, requester().user_id, room_id)
    return {"chunk": [legacy_events.member(it) for it in found]}


@bp.put("/rooms/<room_id>/members/<user_id>/state")
@authenticated(suspended="partly")
def put_member(room_id: str, user_id: str) -> Json:
    """Set a membership: invite, join, leave, kick or ban."""
    room_state.send_state(room_id, state.MEMBER, user_id)
    return {}


@bp.get("/rooms/<room_id>/members/<user_id>/state")
@authenticated()
def get_member(room_id: str, user_id: str) -> Json:
    """Return the content of a member event."""
    with homeserver.database.read() as tx:
        return state_events.get(tx, room_id, requester().user_id, state.MEMBER, user_id).content


@bp.get("/im/sync")
@authenticated()
def im_sync() -> list[Json]:
    """Return the user's rooms with their messages or, with from, to and limit, a page of each."""
    user_id = requester().user_id
    with homeserver.database.read() as tx:
        known = event_stream.rooms(tx, user_id, _page_range(tx), legacy_events.KNOWN)
        return [_room(tx, room) for room in known]


@bp.get("/events")
@authenticated()
def get_events() -> Json:
    """Return new events since a token; waits up to `timeout` ms for the first."""
    me = requester()
    timeout_ms = http.query_integer("timeout", WAIT_MS, cap=sync.MAX_TIMEOUT_MS)
    limit = http.query_integer("limit", MAX_NEWS, cap=MAX_NEWS) or MAX_NEWS
    with homeserver.database.read() as tx:
        start = _position(tx, request.args.get("from", END))

    def look() -> Json:
        with homeserver.database.read() as tx:
            news = event_stream.since(tx, me.user_id, start, limit, legacy_events.KNOWN)
            return _chunk(tx, Page(news.events, start, news.end))

    with presence.syncing(homeserver.ephemeral, me.user_id, me.device_id, "online"):
        return sync.wait_for(me.user_id, timeout_ms, look, lambda found: bool(found["chunk"]))


def _room(tx: Reader, room: RoomInfo) -> Json:
    shown: Json = {"membership": room.membership, "room_id": room.room_id}
    if room.inviter is not None:
        shown["inviter"] = room.inviter
    if room.page is not None:
        shown["messages"] = _chunk(tx, room.page)
    return shown


def _chunk(tx: Reader, page: Page) -> Json:
    """Return events between two tokens."""
    return {
        "chunk": legacy_events.events(tx, requester(), page.events),
        "start": str(page.start),
        "end": str(page.end),
    }


def _page_range(tx: Reader) -> StreamRange:
    """Return the range that from, to and limit name: by default the newest, oldest first."""
    limit = http.query_integer("limit", 0, cap=paging.MAX_LIMIT) or paging.MAX_LIMIT
    begin = request.args.get("from")
    if begin is None and "to" not in request.args:
        return StreamRange(tx.position, 0, limit, is_reversed=True)
    start = _position(tx, START if begin is None else begin)
    stop = _position(tx, request.args.get("to", START if begin == END else END))
    return StreamRange(start, stop, limit)


def _position(tx: Reader, text: str) -> int:
    """Return the position of a token of this API. Raises M_INVALID_PARAM."""
    if text == START:
        return 0
    if text == END:
        return tx.position
    return SyncToken.parse(f"s{text}", tx.position).position
