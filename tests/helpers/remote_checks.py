"""What a scripted remote server checks of the requests and events of the server under test."""

from __future__ import annotations

from typing import Any

from homebody.spec import events, signing
from homebody.spec.room_versions import RoomVersion
from tests.helpers.peers import Peer
from tests.helpers.scripted_server import Request

Json = dict[str, Any]


def check_event(peer: Peer, pdu: Json, version: RoomVersion) -> None:
    """Raise ValueError unless an event is valid and signed by its server, if that is the peer."""
    events.check_format(pdu, version)
    if not pdu["sender"].endswith(f":{peer.name}"):
        return
    for key_id, key in peer.verify_keys.items():
        signing.verify_event(pdu, version, peer.name, key_id, key)
    if not signing.has_valid_content_hash(pdu, version) and pdu != events.redact(pdu, version):
        raise ValueError("The content hash does not match")


def problem_of_request(name: str, peer: Peer, request: Request) -> str | None:
    """Return what is wrong with the X-Matrix header of a request."""
    scheme, _, values = request.headers.get("Authorization", "").partition(" ")
    given = dict(pair.strip().split("=", 1) for pair in values.split(",") if "=" in pair)
    given = {key.lower(): value.strip('"') for key, value in given.items()}
    if scheme.lower() != "x-matrix" or given.get("origin") != peer.name:
        return f"The request is not by {peer.name}"
    if given.get("destination", name) != name:
        return f"The request is for {given['destination']}"
    if given["key"] not in peer.verify_keys:
        return f"The key {given['key']} is not known"
    signed = {
        "method": request.method,
        "uri": request.uri,
        "origin": peer.name,
        "destination": name,
        "signatures": {peer.name: {given["key"]: given["sig"]}},
        **({"content": request.json} if request.body else {}),
    }
    try:
        signing.verify_json(signed, peer.name, given["key"], peer.verify_keys[given["key"]])
    except signing.SignatureError as problem:
        return str(problem)
    return None
