"""Joining, inviting, leaving, kicking, banning, knocking, forgetting; and the members of a room.

Spec: client-server-api#room-membership, client-server-api#get_matrixclientv3roomsroomidmembers
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import msgspec
from flask import Blueprint, request

from homebody import errors
from homebody.client_server import authentication, http, room_send
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core import partial_rooms
from homebody.core.events import client_events, members, state
from homebody.core.federation import knocks, sent_invites
from homebody.core.federation.joins import JoinRequest
from homebody.core.rooms import aliases, appservice_queries, membership, third_party_invites
from homebody.core.sync.spans import SyncToken
from homebody.core.timeline import joined_rooms, outside_rooms
from homebody.errors import MatrixError
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("membership", __name__)

NOT_FOR_THE_EVENT: Final = frozenset({"third_party_signed", "third_party_invite"})
"""Fields of the body of /join that are not for the event, where they would have another meaning."""


class OwnChange(msgspec.Struct):
    """The body of changes to one's own membership: /join, /leave, /knock."""

    reason: str | None = None
    third_party_signed: Json | None = None


class ThirdPartySigned(msgspec.Struct):
    """The proof that the user owns the address to which an invite was sent."""

    sender: str
    mxid: str
    token: str
    signatures: dict[str, dict[str, str]]


class OthersChange(msgspec.Struct):
    """The body of changes to the membership of others: /kick, /ban, /unban."""

    user_id: str
    reason: str | None = None


class Invite(msgspec.Struct):
    """The body of /invite by user ID."""

    user_id: str
    reason: str | None = None


class InviteAddress(msgspec.Struct):
    """The body of /invite by a third-party identifier, which needs an identity server."""

    medium: str
    address: str
    id_server: str
    id_access_token: str | None = None  # required today, unknown to older clients


@bp.post("/join/<room_id_or_alias>")
@authenticated(guests="partly")
def join_room(room_id_or_alias: str) -> Json:
    """Join a room by id or alias; `via` and `server_name` name servers that are in it."""
    return join(room_id_or_alias)


@bp.post("/rooms/<room_id>/join")
@authenticated(guests="partly")
def join_room_by_id(room_id: str) -> Json:
    """Join a room by id."""
    return join(room_id)


@bp.post("/knock/<room_id_or_alias>")
@authenticated()
def knock_room(room_id_or_alias: str) -> Json:
    """Knock on a room."""
    content = _reason(_own_change().reason)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_joins.local", user_id)
    room_id, servers = find_room(room_id_or_alias)
    with homeserver.database.read() as tx:
        is_here = joined_rooms.is_resident(tx, room_id)
        servers = outside_rooms.servers_for(tx, room_id, user_id, servers)
        with_profile = membership.with_profile(tx, user_id, content)
    if servers and not is_here:
        wanted = JoinRequest(room_id, user_id, with_profile, servers)
        knocks.knock(homeserver.database, homeserver.federation, wanted)
        return {"room_id": room_id}
    with homeserver.database.write() as tx:
        membership.change(tx, room_id, user_id, user_id, "knock", content)
    return {"room_id": room_id}


@bp.post("/rooms/<room_id>/leave")
@authenticated(guests=True, suspended=True)
def leave_room(room_id: str) -> Json:
    """Leave a room, reject an invite, or retract a knock."""
    content = _reason(_own_change().reason)
    authentication.rate_limits().check("rc_message", requester().user_id)
    user_id = requester().user_id
    with homeserver.database.write() as tx:
        membership.leave(tx, room_id, user_id, content)
    return {}


@bp.post("/rooms/<room_id>/invite")
@authenticated()
def invite_user(room_id: str) -> Json:
    """Invite a user. Raises M_SERVER_NOT_TRUSTED for a third-party identifier.

    Spec: client-server-api#post_matrixclientv3roomsroomidinvite,
    client-server-api#third-party-invites
    """
    content = room_send.event_content()
    if content.get("user_id") is None and "medium" in content:
        http.convert(content, InviteAddress)
        raise third_party_invites.refused()
    body = http.convert(content, Invite)
    _check_invite_limits(room_id, body.user_id)
    if requester().is_shadow_banned:
        with homeserver.database.read() as tx:
            state.check_joined(tx, room_id, requester().user_id)
        return {}
    if is_elsewhere(body.user_id):
        invite_elsewhere(room_id, body.user_id, _reason(body.reason))
        return {}
    appservice_queries.ensure_users(homeserver.database, [body.user_id])
    with homeserver.database.write() as tx:
        membership.change(
            tx, room_id, requester().user_id, body.user_id, "invite", _reason(body.reason)
        )
    return {}


@bp.post("/rooms/<room_id>/kick")
@authenticated()
def kick(room_id: str) -> Json:
    """Kick a user."""
    body = http.convert(room_send.event_content(), OthersChange)
    authentication.rate_limits().check("rc_message", requester().user_id)
    with homeserver.database.write() as tx:
        membership.kick(tx, room_id, requester().user_id, body.user_id, _reason(body.reason))
    return {}


@bp.post("/rooms/<room_id>/ban")
@authenticated()
def ban(room_id: str) -> Json:
    """Ban a user."""
    body = http.convert(room_send.event_content(), OthersChange)
    authentication.rate_limits().check("rc_message", requester().user_id)
    with homeserver.database.write() as tx:
        membership.change(
            tx, room_id, requester().user_id, body.user_id, "ban", _reason(body.reason)
        )
    return {}


@bp.post("/rooms/<room_id>/unban")
@authenticated()
def unban(room_id: str) -> Json:
    """Unban a user."""
    body = http.convert(room_send.event_content(), OthersChange)
    authentication.rate_limits().check("rc_message", requester().user_id)
    with homeserver.database.write() as tx:
        membership.unban(tx, room_id, requester().user_id, body.user_id, _reason(body.reason))
    return {}


@bp.post("/rooms/<room_id>/forget")
@authenticated(suspended=True)
def forget_room(room_id: str) -> Json:
    """Forget a room that the user has left."""
    with homeserver.database.write() as tx:
        membership.forget(tx, room_id, requester().user_id)
    return {}


@bp.get("/joined_rooms")
@authenticated()
def get_joined_rooms() -> Json:
    """Return the ids of the user's joined rooms."""
    with homeserver.database.read() as tx:
        return {"joined_rooms": sorted(state.joined_rooms(tx, requester().user_id))}


def is_elsewhere(user_id: str) -> bool:
    """Return whether this is a user of a server with which this one may talk."""
    server = homeserver.server
    return (
        server.config.federation
        and identifiers.is_user_id(user_id)
        and not (server.is_local(user_id))
    )


def invite_elsewhere(room_id: str, user_id: str, content: Json, sender: str | None = None) -> str:
    """Invite a user of another server, and return the id of the event. Raises as sent_invites.

    `sender` is the requester, unless an administrator has ordered it.
    """
    sender = sender or requester().user_id
    with homeserver.database.read() as tx:
        draft = membership.invite_draft(tx, room_id, sender, user_id, content)
    return sent_invites.send(
        homeserver.database, homeserver.federation, homeserver.server_keys, homeserver.locks, draft
    )


def invite_many_elsewhere(room_id: str, user_ids: Collection[str], content: Json) -> None:
    """Invite users of other servers to a new room, as `sent_invites.send_all` does."""
    if not user_ids:
        return
    with homeserver.database.read() as tx:
        drafts = [
            membership.invite_draft(tx, room_id, requester().user_id, user_id, content)
            for user_id in user_ids
        ]
    sent_invites.send_all(
        homeserver.database, homeserver.federation, homeserver.server_keys, homeserver.locks, drafts
    )


def check_limits(kind: str, room_id: str, target: str) -> None:
    """Check the rate limits of a change to this membership by a state event.

    Raises M_LIMIT_EXCEEDED.
    """
    if kind == "invite":
        _check_invite_limits(room_id, target)
    else:
        limit = "rc_joins.local" if kind in {"join", "knock"} else "rc_message"
        authentication.rate_limits().check(limit, requester().user_id)


def _check_invite_limits(room_id: str, target: str) -> None:
    limits = authentication.rate_limits()
    # the issuer's first: a user who has used that up can't use up the limits of others
    limits.check("rc_invites.per_issuer", requester().user_id)
    limits.check("rc_invites.per_room", room_id)
    limits.check("rc_invites.per_user", target)


def check_guest(content: Json, *, is_own: bool) -> None:
    """Check a membership that a guest wants to set.

    Guests may set state as far as the room lets them, but not invite, knock, kick or ban that way,
    nor show an avatar. Raises M_GUEST_ACCESS_FORBIDDEN.
    """
    is_allowed = is_own and content.get("membership") in ("join", "leave")  # it may be any JSON
    if not is_allowed or "avatar_url" in content:
        raise errors.guest_access_forbidden("Guests only join, leave, and change their name")


def join(room_id_or_alias: str) -> Json:
    """Join a room by id or alias, for all paths that do so."""
    given = room_send.event_content(may_be_empty=True)
    body = http.convert(given, OwnChange)
    # Deviates: the specification puts only `reason` of the body into the event. Other servers put
    # all of it there, as a client could by setting the state itself.
    content = {key: value for key, value in given.items() if key not in NOT_FOR_THE_EVENT}
    if body.reason is None:
        content.pop("reason", None)
    if requester().is_shadow_banned:
        content = {}
    if requester().is_guest:
        check_guest({**content, "membership": "join"}, is_own=True)
    signed = body.third_party_signed
    if signed is not None:
        http.convert(signed, ThirdPartySigned)
    user_id = requester().user_id
    authentication.rate_limits().check("rc_joins.local", user_id)
    room_id, named = find_room(room_id_or_alias)
    with homeserver.database.read() as tx:
        is_here = joined_rooms.may_join_here(tx, room_id, user_id)
        servers = outside_rooms.servers_for(tx, room_id, user_id, named)
    if is_here or not servers:
        try:
            with homeserver.database.write() as tx:
                if signed is not None:
                    third_party_invites.accept(tx, room_id, user_id, str(signed["sender"]), signed)
                membership.join(tx, room_id, user_id, content)
                return {"room_id": room_id}
        except MatrixError as refusal:
            if refusal.errcode != "M_UNABLE_TO_GRANT_JOIN":  # which other servers may be able to
                raise
    with homeserver.database.read() as tx:
        content = membership.with_profile(tx, user_id, content)
    homeserver.joins.join(JoinRequest(room_id, user_id, content, servers, named))
    return {"room_id": room_id}


def find_room(room_id_or_alias: str) -> tuple[str, list[str]]:
    """Return the id of a room, and the servers by which it may be joined, as the request says."""
    named = [*request.args.getlist("via"), *request.args.getlist("server_name")]
    if identifiers.is_room_id(room_id_or_alias):
        return room_id_or_alias, named
    aliases.check(room_id_or_alias)
    server = homeserver.server
    if server.config.federation and identifiers.server_name(room_id_or_alias) != server.name:
        found = homeserver.remote_queries.alias(room_id_or_alias)
        return found.room_id, [*found.servers, *named]
    appservice_queries.ensure_alias(homeserver.database, room_id_or_alias)
    with homeserver.database.read() as tx:
        return aliases.room_of(tx, room_id_or_alias), named


def _own_change() -> OwnChange:
    """Return the body of a change to one's own membership; clients may leave it out."""
    return http.convert(room_send.event_content(may_be_empty=True), OwnChange)


def _reason(reason: str | None) -> Json:
    return {} if reason is None or requester().is_shadow_banned else {"reason": reason}


MEMBERSHIPS = ("ban", "invite", "join", "knock", "leave")


@bp.get("/rooms/<room_id>/members")
@authenticated(guests=True)
def get_members_by_room(room_id: str) -> Json:
    """Return the member events of a room, now or at the time of a token."""
    me = requester()
    at = request.args.get("at")
    membership, not_membership = _membership("membership"), _membership("not_membership")
    partial_rooms.wait_until_full(homeserver.database, room_id)
    with homeserver.database.read() as tx:
        events = members.members(
            tx,
            me.user_id,
            room_id,
            at=SyncToken.parse(at, tx.position).position if at else None,
            membership=membership,
            not_membership=not_membership,
        )
        return {"chunk": client_events.encode_state(tx, me, events)}


@bp.get("/rooms/<room_id>/joined_members")
@authenticated()
def get_joined_members_by_room(room_id: str) -> Json:
    """Return names and avatars of the joined members of a room."""
    partial_rooms.wait_until_full(homeserver.database, room_id)
    with homeserver.database.read() as tx:
        return {"joined": members.joined(tx, requester().user_id, room_id)}


def _membership(name: str) -> str | None:
    value = request.args.get(name)
    if value is not None and value not in MEMBERSHIPS:
        raise errors.invalid_param(f"{name} must be one of {', '.join(MEMBERSHIPS)}")
    return value
