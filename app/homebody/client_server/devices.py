"""The devices of a user: listing, renaming and deleting them.

Spec: client-server-api#device-management
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody.client_server import http, interactive
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.sessions import appservice_users, devices
from homebody.spec.events import Json

bp = Blueprint("devices", __name__)


class Rename(msgspec.Struct):
    """The body of PUT /devices/{deviceId}."""

    display_name: str | None = None


class DeleteDevices(msgspec.Struct):
    """The body of POST /delete_devices."""

    devices: list[str]


@bp.get("/devices")
@authenticated(guests=True)
def get_devices() -> Json:
    """Return all devices of the user.

    Spec: client-server-api#get_matrixclientv3devices
    """
    last_seen = homeserver.last_seen
    with homeserver.database.read() as tx:
        return {"devices": devices.all_of(tx, requester().user_id, last_seen)}


@bp.get("/devices/<device_id>")
@authenticated(guests=True)
def get_device(device_id: str) -> Json:
    """Return one device of the user.

    Spec: client-server-api#get_matrixclientv3devicesdeviceid
    """
    with homeserver.database.read() as tx:
        return devices.get(tx, requester().user_id, device_id, homeserver.last_seen)


@bp.put("/devices/<device_id>")
@authenticated(guests=True, suspended=True)
def update_device(device_id: str) -> Json | tuple[Json, int]:
    """Rename a device; application services also create one (201).

    Spec: client-server-api#put_matrixclientv3devicesdeviceid
    """
    body = http.body_as(Rename)
    me = requester()
    with homeserver.database.write() as tx:
        if me.service is None:
            devices.rename(tx, me.user_id, device_id, body.display_name)
            return {}
        is_new = appservice_users.put_device(tx, me.user_id, device_id, body.display_name)
    return {}, 201 if is_new else 200


@bp.delete("/devices/<device_id>")
@authenticated(suspended=True)
def delete_device(device_id: str) -> Json:
    """Delete a device and end its session, after the password was proved.

    Spec: client-server-api#delete_matrixclientv3devicesdeviceid
    """
    interactive.require_password(http.json_object(may_be_empty=True))
    me = requester()
    devices.remove_most(homeserver.database, me.user_id, [device_id])
    with homeserver.database.write() as tx:
        devices.remove(tx, me.user_id, [device_id])
    return {}


@bp.post("/delete_devices")
@authenticated(suspended=True)
def delete_devices() -> Json:
    """Delete several devices and end their sessions, after the password was proved.

    Spec: client-server-api#post_matrixclientv3delete_devices
    """
    body = http.json_object()
    wanted = http.convert(body, DeleteDevices)
    interactive.require_password(body)
    me = requester()
    devices.remove_most(homeserver.database, me.user_id, wanted.devices, last=me.device_id)
    with homeserver.database.write() as tx:
        devices.remove(tx, me.user_id, wanted.devices)
    return {}
