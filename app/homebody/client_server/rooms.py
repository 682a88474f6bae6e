"""Making a room.

Spec: client-server-api#creation
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.events import state
from homebody.core.rooms import appservice_queries, creation, third_party_invites
from homebody.core.sessions import appservice_users
from homebody.spec.events import Json

bp = Blueprint("rooms", __name__)

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
