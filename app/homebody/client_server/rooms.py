"""Creating, upgrading and summarizing rooms; the rooms of a space.

Spec: client-server-api#creation, client-server-api#room-upgrades,
client-server-api#room-summaries, client-server-api#spaces
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec
from flask import Blueprint, request

from homebody.client_server import authentication, http, membership, room_send
from homebody.client_server.authentication import (
    authenticated,
    limit_lookups,
    limit_strangers,
    maybe_requester,
    requester,
)
from homebody.context import homeserver
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
from homebody.core.timeline import shadow_bans
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("rooms", __name__)
bp_v1 = Blueprint("rooms_v1", __name__, url_prefix="/_matrix/client/v1")
bp_unstable = Blueprint(  # below /unstable, which web/middleware.py reads as /v3
    "room_summary_unstable", __name__, url_prefix="/_matrix/client/v3/im.nheko.summary"
)

MAX_BODY_BYTES: Final = 4 * creation.MAX_CONTENT_BYTES
"""Includes white space and escapes."""


class InitialState(msgspec.Struct):
    """An event of `initial_state`."""

    type: str
    content: Json
    state_key: str = ""


class ThirdPartyInvite(msgspec.Struct):
    """An invite by a third-party identifier, which needs an identity server."""

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
    """Create a room."""
    body = http.convert(http.json_object(max_bytes=MAX_BODY_BYTES), CreateRoom)
    if body.invite_3pid:
        raise third_party_invites.refused()
    invited = _invited(body)
    _check_limits(invited)
    if body.room_alias_name is not None:
        alias = f"#{body.room_alias_name}:{homeserver.server.name}"
        appservice_users.check_alias(homeserver.server, alias, requester().service)
    appservice_queries.ensure_users(homeserver.database, invited)
    version = body.room_version or homeserver.server.config.default_room_version
    is_public = body.visibility == "public"
    if requester().is_shadow_banned:
        _invite_nobody(body)
    options = creation.RoomOptions(
        preset=body.preset or ("public_chat" if is_public else "private_chat"),
        version=creation.version_named(version),
        alias_localpart=body.room_alias_name,
        name=body.name,
        topic=body.topic,
        invite=body.invite or (),
        elsewhere=[it for it in body.invite or () if membership.is_elsewhere(it)],
        is_direct=body.is_direct or False,
        is_published=is_public and not requester().is_shadow_banned,
        creation_content=body.creation_content or {},
        initial_state=[
            (event.type, event.state_key, event.content) for event in body.initial_state or ()
        ],
        power_levels=body.power_level_content_override or {},
    )
    creation.check_sizes(options)
    with homeserver.database.write() as tx:
        room_id, room_alias = creation.create_room(tx, requester().user_id, options)
    membership.invite_many_elsewhere(room_id, options.elsewhere, creation.invite_content(options))
    # room_alias: as in the first version of the API and its documents
    return {"room_id": room_id} | ({"room_alias": room_alias} if room_alias else {})


def _invited(body: CreateRoom) -> list[str]:
    """Return the users that the new room invites, also by events of `initial_state`."""
    by_state = [
        event.state_key
        for event in body.initial_state or ()
        if event.type == state.MEMBER and event.content.get("membership") == "invite"
    ]
    return list(dict.fromkeys([*(body.invite or ()), *by_state]))


def _invite_nobody(body: CreateRoom) -> None:
    """Take the invites out of a request of a shadow-banned user."""
    body.invite = None
    body.initial_state = [it for it in body.initial_state or () if it.type != state.MEMBER]


def _check_limits(invited: Collection[str]) -> None:
    """Raise M_LIMIT_EXCEEDED."""
    limits, user_id = authentication.rate_limits(), requester().user_id
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
    """Upgrade a room, and return its replacement.

    Spec: client-server-api#post_matrixclientv3roomsroomidupgrade
    """
    body = http.convert(room_send.event_content(), Upgrade)
    version = creation.version_named(body.new_version)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_room_creation", user_id)
    if requester().is_shadow_banned:
        with homeserver.database.read() as tx:
            return {"replacement_room": shadow_bans.room_id(tx, requester(), room_id)}
    wanted = upgrade.UpgradeRequest(user_id, room_id, version, body.additional_creators)
    return {"replacement_room": upgrade.upgrade(homeserver.database, wanted)}


UNSTABLE_KEYS = {
    "room_version": "im.nheko.summary.room_version",
    "encryption": "im.nheko.summary.encryption",
}


@bp_v1.get("/room_summary/<room_id_or_alias>")
@authenticated(optional=True, guests=True)
def get_room_summary(room_id_or_alias: str) -> Json:
    """Return a summary of a room. Needs no account for rooms that are open to everyone."""
    return _summary(room_id_or_alias)


@bp_unstable.get("/summary/<room_id_or_alias>")
@bp_unstable.get("/rooms/<room_id_or_alias>/summary")
@authenticated(optional=True, guests=True)
def get_unstable_room_summary(room_id_or_alias: str) -> Json:
    """Return a summary with the names of MSC3266, on both paths that it has had.

    Never with both names of a key: clients in Rust take that for a duplicate key, and reject the
    response.
    """
    stable = _summary(room_id_or_alias)
    return {UNSTABLE_KEYS.get(key, key): value for key, value in stable.items()}


def _summary(room_id_or_alias: str) -> Json:
    limit_strangers()
    user = maybe_requester()
    user_id = user.user_id if user else None
    room_id, servers = room_and_servers(room_id_or_alias)
    with homeserver.database.read() as tx:
        if not homeserver.server.config.federation or spaces.is_here(tx, room_id):
            return summary.preview(tx, room_id, user_id)
    limit_lookups()
    return homeserver.remote_rooms.summary(user_id, room_id, servers)


def room_and_servers(room_id_or_alias: str) -> tuple[str, list[str]]:
    """Return a room, and servers that may know it: those in the query and those of its alias.

    Waits for the server of the alias. Raises as `aliases.resolve` and `RemoteQueries.alias` do.
    """
    servers = [*request.args.getlist("via"), *request.args.getlist("server_name")]
    server = homeserver.server
    if identifiers.is_room_alias(room_id_or_alias) and server.config.federation:
        its_server = identifiers.server_name(room_id_or_alias)
        if its_server != server.name:
            limit_lookups()
            found = homeserver.remote_queries.alias(room_id_or_alias)
            return found.room_id, [*servers, *found.servers]
    with homeserver.database.read() as tx:
        return aliases.resolve(tx, room_id_or_alias), servers


@bp_v1.get("/rooms/<room_id>/hierarchy")
@authenticated()
def get_space_hierarchy(room_id: str) -> Json:
    """Return the rooms of a space, of the spaces in it, and so on.

    Spec: client-server-api#get_matrixclientv1roomsroomidhierarchy
    """
    query = spaces.Query(
        limit=http.query_integer("limit", spaces.DEFAULT_LIMIT, least=1, cap=spaces.MAX_LIMIT),
        max_depth=http.query_integer("max_depth", spaces.MAX_DEPTH, cap=spaces.MAX_DEPTH),
        is_suggested_only=http.query_boolean("suggested_only"),
        since=request.args.get("from") or None,
    )
    authentication.rate_limits().check("rc_lookups", requester().user_id)
    if homeserver.server.config.federation:
        return homeserver.remote_rooms.hierarchy(requester().user_id, room_id, query)
    with homeserver.database.read() as tx:
        return spaces.hierarchy(tx, requester().user_id, room_id, query)
