"""Device keys, one-time keys and cross-signing keys; messages to devices.

Spec: client-server-api#key-management-api, client-server-api#cross-signing,
client-server-api#send-to-device-messaging
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.client_server import authentication, http, interactive
from homebody.client_server.authentication import authenticated, requester
from homebody.context import homeserver
from homebody.core.accounts import accounts
from homebody.core.encryption import (
    claim_limits,
    cross_signing,
    device_keys,
    one_time_keys,
    to_device,
    to_device_edus,
)
from homebody.core.encryption.one_time_keys import Key
from homebody.core.federation.remote_keys import Claimed, Failures
from homebody.core.sync import device_lists
from homebody.core.sync.spans import SyncToken
from homebody.spec import identifiers
from homebody.spec.events import Json

bp = Blueprint("keys", __name__)
T = TypeVar("T")

MAX_CLAIMS = 10_000
"""Devices in one request: those in a large room."""
MAX_QUERIED = 10_000
"""Users in one request. Clients query 250 at once, or those of a large room."""
CLAIMS_IN_ONE = 100
QUERIED_IN_ONE = 250
"""How many devices or users count as one request in the rate limits."""
DEFAULT_TIMEOUT_MS = 10_000


class DeviceKeys(msgspec.Struct):
    """The identity keys of a device; stored as they were sent."""

    user_id: str
    device_id: str
    algorithms: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]]


class SignedKey(msgspec.Struct):
    """A one-time or fallback key that is signed; stored as it was sent."""

    key: str
    signatures: dict[str, dict[str, str]]


class UploadKeys(msgspec.Struct):
    """The body of /keys/upload. Clients send null for what they do not upload."""

    device_keys: Json | None = None
    one_time_keys: dict[str, Key] | None = None
    fallback_keys: dict[str, Key] | None = None


class QueryKeys(msgspec.Struct):
    """The body of /keys/query."""

    device_keys: dict[str, list[str]]
    timeout_ms: int = msgspec.field(default=DEFAULT_TIMEOUT_MS, name="timeout")
    """How long to wait for other servers."""


class ClaimKeys(msgspec.Struct):
    """The body of /keys/claim."""

    one_time_keys: dict[str, dict[str, str]]
    timeout_ms: int = msgspec.field(default=DEFAULT_TIMEOUT_MS, name="timeout")


@bp.post("/keys/upload")
@authenticated(guests=True, suspended=True)
def upload_keys() -> Json:
    """Publish keys of the device, and return how many one-time keys it has.

    Spec: client-server-api#post_matrixclientv3keysupload
    """
    body = http.body_as(UploadKeys)
    if body.device_keys is not None:
        http.convert_part(body.device_keys, DeviceKeys)
    _check_keys(body.one_time_keys or {})
    _check_keys(body.fallback_keys or {})
    me = requester()
    if not (body.device_keys or body.one_time_keys or body.fallback_keys):
        with homeserver.database.read() as tx:
            return _counts(one_time_keys.counts(tx, me.user_id, me.device_id).one_time_keys)
    with homeserver.database.write() as tx:
        device_keys.check_exists(tx, me.user_id, me.device_id)
        if body.device_keys is not None:
            device_keys.put(tx, me.user_id, me.device_id, body.device_keys)
        if body.one_time_keys:
            one_time_keys.add(tx, me.user_id, me.device_id, body.one_time_keys)
        if body.fallback_keys:
            one_time_keys.set_fallbacks(tx, me.user_id, me.device_id, body.fallback_keys)
        counts = one_time_keys.counts(tx, me.user_id, me.device_id).one_time_keys
    return _counts(counts)


@bp.post("/keys/query")
@authenticated(guests=True, suspended=True, only_reads=True)
def query_keys() -> Json:
    """Return the identity keys of users and their devices.

    Spec: client-server-api#post_matrixclientv3keysquery
    """
    body = http.body_as(QueryKeys, max_bytes=http.MAX_LARGE_BODY_BYTES)
    wanted = body.device_keys
    if len(wanted) > MAX_QUERIED:
        raise errors.too_large(f"A request may query keys of at most {MAX_QUERIED} users")
    _check_users(wanted)
    cost = 1 + len(wanted) // QUERIED_IN_ONE
    authentication.rate_limits().check("rc_key_queries", requester().user_id, cost)
    me, remote = requester().user_id, _of_other_servers(wanted)
    elsewhere: Json = {}
    if remote:
        elsewhere = homeserver.remote_keys.query(me, remote, body.timeout_ms / 1000)
    with homeserver.database.read() as tx:
        found = device_keys.query(tx, me, wanted)
    for section, entries in elsewhere.items():
        found[section] |= entries
    return found


@bp.post("/keys/claim")
@authenticated(guests=True, suspended=True)
def claim_keys() -> Json:
    """Claim a one-time key of each device, with which to begin a session.

    Spec: client-server-api#post_matrixclientv3keysclaim
    """
    body = http.body_as(ClaimKeys, max_bytes=http.MAX_LARGE_BODY_BYTES)
    requested = body.one_time_keys
    _check_users(requested)
    wanted = claim_limits.in_request(requested, MAX_CLAIMS)
    me = requester()
    authentication.rate_limits().check("rc_writes", me.user_id, len(wanted) // CLAIMS_IN_ONE)
    with homeserver.database.read() as tx:
        claims = claim_limits.of_user(tx, me, wanted)
    claimed = one_time_keys.claim_all(homeserver.database, claims)
    remote = _of_other_servers(requested)
    elsewhere: Claimed = {}
    failures: Failures = {}
    if remote:
        elsewhere, failures = homeserver.remote_keys.claim(remote, body.timeout_ms / 1000)
    return {"failures": failures, "one_time_keys": {**claimed, **elsewhere}}


@bp.get("/keys/changes")
@authenticated()
def get_keys_changes() -> Json:
    """Return users whose keys have changed since a token, and those who share no room any more.

    `to` is only a hint, as the specification allows: changes after it are returned too.

    Spec: client-server-api#get_matrixclientv3keyschanges
    """
    since, upto = http.query_required("from"), http.query_required("to")
    with homeserver.database.read() as tx:
        position = SyncToken.parse(since, tx.position).position
        SyncToken.parse(upto, None)
        changes = device_lists.since(tx, requester().user_id, position)
    return {"changed": changes.changed, "left": changes.left}


def _counts(by_algorithm: dict[str, int]) -> Json:
    return {"one_time_key_counts": by_algorithm}


def _check_keys(keys: Mapping[str, Key]) -> None:
    """Raise M_BAD_JSON for a key that is neither a string nor a signed key."""
    for key in keys.values():
        if not isinstance(key, str):
            http.convert_part(key, SignedKey)


def _of_other_servers(users: Mapping[str, T]) -> dict[str, T]:
    """Return the part about users of other servers, if there are any for this server."""
    server = homeserver.server
    if not server.config.federation:
        return {}
    return {user_id: it for user_id, it in users.items() if not server.is_local(user_id)}


def _check_users(users: Mapping[str, object]) -> None:
    if not all(map(identifiers.is_user_id, users)):
        raise errors.invalid_param("The keys of this object must be user IDs")


class CrossSigningKey(msgspec.Struct):
    """The required fields of a key; the signatures cover the whole object as it was sent."""

    user_id: str
    usage: list[str]
    keys: dict[str, str]
    signatures: dict[str, dict[str, str]] | None = None


class Keys(msgspec.Struct):
    """The body of /keys/device_signing/upload."""

    master_key: CrossSigningKey | None = None
    self_signing_key: CrossSigningKey | None = None
    user_signing_key: CrossSigningKey | None = None


class Signed(msgspec.Struct):
    """The body of /keys/signatures/upload, in a field."""

    objects: dict[str, dict[str, Json]]


@bp.post("/keys/device_signing/upload")
@authenticated(suspended=True)
def upload_cross_signing_keys() -> Json:
    """Store the user's cross-signing keys; replacing others needs the password.

    Clients of the OAuth 2.0 API need the user's consent on a page instead.

    Spec: client-server-api#post_matrixclientv3keysdevice_signingupload
    """
    body = http.json_object()
    http.convert(body, Keys)
    named = {usage: body.get(f"{usage}_key") for usage in cross_signing.USAGES}
    keys = {usage: key for usage, key in named.items() if key is not None}
    if (
        not keys
    ):  # all three are optional; Element Web tests this way whether the server supports them
        return {}
    user_id = requester().user_id
    with homeserver.database.read() as tx:
        needs_authentication = cross_signing.needs_authentication(tx, user_id, keys)
        is_allowed = needs_authentication and accounts.may_replace_keys(tx, user_id)
    if needs_authentication and not is_allowed and requester().service is None:
        if interactive.is_by_oauth():
            interactive.require_page(body)
        interactive.require_password(body)
    with homeserver.database.write() as tx:
        cross_signing.upload(tx, user_id, keys, is_authenticated=needs_authentication)
        if is_allowed:  # once: the new keys are as safe as the old ones were
            accounts.allow_key_replacement(tx, user_id, None)
    return {}


@bp.post("/keys/signatures/upload")
@authenticated(suspended=True)
def upload_cross_signing_signatures() -> Json:
    """Store signatures on the user's own keys, and the user's signatures on keys of others.

    Spec: client-server-api#post_matrixclientv3keyssignaturesupload
    """
    signed = http.convert({"objects": http.json_object()}, Signed).objects
    with homeserver.database.write() as tx:
        return {"failures": cross_signing.upload_signatures(tx, requester().user_id, signed)}


class SendToDevice(msgspec.Struct):
    """The body of /sendToDevice."""

    messages: dict[str, dict[str, Json]]


@bp.put("/sendToDevice/<event_type>/<txn_id>")
@authenticated(guests=True, suspended=True)
def send_to_device(event_type: str, txn_id: str) -> Json:
    """Send messages to devices.

    Spec: client-server-api#put_matrixclientv3sendtodeviceeventtypetxnid
    """
    messages = http.body_as(SendToDevice, max_bytes=http.MAX_LARGE_BODY_BYTES).messages
    if not all(map(identifiers.is_user_id, messages)):
        raise errors.invalid_param("The keys of messages must be user IDs")
    to_device.check(messages)
    me = requester()
    batches: list[list[tuple[str, Json]]] = []
    if homeserver.server.config.federation:
        name = homeserver.server.name
        batches = to_device_edus.batches_of_edus(name, me, event_type, txn_id, messages)
    with homeserver.database.read() as reading:
        parts = to_device.parts(reading, me.user_id, event_type, messages)
    for batch in batches:
        with homeserver.database.write() as writing:
            to_device_edus.send(writing, me, event_type, txn_id, batch)
    for number, part in enumerate(parts, start=1):
        with homeserver.database.write() as tx:
            to_device.send(tx, me, event_type, txn_id, part, is_last=number == len(parts))
    return {}
