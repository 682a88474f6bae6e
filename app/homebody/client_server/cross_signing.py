"""Cross-signing keys, and signatures on keys.

Spec: client-server-api#cross-signing
"""

from __future__ import annotations

import msgspec
from flask import Blueprint

from homebody import context
from homebody.client_server import http, interactive
from homebody.client_server.authentication import authenticated, requester
from homebody.core.encryption import cross_signing
from homebody.spec.events import Json

bp = Blueprint("cross_signing", __name__)


class CrossSigningKey(msgspec.Struct):
    """The shape of a key; what is signed is the object itself, with whatever else is in it."""

    user_id: str
    usage: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]] | None = None


class Keys(msgspec.Struct):
    """The body of an upload of keys."""

    master_key: CrossSigningKey | None = None
    self_signing_key: CrossSigningKey | None = None
    user_signing_key: CrossSigningKey | None = None


class Signed(msgspec.Struct):
    """The body of an upload of signatures, under a name."""

    objects: dict[str, dict[str, Json]]


@bp.post("/keys/device_signing/upload")
@authenticated(suspended=True)
def upload_cross_signing_keys() -> Json:
    """Take the user's cross-signing keys; the password is asked for where they replace others.

    Spec: client-server-api#post_matrixclientv3keysdevice_signingupload
    """
    body = http.json_object()
    http.convert(body, Keys)
    named = {usage: body.get(f"{usage}_key") for usage in cross_signing.USAGES}
    keys = {usage: key for usage, key in named.items() if key is not None}
    if not keys:  # all three are optional; Element Web asks so whether the server would take some
        return {}
    user_id = requester().user_id
    with context.db().read() as tx:
        needs_authentication = cross_signing.needs_authentication(tx, user_id, keys)
    if needs_authentication and requester().service is None:
        interactive.require_password(body)
    with context.db().write() as tx:
        cross_signing.upload(tx, user_id, keys, is_authenticated=needs_authentication)
    return {}


@bp.post("/keys/signatures/upload")
@authenticated(suspended=True)
def upload_cross_signing_signatures() -> Json:
    """Take signatures on the user's own keys, and the user's signatures on the keys of others.

    Spec: client-server-api#post_matrixclientv3keyssignaturesupload
    """
    signed = http.convert({"objects": http.json_object()}, Signed).objects
    with context.db().write() as tx:
        return {"failures": cross_signing.upload_signatures(tx, requester().user_id, signed)}
