"""The keys of users of another server, as that server responds to queries and claims.

What is malformed, or was not requested, is left out.

Spec: server-server-api#device-management, server-server-api#end-to-end-encryption
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from homebody.spec import canonical_json, edus
from homebody.spec.events import Json

MAX_KEYS_BYTES: Final = 65_536
"""The size of the keys of a device, or of a cross-signing key, as for those of local users."""
MAX_DEVICES: Final = 5_000
"""Of one user."""

OneTimeKey = str | Json


class RemoteDevice(NamedTuple):
    """A device with keys."""

    keys: Json
    """As signed by the device, with the signatures of its user."""
    display_name: str | None


class DeviceList(NamedTuple):
    """The devices of a user that have keys, and the user's cross-signing keys."""

    devices: dict[str, RemoteDevice]
    """By device ID."""
    master_key: Json | None = None
    self_signing_key: Json | None = None
    stream_id: int | None = None
    """The last change that is in it; None if the server does not say."""


def of_users(response: Any, user_ids: Collection[str]) -> dict[str, DeviceList]:
    """Read the response to a query of keys; unknown users are left out."""
    given = _object(response)
    devices = _object(given.get("device_keys"))
    masters, self_signing = (
        _object(given.get(f"{usage}_keys")) for usage in ("master", "self_signing")
    )
    return {
        user_id: DeviceList(
            _devices(user_id, _object(devices.get(user_id)).items()),
            cross_signing_key(masters.get(user_id), user_id, "master"),
            cross_signing_key(self_signing.get(user_id), user_id, "self_signing"),
        )
        for user_id in user_ids
        if user_id in devices or user_id in masters
    }


def of_user(response: Any, user_id: str) -> DeviceList:
    """Read the response to a request for all devices of one user."""
    given = _object(response)
    stream_id = given.get("stream_id")
    listed = given.get("devices")
    devices = [
        (it["device_id"], _named(it))
        for it in (listed if isinstance(listed, list) else [])
        if isinstance(it, dict) and isinstance(it.get("device_id"), str)
    ]
    return DeviceList(
        _devices(user_id, devices),
        cross_signing_key(given.get("master_key"), user_id, "master"),
        cross_signing_key(given.get("self_signing_key"), user_id, "self_signing"),
        stream_id if edus.is_integer(stream_id) else None,
    )


def claimed(
    response: Any, wanted: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, dict[str, OneTimeKey]]]:
    """Read the response to a claim of {user_id: {device_id: algorithm}}.

    Return {user_id: {device_id: {"algorithm:id": key}}}, with one key of each device.
    """
    given = _object(_object(response).get("one_time_keys"))
    found: dict[str, dict[str, dict[str, OneTimeKey]]] = {}
    for user_id, devices in wanted.items():
        by_device = _object(given.get(user_id))
        for device_id, algorithm in devices.items():
            for name, key in _object(by_device.get(device_id)).items():
                if name.startswith(f"{algorithm}:") and _is_one_time_key(key):
                    found.setdefault(user_id, {})[device_id] = {name: key}
                    break
    return found


def cross_signing_key(key: Any, user_id: str, usage: str) -> Json | None:
    """Return a key with the signatures of its user, or None if it is malformed or too large.

    Signatures of other users are left out: they say who has verified whom.
    """
    if not edus.is_cross_signing_key(key, user_id, usage) or not _fits(key):
        return None
    return _signed_by(user_id, key)


def device_keys(keys: Any, user_id: str, device_id: str) -> Json | None:
    """Return the keys of a device with the signatures of its user; None if they are malformed."""
    if not edus.is_device_keys(keys, user_id, device_id) or not _fits(keys):
        return None
    return _signed_by(user_id, keys)


def _devices(user_id: str, listed: Collection[tuple[str, Any]]) -> dict[str, RemoteDevice]:
    found: dict[str, RemoteDevice] = {}
    for device_id, given in listed:
        keys = device_keys(given, user_id, device_id)
        if keys is not None and len(found) < MAX_DEVICES:
            name = _object(given.get("unsigned")).get("device_display_name")
            found[device_id] = RemoteDevice(keys, name if isinstance(name, str) else None)
    return found


def _named(device: Json) -> Any:
    """Return a device's keys with its name where responses to queries have it."""
    keys, name = device.get("keys"), device.get("device_display_name")
    if not isinstance(keys, dict) or not isinstance(name, str):
        return keys
    return {**keys, "unsigned": {"device_display_name": name}}


def _signed_by(user_id: str, signed: Json) -> Json:
    bare = {key: value for key, value in signed.items() if key not in {"signatures", "unsigned"}}
    own = _object(signed.get("signatures")).get(user_id)
    return {**bare, "signatures": {user_id: own}} if own else {**bare, "signatures": {}}


def _fits(signed: Json) -> bool:
    try:
        return len(canonical_json.encode(signed)) <= MAX_KEYS_BYTES
    except ValueError:
        return False


def _is_one_time_key(key: Any) -> bool:
    if isinstance(key, str):
        return True
    return isinstance(key, dict) and isinstance(key.get("key"), str) and _fits(key)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
