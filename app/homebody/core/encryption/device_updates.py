"""What other servers are sent of changes of local users' devices and cross-signing keys.

All servers that share a room with the user get each change, reliably and in order. A change of a
device names the one before it, so that a server which has missed one notices that, and fetches the
whole list.

Spec: server-server-api#device-management, server-server-api#end-to-end-encryption
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

import orjson
from sqlalchemy import bindparam, select

from homebody.core import outgoing
from homebody.core.encryption import key_signatures
from homebody.core.encryption.key_signatures import Signatures
from homebody.core.events import state
from homebody.models.device_keys import DeviceKeys
from homebody.models.devices import Device
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

_DEVICES: Final = "m.device_list_update"
_SIGNING_KEYS: Final = "m.signing_key_update"

_KEYS = (
    select(DeviceKeys.device_id, DeviceKeys.device_keys, Device.display_name)
    .join(
        Device,
        (Device.user_id == DeviceKeys.user_id) & (Device.device_id == DeviceKeys.device_id),
        isouter=True,
    )
    .where(
        DeviceKeys.user_id == bindparam("user_id"),
        DeviceKeys.device_id.in_(bindparam("device_ids", expanding=True)),
    )
)
_ANY_DEVICE = (
    select(DeviceKeys.device_id)
    .where(DeviceKeys.user_id == bindparam("user_id"))
    .order_by(DeviceKeys.device_id)
    .limit(1)
)


class DeviceChange(NamedTuple):
    """A change of a device: new keys, another name, or its end."""

    device_id: str
    stream_id: int
    """Of the change: larger than those of all earlier changes of the user's devices."""
    prev_id: int | None
    """Of the change before it; None if there was none, or the server can't know it."""


def send_devices(tx: Tx, user_id: str, changes: Collection[DeviceChange]) -> None:
    """Send changes of devices to all servers that share a room with the user."""
    _send_devices(tx, servers(tx, user_id), user_id, changes)


def send_signing_keys(tx: Tx, user_id: str, keys: Json) -> None:
    """Send the cross-signing keys, {"master_key": …, "self_signing_key": …}, to these servers."""
    if keys:
        outgoing.send_edu(tx, servers(tx, user_id), _SIGNING_KEYS, {"user_id": user_id, **keys})


def send_to_new_servers(
    tx: Tx, user_id: str, room_id: str, stream_id: int, known: Collection[str] = ()
) -> None:
    """Notify servers with which a user shares a room only since joining this one.

    Those in `known` are notified already. One that has an old list of the user notices that changes
    are missing.
    """
    new = set(state.joined(tx, room_id).servers) - {tx.server.name, *known}
    if not new:
        return
    new -= servers(tx, user_id, but=room_id)
    device_id = tx.sql.execute(_ANY_DEVICE, {"user_id": user_id}).scalar()
    if new and device_id is not None:
        _send_devices(tx, new, user_id, [DeviceChange(device_id, stream_id, None)])


def servers(tx: Reader, user_id: str, *, but: str | None = None) -> set[str]:
    """Return the other servers that share a room with a user, not counting the room `but`."""
    found: set[str] = set()
    for room_id in state.joined_rooms(tx, user_id):
        if room_id != but:
            found.update(state.joined(tx, room_id).servers)
    return found - {tx.server.name}


def with_signatures(keys: Json, added: Signatures) -> Json:
    """Add the signatures that were made by other keys of the user to those in an object."""
    signatures = keys["signatures"]
    for signer, by_key in added.items():
        signatures[signer] = signatures.get(signer, {}) | by_key
    return keys


def _send_devices(
    tx: Tx, servers: Collection[str], user_id: str, changes: Collection[DeviceChange]
) -> None:
    if servers:
        for content in _contents(tx, user_id, changes):
            outgoing.send_edu(tx, servers, _DEVICES, content)


def _contents(tx: Reader, user_id: str, changes: Collection[DeviceChange]) -> Iterable[Json]:
    asked = {"user_id": user_id, "device_ids": [it.device_id for it in changes]}
    known = {row.device_id: row for row in tx.sql.execute(_KEYS, asked)}
    signatures = key_signatures.visible(tx, "", [user_id]).get(user_id, {})
    for device_id, stream_id, prev_id in changes:
        content: Json = {
            "user_id": user_id,
            "device_id": device_id,
            "stream_id": stream_id,
            "prev_id": [] if prev_id is None else [prev_id],
        }
        row = known.get(device_id)
        if row is None:
            content["deleted"] = True
        else:
            keys = orjson.loads(row.device_keys)
            content["keys"] = with_signatures(keys, signatures.get(device_id, {}))
            if row.display_name is not None:
                content["device_display_name"] = row.display_name
        yield content
