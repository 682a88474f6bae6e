"""Keys of devices and users in tests: create, sign and upload them as clients do."""

from __future__ import annotations

import hashlib
from typing import Any

from nacl.signing import SigningKey

from homebody.spec import canonical_json
from tests.conftest import PASSWORD, Person

Json = dict[str, Any]
ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


def signing_key(name: str) -> SigningKey:
    """Return the private key of this name, the same in every run."""
    return SigningKey(hashlib.sha256(name.encode()).digest())


def public(key: SigningKey) -> str:
    """Return the public key in unpadded base64."""
    return canonical_json.encode_base64(bytes(key.verify_key))


def sign(signed: Json, user_id: str, name: str, key: SigningKey) -> Json:
    """Return a copy with a signature added; `name` is a device ID or the public key."""
    bare = {k: v for k, v in signed.items() if k not in ("signatures", "unsigned")}
    signature = canonical_json.encode_base64(key.sign(canonical_json.encode(bare)).signature)
    signatures = signed.get("signatures", {})
    own = {**signatures.get(user_id, {}), f"ed25519:{name}": signature}
    return {**signed, "signatures": {**signatures, user_id: own}}


def device_key(person: Person) -> SigningKey:
    """Return the signing key of a person's device."""
    return signing_key(f"device {person.user_id} {person.device_id}")


def device_keys(person: Person) -> Json:
    """Return the device keys that a device uploads."""
    device_id, key = person.device_id, device_key(person)
    keys = {f"ed25519:{device_id}": public(key), f"curve25519:{device_id}": "c" * 43}
    bare = {
        "user_id": person.user_id,
        "device_id": device_id,
        "algorithms": ALGORITHMS,
        "keys": keys,
    }
    return sign(bare, person.user_id, device_id, key)


def upload_device_keys(person: Person) -> Json:
    """Upload the device keys and return them."""
    keys = device_keys(person)
    answer = person.post("keys/upload", json={"device_keys": keys})
    assert answer.status_code == 200, answer.get_json()
    return keys


class Identity:
    """The cross-signing keys of a user, different ones for each `generation`."""

    def __init__(self, user_id: str, generation: str = "") -> None:
        self.user_id = user_id
        self.keys = {
            usage: signing_key(f"{usage} {user_id} {generation}")
            for usage in ("master", "self_signing", "user_signing")
        }

    def public(self, usage: str) -> str:
        """Return a public key, which is also its name."""
        return public(self.keys[usage])

    def key(self, usage: str, *, by: str = "master") -> Json:
        """Return a key to upload, signed by the master key unless it is the master key."""
        name = self.public(usage)
        bare = {"user_id": self.user_id, "usage": [usage], "keys": {f"ed25519:{name}": name}}
        return bare if usage == "master" else self.sign(bare, by)

    def sign(self, signed: Json, usage: str) -> Json:
        """Return a copy with a signature by one of the keys."""
        return sign(signed, self.user_id, self.public(usage), self.keys[usage])

    def upload(self) -> Json:
        """Return the body of an upload of all three keys."""
        return {f"{usage}_key": self.key(usage) for usage in self.keys}


def password_of(person: Person) -> Json:
    """Return `auth` with the person's password."""
    who = {"type": "m.id.user", "user": person.user_id}
    return {"type": "m.login.password", "identifier": who, "password": PASSWORD}
