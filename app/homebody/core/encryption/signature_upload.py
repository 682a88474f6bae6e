"""Uploaded signatures of the user's devices and master key, and of other users' master keys.

The self-signing key may sign devices of the same user, a device its user's master key, and the
user-signing key other users' master keys.
Spec: client-server-api#cross-signing
"""

from __future__ import annotations

from typing import Final

from homebody import errors
from homebody.core.encryption import (
    cross_signing,
    device_list_changes,
    key_signatures,
    signature_checks,
)
from homebody.core.encryption.cross_signing import MASTER, SELF_SIGNING, USER_SIGNING, PublicKey
from homebody.spec.events import Json
from homebody.spec.signing import VerifyKey
from homebody.storage.database import Tx

MAX_OBJECTS: Final = 500
"""Objects, users or signatures in one request. Verifying takes 0.1 ms each, while all other writers
wait."""

Failures = dict[str, dict[str, Json]]
"""{user_id: {device id or public key: {errcode, error}}}"""


def upload(tx: Tx, user_id: str, signed: dict[str, dict[str, Json]]) -> Failures:
    """Store the signatures of these objects, {user_id: {device id or public key: object}}.

    Returns failures per object; the other objects are stored. Raises M_TOO_LARGE.
    """
    every = [one for objects in signed.values() for one in objects.values()]
    count = sum(len(signature_checks.signatures_of(one, user_id)) for one in every)
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


class _Signable:
    """The objects that the user may sign, and the keys that may sign them."""

    def __init__(self, tx: Tx, user_id: str, owner_ids: list[str]) -> None:
        self.user_id = user_id
        self._keys = cross_signing.all_of(tx, {user_id, *owner_ids})
        self._devices = signature_checks.devices(tx, user_id)

    def find(self, owner_id: str, name: str) -> tuple[Json, dict[str, VerifyKey]]:
        """Return (bare object, {key_id: key that may sign it}). Raises M_NOT_FOUND."""
        master = self._key(owner_id, MASTER)
        if master is not None and name == master.public_key:
            if owner_id == self.user_id:
                return master.bare, signature_checks.signing_keys(self._devices)
            return master.bare, self._own(USER_SIGNING)
        if owner_id == self.user_id and name in self._devices:
            return self._devices[name], self._own(SELF_SIGNING)
        raise errors.not_found("There is no such key, or you may not sign it")

    def _own(self, usage: str) -> dict[str, VerifyKey]:
        key = self._key(self.user_id, usage)
        return {} if key is None else {key.key_id: key.verify_key}

    def _key(self, user_id: str, usage: str) -> PublicKey | None:
        return self._keys.get(user_id, {}).get(usage)


def _signatures(signable: _Signable, owner_id: str, name: str, claimed: Json) -> dict[str, str]:
    """Return the verified signatures of an uploaded object, {key_id: signature}."""
    known, signers = signable.find(owner_id, name)
    if signature_checks.bare(claimed) != known:
        raise errors.invalid_param("The signed object differs from the one on the server")
    signatures = signature_checks.valid(claimed, signable.user_id, signers)
    if not signatures:
        raise errors.invalid_signature("The object has no signature by a key that may sign it")
    return signatures


def _tell(tx: Tx, user_id: str, signed: dict[str, dict[str, Json]], failures: Failures) -> None:
    """Update the device lists: of all users for own keys, else of the user's devices only."""
    taken = {owner for owner in signed if len(failures.get(owner, {})) < len(signed[owner])}
    if user_id in taken:
        device_list_changes.note_change(tx, user_id)
    if taken - {user_id}:
        device_list_changes.note_signature(tx, user_id)
