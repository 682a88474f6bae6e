"""Dehydrated devices. Clients use the paths with "unstable", which web/middleware.py makes v3.

Deviates: this is not in the specification; it is the proposal MSC3814 as matrix-js-sdk and
matrix-rust-sdk use it.
"""

from __future__ import annotations

import msgspec
import orjson
from flask import Blueprint, request

from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.client_server.keys import DeviceKeys, SignedKey
from homebody.context import homeserver
from homebody.core.sessions import dehydrated_devices
from homebody.core.sync.spans import SyncToken
from homebody.spec.events import Json

bp = Blueprint(
    "dehydrated_devices", __name__, url_prefix="/_matrix/client/v3/org.matrix.msc3814.v1"
)


class DeviceData(msgspec.Struct):
    """The encrypted private keys, of which the server reads only the algorithm."""

    algorithm: str


class Upload(msgspec.Struct):
    """The body of an upload."""

    device_id: str
    device_data: DeviceData
    device_keys: DeviceKeys
    initial_device_display_name: str | None = None
    one_time_keys: dict[str, SignedKey | str] | None = None
    fallback_keys: dict[str, SignedKey | str] | None = None


class MoreEvents(msgspec.Struct):
    """The body of a request for messages."""

    next_batch: str | None = None


@bp.put("/dehydrated_device")
@authenticated(suspended=True)
def put_dehydrated_device() -> Json:
    """Store a dehydrated device in place of the previous one."""
    body = http.json_object()
    checked = http.convert(body, Upload)
    upload = dehydrated_devices.Upload(
        checked.device_id,
        body["device_data"],
        body["device_keys"],
        body.get("one_time_keys") or {},
        body.get("fallback_keys") or {},
        checked.initial_device_display_name,
    )
    with homeserver.database.write() as tx:
        dehydrated_devices.put(tx, requester().user_id, upload)
    return {"device_id": upload.device_id}


@bp.get("/dehydrated_device")
@authenticated()
def get_dehydrated_device() -> Json:
    """Return the dehydrated device."""
    with homeserver.database.read() as tx:
        return dehydrated_devices.get(tx, requester().user_id)


@bp.delete("/dehydrated_device")
@authenticated(suspended=True)
def delete_dehydrated_device() -> Json:
    """Delete the dehydrated device."""
    with homeserver.database.write() as tx:
        return {"device_id": dehydrated_devices.remove(tx, requester().user_id)}


@bp.get("/dehydrated_device/<device_id>/events")
@authenticated()
def get_dehydrated_device_events(device_id: str) -> Json:
    """Return messages to the device after `from`; next_batch is present while there are more."""
    events, token = _events(device_id, request.args.get("from"))
    return {"events": events} if token is None else {"events": events, "next_batch": str(token)}


@bp.post("/dehydrated_device/<device_id>/events")
@authenticated(suspended=True)
def post_dehydrated_device_events(device_id: str) -> Json:
    """Return messages to the device, for clients that POST until a response has no events."""
    since = http.body_as(MoreEvents).next_batch
    events, token = _events(device_id, since)
    if token is None:
        with homeserver.database.read() as tx:
            token = SyncToken(tx.position)
    return {"events": events, "next_batch": str(token)}


def _events(device_id: str, since: str | None) -> tuple[list[orjson.Fragment], SyncToken | None]:
    """Return the messages after a token, and the next token if there are more."""
    with homeserver.database.read() as tx:
        position = SyncToken.parse(since, tx.position).position if since else 0
        found = dehydrated_devices.messages(tx, requester().user_id, device_id, position)
    return found.events, None if found.truncated_after is None else SyncToken(found.truncated_after)
