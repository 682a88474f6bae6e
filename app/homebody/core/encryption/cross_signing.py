"""Cross-signing keys, with which users verify their own devices and other users.

A user has three. The master key is the user's identity and signs the other two. The self-signing
key signs the user's devices; the user-signing key, which only its user can see, signs other users'
master keys. Devices may sign their own user's master key.

Uploading the first set needs only a session. Replacing it requires user-interactive authentication,
so that a stolen access token can't make other users trust another device.

This module alone writes the table cross_signing_keys.
Spec: client-server-api#cross-signing
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core.encryption import (
    device_list_changes,
    device_updates,
    key_signatures,
    remote_devices,
)
from homebody.core.encryption.key_signatures import PREFIX, Signatures
from homebody.models.cross_signing import CrossSigningKey
from homebody.models.devices import Device
from homebody.spec import signing
from homebody.spec.events import Json
from homebody.spec.signing import VerifyKey
from homebody.storage.database import Reader, Tx
from homebody.storage.expressions import batches

MASTER: Final = "master"
SELF_SIGNING: Final = "self_signing"
USER_SIGNING: Final = "user_signing"
USAGES: Final = (MASTER, SELF_SIGNING, USER_SIGNING)
MAX_OBJECTS: Final = 500
"""Objects, users or signatures in one request. Verifying takes 0.1 ms each, while all other writers
wait."""

Failures = dict[str, dict[str, Json]]
"""{user_id: {device ID or public key: {errcode, error}}}"""

_UPSERT = insert(CrossSigningKey)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "usage"],
    set_={"public_key": _UPSERT.excluded.public_key, "key": _UPSERT.excluded.key},
)
_OF_USERS = select(
    CrossSigningKey.user_id, CrossSigningKey.usage, CrossSigningKey.public_key, CrossSigningKey.key
).where(CrossSigningKey.user_id.in_(bindparam("user_ids", expanding=True)))
_IS_KEY = select(CrossSigningKey.usage).where(
    CrossSigningKey.user_id == bindparam("user_id"),
    CrossSigningKey.public_key == bindparam("public_key"),
)
_DEVICES_NAMED = select(Device.device_id).where(
    Device.user_id == bindparam("user_id"),
    Device.device_id.in_(bindparam("device_ids", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A cross-signing key with its JSON object."""

    public_key: str
    """Unpadded base64."""
    bare: Json
    """The uploaded object without signatures."""

    @property
    def key_id(self) -> str:
        """The key ID of its signatures."""
        return PREFIX + self.public_key

    @property
    def verify_key(self) -> VerifyKey:
        """The key that verifies its signatures."""
        return signing.verify_key_from_base64(self.public_key)


def needs_authentication(tx: Reader, user_id: str, keys: dict[str, Json]) -> bool:
    """Return whether uploading these keys, {usage: object}, needs authentication.

    It does if they replace existing keys. Raises M_INVALID_PARAM or M_BAD_JSON for an invalid key,
    M_MISSING_PARAM without a master key, M_INVALID_SIGNATURE for a key that is not signed by the
    master key, M_FORBIDDEN for a key that equals the id of a device.
    """
    stored = _stored(tx, user_id)
    given = _check(tx, user_id, keys, stored)
    return MASTER in stored and any(stored.get(usage) != key for usage, key in given.items())


def upload(tx: Tx, user_id: str, keys: dict[str, Json], *, is_authenticated: bool) -> None:
    """Store the user's keys, {usage: object}, with their signatures.

    Raises the errors of `needs_authentication`, and M_FORBIDDEN if authentication has become
    necessary because other keys were uploaded at the same time.
    """
    if needs_authentication(tx, user_id, keys) and not is_authenticated:
        raise errors.forbidden("Other cross-signing keys were uploaded at the same time")
    stored = _stored(tx, user_id)
    given = _check(tx, user_id, keys, stored)
    _drop(tx, user_id, _replaced(stored, given))
    for usage, key in given.items():
        text = orjson.dumps(key.bare).decode()
        row = {"user_id": user_id, "usage": usage, "public_key": key.public_key, "key": text}
        tx.sql.execute(_UPSERT, row)
    master = given.get(MASTER) or stored[MASTER]
    for usage, key in given.items():
        signers = {master.key_id: master.verify_key}
        if usage == MASTER:  # may be signed by the user's own devices
            signers = key_signatures.signing_keys(key_signatures.device_objects(tx, user_id))
        signatures = key_signatures.valid_signatures(keys[usage], user_id, signers)
        key_signatures.put(tx, (user_id, key.public_key), user_id, signatures)
    if any(stored.get(usage) != key for usage, key in given.items()):
        device_list_changes.note_change(tx, user_id)
        if given.keys() != {USER_SIGNING}:
            _send_to_servers(tx, user_id)


def upload_signatures(tx: Tx, user_id: str, signed: dict[str, dict[str, Json]]) -> Failures:
    """Store the signatures of these objects, {user_id: {device ID or public key: object}}.

    Returns failures per object; the other objects are stored. Raises M_TOO_LARGE.
    """
    every = [one for objects in signed.values() for one in objects.values()]
    count = sum(len(key_signatures.signatures_of(one, user_id)) for one in every)
    if max(len(signed), len(every), count) > MAX_OBJECTS:
        raise errors.too_large(f"At most {MAX_OBJECTS} users, objects and signatures at once")
    signable = _Signable(tx, user_id, list(signed))
    failures: Failures = {}
    for owner_id, objects in signed.items():
        for name, claimed in objects.items():
            try:
                signatures = _signatures(signable, owner_id, name, claimed)
            except errors.MatrixError as error:
                failures.setdefault(owner_id, {})[name] = error.body
            else:
                key_signatures.put(tx, (owner_id, name), user_id, signatures)
    _tell(tx, user_id, signed, failures)
    return failures


def keys_of(tx: Reader, requester_id: str, user_ids: Collection[str]) -> dict[str, dict[str, Json]]:
    """Return {"master_keys": {user_id: key}, "self_signing_keys": …, "user_signing_keys": …}.

    Only with signatures visible to the requester, and only the requester's own user-signing key.
    """
    signatures = key_signatures.visible(tx, requester_id, user_ids)
    found: dict[str, dict[str, Json]] = {f"{usage}_keys": {} for usage in USAGES}
    for row in _rows(tx, user_ids):
        if row.usage == USER_SIGNING and row.user_id != requester_id:
            continue
        key = orjson.loads(row.key)
        on_key = signatures.get(row.user_id, {}).get(row.public_key)
        found[f"{row.usage}_keys"][row.user_id] = key | ({"signatures": on_key} if on_key else {})
    return found


def signatures_on_devices(
    tx: Reader, user_ids: Collection[str]
) -> dict[str, dict[str, Signatures]]:
    """Return {user_id: {device_id: signatures}} made by the users' own self-signing keys.

    It also has the signatures of cross-signing keys by public key, which is never a device ID.
    """
    return key_signatures.visible(tx, "", user_ids)


def all_of(tx: Reader, user_ids: Collection[str]) -> dict[str, dict[str, PublicKey]]:
    """Return {user_id: {usage: key}}."""
    found: dict[str, dict[str, PublicKey]] = {}
    for row in _rows(tx, user_ids):
        found.setdefault(row.user_id, {})[row.usage] = PublicKey(
            row.public_key, orjson.loads(row.key)
        )
    return found


def is_public_key(tx: Reader, user_id: str, text: str) -> bool:
    """Return whether the user has this public key, which then can't be a device ID."""
    key = {"user_id": user_id, "public_key": text}
    return tx.sql.execute(_IS_KEY, key).first() is not None


def erase(tx: Tx, user_id: str) -> None:
    """Delete keys and signatures of an account that is being deactivated."""
    key_signatures.erase(tx, user_id)
    tx.sql.execute(delete(CrossSigningKey).where(CrossSigningKey.user_id == user_id))


def _rows(tx: Reader, user_ids: Collection[str]) -> list[Row[*tuple[Any, ...]]]:
    parts = batches(user_ids, key_signatures.IDS_AT_ONCE)
    return [row for some in parts for row in tx.sql.execute(_OF_USERS, {"user_ids": some})]


def _stored(tx: Reader, user_id: str) -> dict[str, PublicKey]:
    return all_of(tx, [user_id]).get(user_id, {})


def _check(
    tx: Reader, user_id: str, keys: dict[str, Json], stored: dict[str, PublicKey]
) -> dict[str, PublicKey]:
    given = {usage: _public_key(user_id, usage, key) for usage, key in keys.items()}
    master = given.get(MASTER) or stored.get(MASTER)
    if master is None:
        raise errors.missing_param("There is no master key")
    for usage in given.keys() - {MASTER}:
        key_signatures.verify(keys[usage], user_id, master.key_id, master.verify_key)
    names = {"user_id": user_id, "device_ids": [key.public_key for key in given.values()]}
    if tx.sql.execute(_DEVICES_NAMED, names).first() is not None:
        raise errors.forbidden("One of these keys equals the id of one of your devices")
    return given


def _public_key(user_id: str, usage: str, key: Json) -> PublicKey:
    """Validate the contents of a key object and return its key."""
    if key["user_id"] != user_id:
        raise errors.invalid_param(f"The {usage} key is not yours")
    if usage not in key["usage"]:
        raise errors.invalid_param(f"The {usage} key is for another usage")
    if len(key["keys"]) != 1:
        raise errors.invalid_param(f"The keys of the {usage} key must have one entry")
    ((key_id, public_key),) = key["keys"].items()
    try:
        verify_key = signing.verify_key_from_base64(public_key)
    except ValueError:
        raise errors.invalid_param(f"The {usage} key is not an ed25519 key in base64") from None
    # base64 may encode the same key in several ways, but a key must have one id
    if signing.verify_key_to_base64(verify_key) != public_key or key_id != PREFIX + public_key:
        raise errors.invalid_param(f"The id of the {usage} key must be ed25519:<the key>")
    key_signatures.check_form(key)
    return PublicKey(public_key, key_signatures.signed_part(key))


def _replaced(stored: dict[str, PublicKey], given: dict[str, PublicKey]) -> dict[str, PublicKey]:
    """Return the stored keys to delete; a new master key invalidates the others too."""
    new_master = given.get(MASTER, stored.get(MASTER))
    if stored.get(MASTER) not in (None, new_master):
        return {usage: key for usage, key in stored.items() if given.get(usage) != key}
    return {usage: key for usage, key in stored.items() if given.get(usage, key) != key}


def _drop(tx: Tx, user_id: str, keys: dict[str, PublicKey]) -> None:
    if not keys:
        return
    key_signatures.remove(tx, user_id, [key.public_key for key in keys.values()])
    tx.sql.execute(
        delete(CrossSigningKey).where(
            CrossSigningKey.user_id == user_id, CrossSigningKey.usage.in_(keys)
        )
    )


class _Signable:
    """The objects that the user may sign, and the keys that may sign them."""

    def __init__(self, tx: Tx, user_id: str, owner_ids: list[str]) -> None:
        self.user_id = user_id
        self._keys = all_of(tx, {user_id, *owner_ids}) | _remote_keys(tx, owner_ids)
        self._devices = key_signatures.device_objects(tx, user_id)

    def find(self, owner_id: str, name: str) -> tuple[Json, dict[str, VerifyKey]]:
        """Return (bare object, {key_id: key that may sign it}). Raises M_NOT_FOUND."""
        master = self._key(owner_id, MASTER)
        if master is not None and name == master.public_key:
            if owner_id == self.user_id:
                return master.bare, key_signatures.signing_keys(self._devices)
            return master.bare, self._own(USER_SIGNING)
        if owner_id == self.user_id and name in self._devices:
            return self._devices[name], self._own(SELF_SIGNING)
        raise errors.not_found("There is no such key, or you may not sign it")

    def _own(self, usage: str) -> dict[str, VerifyKey]:
        key = self._key(self.user_id, usage)
        return {} if key is None else {key.key_id: key.verify_key}

    def _key(self, user_id: str, usage: str) -> PublicKey | None:
        return self._keys.get(user_id, {}).get(usage)


def _remote_keys(tx: Tx, user_ids: list[str]) -> dict[str, dict[str, PublicKey]]:
    """Return the master keys of users of other servers, as far as they are kept."""
    remote = [user_id for user_id in user_ids if not tx.server.is_local(user_id)]
    found = {}
    for user_id, key in remote_devices.master_keys(tx, remote).items():
        ((key_id, public_key),) = key["keys"].items()
        if key_id == PREFIX + public_key:
            found[user_id] = {MASTER: PublicKey(public_key, key_signatures.signed_part(key))}
    return found


def _signatures(signable: _Signable, owner_id: str, name: str, claimed: Json) -> dict[str, str]:
    """Return the verified signatures of an uploaded object, {key_id: signature}."""
    known, signers = signable.find(owner_id, name)
    if key_signatures.signed_part(claimed) != known:
        raise errors.invalid_param("The signed object differs from the one on the server")
    signatures = key_signatures.valid_signatures(claimed, signable.user_id, signers)
    if not signatures:
        raise errors.invalid_signature("The object has no signature by a key that may sign it")
    return signatures


def _tell(tx: Tx, user_id: str, signed: dict[str, dict[str, Json]], failures: Failures) -> None:
    """Update the device lists: of all users for own keys, else of the user's devices only."""
    taken = {owner for owner in signed if len(failures.get(owner, {})) < len(signed[owner])}
    if user_id in taken:
        names = signed[user_id].keys() - failures.get(user_id, {}).keys()
        keys = {name for name in names if is_public_key(tx, user_id, name)}
        device_list_changes.note_change(tx, user_id, names - keys)
        if keys:
            _send_to_servers(tx, user_id)
    if taken - {user_id}:
        device_list_changes.note_signature(tx, user_id)


def _send_to_servers(tx: Tx, user_id: str) -> None:
    """Send the user's public keys to the servers that share a room."""
    if tx.server.config.federation:
        found = keys_of(tx, "", [user_id])
        keys = {
            f"{usage}_key": found[f"{usage}_keys"][user_id]
            for usage in (MASTER, SELF_SIGNING)
            if user_id in found[f"{usage}_keys"]
        }
        device_updates.send_signing_keys(tx, user_id, keys)
