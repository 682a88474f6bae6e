"""Sending messages to devices.

Spec: client-server-api#send-to-device-messaging
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context, errors
from homebody.client_server import http
from homebody.client_server.authentication import authenticated, requester
from homebody.core.encryption import to_device
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("to_device", __name__)


class SendToDevice(msgspec.Struct):
    """The body of /sendToDevice."""

    messages: dict[str, dict[str, Json]]


@bp.put("/sendToDevice/<event_type>/<txn_id>")
@authenticated(guests=True, suspended=True)
def send_to_device(event_type: str, txn_id: str) -> Json:
    """Send each of these devices its message.

    Spec: client-server-api#put_matrixclientv3sendtodeviceeventtypetxnid
    """
    messages = http.body_as(SendToDevice, max_bytes=http.MAX_LARGE_BODY_BYTES).messages
    if not all(map(identifiers.is_user_id, messages)):
        raise errors.invalid_param("The keys of messages are user ids")
    to_device.check(messages)
    me = requester()
    with context.db().read() as reading:
        parts = to_device.parts(reading, me, event_type, messages)
    for number, part in enumerate(parts, start=1):
        with context.db().write() as tx:
            to_device.send(tx, me, event_type, txn_id, part, is_last=number == len(parts))
    return {}
