"""The devices of a user, the pushers, and from where they were used."""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import moderation
from homebody.core.administration import user_devices, users
from homebody.core.push import pushers
from homebody.spec.events import Json

bp = Blueprint("admin_devices", __name__)


class Rename(msgspec.Struct):
    """The body of PUT /devices/{device_id}."""

    display_name: str | None = None


class Create(msgspec.Struct):
    """The body of POST /devices."""

    device_id: str
    display_name: str | None = None


class Delete(msgspec.Struct):
    """The body of POST /delete_devices."""

    devices: list[str]


@bp.get("/v1/whois/<user_id>")
@authenticated()
def get_whois(user_id: str) -> Json:
    """Return from where the devices of a user were last used; users may ask about themselves.

    A tool takes the 200 for a name that nobody has for the rights of an administrator.
    """
    moderation.check_may_ask(requester(), user_id)
    users.check_local(homeserver.server, user_id)
    with homeserver.database.read() as tx:
        return moderation.whois(tx, user_id, homeserver.last_seen)


@bp.get("/v2/users/<user_id>/devices")
@authenticated(admins_only=True)
def list_devices(user_id: str) -> Json:
    """Return all devices of a user."""
    with homeserver.database.read() as tx:
        found = user_devices.all_of(tx, user_id, homeserver.last_seen)
    return {"devices": found, "total": len(found)}


@bp.post("/v2/users/<user_id>/devices")
@authenticated(admins_only=True)
def create_device(user_id: str) -> tuple[Json, int]:
    """Create a device without a token, unless the user has it already."""
    body = http.body_as(Create)
    if not body.device_id:
        raise errors.missing_param("device_id is empty")
    with homeserver.database.write() as tx:
        user_devices.create(tx, requester().user_id, user_id, body.device_id, body.display_name)
    return {}, 201


@bp.get("/v2/users/<user_id>/devices/<device_id>")
@authenticated(admins_only=True)
def get_device(user_id: str, device_id: str) -> Json:
    """Return one device of a user."""
    with homeserver.database.read() as tx:
        found = user_devices.all_of(tx, user_id, homeserver.last_seen)
    for device in found:
        if device["device_id"] == device_id:
            return device
    raise errors.not_found("The user has no such device")


@bp.put("/v2/users/<user_id>/devices/<device_id>")
@authenticated(admins_only=True)
def rename_device(user_id: str, device_id: str) -> Json:
    """Rename a device of a user."""
    body = http.body_as(Rename, may_be_empty=True)
    with homeserver.database.write() as tx:
        user_devices.rename(tx, requester().user_id, user_id, device_id, body.display_name)
    return {}


@bp.delete("/v2/users/<user_id>/devices/<device_id>")
@authenticated(admins_only=True)
def delete_device(user_id: str, device_id: str) -> Json:
    """End a session of a user."""
    user_devices.delete(homeserver.database, requester().user_id, user_id, [device_id])
    return {}


@bp.post("/v2/users/<user_id>/delete_devices")
@authenticated(admins_only=True)
def delete_devices(user_id: str) -> Json:
    """End several sessions of a user."""
    body = http.body_as(Delete)
    user_devices.delete(homeserver.database, requester().user_id, user_id, body.devices)
    return {}


@bp.get("/v1/users/<user_id>/pushers")
@authenticated(admins_only=True)
def list_pushers(user_id: str) -> Json:
    """Return the pushers of a user."""
    with homeserver.database.read() as tx:
        users.find(tx, user_id)
        found = [{"profile_tag": "", **it} for it in pushers.all_of(tx, user_id)]
    return {"pushers": found, "total": len(found)}
