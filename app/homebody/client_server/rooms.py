"""Creating, upgrading and summarizing rooms; the rooms of a space.

Spec: client-server-api#creation, client-server-api#room-upgrades,
client-server-api#room-summaries, client-server-api#spaces
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec
from flask import Blueprint, request

from homebody import context
from homebody.client_server import http, room_send
from homebody.client_server.authentication import (
    authenticated,
    limit_strangers,
    maybe_requester,
    requester,
)
from homebody.core.events import state
from homebody.core.rooms import (
    aliases,
    appservice_queries,
    creation,
    spaces,
    summary,
    third_party_invites,
    upgrade,
)
from homebody.core.sessions import appservice_users
from homebody.spec.events import Json

bp = Blueprint("rooms", __name__)
bp_v1 = Blueprint("rooms_v1", __name__, url_prefix="/_matrix/client/v1")
bp_unstable = Blueprint(  # below /unstable, which web/middleware.py reads as /v3
    "room_summary_unstable", __name__, url_prefix="/_matrix/client/v3/im.nheko.summary"
)

MAX_BODY_BYTES: Final = 4 * creation.MAX_CONTENT_BYTES
"""Spaces and escapes included."""


class InitialState(msgspec.Struct):
    """A state event to start with."""

    type: str
    content: Json
    state_key: str = ""


class ThirdPartyInvite(msgspec.Struct):
    """An invite of somebody whose user id an identity server would have to find."""

    id_server: str
    medium: str
    address: str
    id_access_token: str | None = None


class CreateRoom(msgspec.Struct):
    """The body of /createRoom."""

    visibility: Literal["public", "private"] | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] | None = None
    invite_3pid: list[ThirdPartyInvite] | None = None
    room_version: str | None = None
    creation_content: Json | None = None
    initial_state: list[InitialState] | None = None
    preset: creation.Preset | None = None
    is_direct: bool | None = None
    power_level_content_override: Json | None = None


@bp.post("/createRoom")
@authenticated()
def create_room() -> Json:
    """A new room with the requester in it."""
    body = http.convert(http.json_object(max_bytes=MAX_BODY_BYTES), CreateRoom)
    if body.invite_3pid:
        raise third_party_invites.refused()
    invited = _invited(body)
    _check_limits(invited)
    if body.room_alias_name is not None:
        wanted = f"#{body.room_alias_name}:{context.server().name}"
        appservice_users.check_alias(context.server(), wanted, requester().service)
    appservice_queries.ensure_users(context.db(), invited)
    version = body.room_version or context.server().config.default_room_version
    is_public = body.visibility == "public"
    wish = creation.RoomOptions(
        preset=body.preset or ("public_chat" if is_public else "private_chat"),
        version=creation.version_named(version),
        alias_localpart=body.room_alias_name,
        name=body.name,
        topic=body.topic,
        invite=body.invite or (),
        is_direct=body.is_direct or False,
        is_published=is_public,
        creation_content=body.creation_content or {},
        initial_state=[
            (event.type, event.state_key, event.content) for event in body.initial_state or ()
        ],
        power_levels=body.power_level_content_override or {},
    )
    creation.check_sizes(wish)
    with context.db().write() as tx:
        room_id, alias = creation.create_room(tx, requester().user_id, wish)
    # room_alias: as the first version of the API answered, and its documents show
    return {"room_id": room_id} | ({"room_alias": alias} if alias else {})


def _invited(body: CreateRoom) -> list[str]:
    """Return whom the new room invites, be it by a state event to start with."""
    by_state = [
        event.state_key
        for event in body.initial_state or ()
        if event.type == state.MEMBER and event.content.get("membership") == "invite"
    ]
    return list(dict.fromkeys([*(body.invite or ()), *by_state]))


def _check_limits(invited: Collection[str]) -> None:
    """Raises M_LIMIT_EXCEEDED."""
    limits, user_id = context.rate_limits(), requester().user_id
    limits.check("rc_room_creation", user_id)
    limits.check("rc_invites.per_issuer", user_id, len(invited))
    for target in invited:
        limits.check("rc_invites.per_user", target)


class Upgrade(msgspec.Struct):
    """The body of /upgrade."""

    new_version: str
    additional_creators: list[str] | None = None


@bp.post("/rooms/<room_id>/upgrade")
@authenticated()
def upgrade_room(room_id: str) -> Json:
    """The room that takes the place of an old one.

    Spec: client-server-api#post_matrixclientv3roomsroomidupgrade
    """
    body = http.convert(room_send.event_content(), Upgrade)
    version = creation.version_named(body.new_version)
    user_id = requester().user_id
    context.rate_limits().check("rc_room_creation", user_id)
    wish = upgrade.UpgradeRequest(user_id, room_id, version, body.additional_creators or ())
    return {"replacement_room": upgrade.upgrade(context.db(), wish)}


UNSTABLE_KEYS = {
    "room_version": "im.nheko.summary.room_version",
    "encryption": "im.nheko.summary.encryption",
}


@bp_v1.get("/room_summary/<room_id_or_alias>")
@authenticated(optional=True, guests=True)
def get_room_summary(room_id_or_alias: str) -> Json:
    """Return a summary of a room; anybody may ask about rooms that anybody may enter."""
    return _summary(room_id_or_alias)


@bp_unstable.get("/summary/<room_id_or_alias>")
@bp_unstable.get("/rooms/<room_id_or_alias>/summary")
@authenticated(optional=True, guests=True)
def get_room_summary_before_it_was_specified(room_id_or_alias: str) -> Json:
    """Return a summary with the names of MSC3266, on both paths that it has had.

    Never with both names of a key: clients in Rust take that for a key that is there twice, and
    refuse the answer.
    """
    found = _summary(room_id_or_alias)
    return {UNSTABLE_KEYS.get(key, key): value for key, value in found.items()}


def _summary(room_id_or_alias: str) -> Json:
    limit_strangers()
    who = maybe_requester()
    with context.db().read() as tx:
        room_id = aliases.resolve(tx, room_id_or_alias)
        return summary.preview(tx, room_id, who.user_id if who else None)


@bp_v1.get("/rooms/<room_id>/hierarchy")
@authenticated()
def get_space_hierarchy(room_id: str) -> Json:
    """The rooms of a space, of the spaces in it, and so on.

    Spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
    """
    query = spaces.Query(
        limit=http.query_integer("limit", spaces.DEFAULT_LIMIT, least=1, cap=spaces.MAX_LIMIT),
        max_depth=http.query_integer("max_depth", spaces.MAX_DEPTH, cap=spaces.MAX_DEPTH),
        is_suggested_only=http.query_boolean("suggested_only"),
        since=request.args.get("from") or None,
    )
    context.rate_limits().check("rc_lookups", requester().user_id)
    with context.db().read() as tx:
        return spaces.hierarchy(tx, requester().user_id, room_id, query)
