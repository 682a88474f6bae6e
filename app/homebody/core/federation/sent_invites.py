"""Invites of users of other servers to rooms that this server is in.

The other server signs the invite first, or refuses it: then nothing is stored. Only after that it
becomes an event of the room, and is sent to the other servers in it.

Spec: server-server-api#inviting-to-a-room, server-server-api#third-party-invites
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from homebody import errors
from homebody.core.events import state
from homebody.core.federation import asking, membership_events, policy_servers
from homebody.core.federation.keys import ServerKeys
from homebody.core.federation.pdus import Received
from homebody.core.timeline import policies, receiving, sending
from homebody.core.timeline.sending import Draft
from homebody.errors import MatrixError
from homebody.models.events import ACCEPTED
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.runtime import event_loop
from homebody.runtime.locks import Locks
from homebody.spec import events, room_state, signing
from homebody.spec.events import Event, Json
from homebody.spec.signing import SignatureError
from homebody.storage.database import Database, Reader

LOG = logging.getLogger(__name__)

MAX_BYTES: Final = 128 * 1024
SERVERS_AT_ONCE: Final = 8
"""For one new room. An event cites ten others at most, so each invite follows those before it."""
WITHIN_S: Final = 20.0
"""The request that creates a room ends then, and its invites go on."""
BEGUN_WITHIN_S: Final = 300.0
"""No further user is invited to a new room after that."""
FIRST_VERSIONS: Final = frozenset({"1", "2"})
"""Of rooms to which servers of the first version of the API can be invited."""
PASSED_ON: Final = frozenset(
    {
        "M_FORBIDDEN",
        "M_INCOMPATIBLE_ROOM_VERSION",
        "M_INVITE_BLOCKED",
        "M_UNSUPPORTED_ROOM_VERSION",
        "ORG.MATRIX.MSC4155.M_INVITE_BLOCKED",  # by Synapse
    }
)
"""Errors that clients get as they are."""


def send(
    db: Database, client: FederationClient, keys: ServerKeys, locks: Locks, draft: Draft
) -> str:
    """Invite a user of another server, and return the id of the event. Waits for that server.

    Raises M_FORBIDDEN if the rules of the room, its policy server or the other server refuse it,
    M_INVITE_BLOCKED, and as `asking.error_of` does: then nothing has changed.
    """
    server = room_state.domain_of(draft.state_key or "")
    with db.read() as tx:
        _check_federated(tx, draft.room_id)
        event = sending.make(tx, draft)
        shown, policy = _shown(tx, draft), policies.of_room(tx, draft.room_id)
    if policy is not None:
        event = policy_servers.approve(client, policy, event)
    try:
        signed = _ask(client, server, event, shown)
        received = _checked(keys, server, event, signed)
    except RemoteError as error:
        if error.status in {400, 403} and error.errcode in PASSED_ON:
            raise MatrixError(error.status, error.errcode, str(error)) from error
        raise asking.error_of(server, error) from error
    with locks.own("room", draft.room_id), db.write() as tx:
        if receiving.receive(tx, *received) != ACCEPTED:
            raise errors.forbidden("The rules of the room do not allow the invite any more")
    return event.event_id


def send_all(
    db: Database, client: FederationClient, keys: ServerKeys, locks: Locks, drafts: Sequence[Draft]
) -> None:
    """Invite users of other servers to a new room, which is there whatever those servers respond.

    Each server is asked by itself, so that one that does not respond delays no other; after that
    its other users are not invited. Returns after WITHIN_S at the latest, and goes on in the
    background; a restart ends it. What fails is logged.
    """
    by_server: dict[str, list[Draft]] = {}
    for draft in drafts:
        by_server.setdefault(room_state.domain_of(draft.state_key or ""), []).append(draft)
    waiting = deque(by_server.values())
    until = time.monotonic() + BEGUN_WITHIN_S

    def work() -> None:
        while waiting:
            try:
                _send_to_server(db, client, keys, locks, waiting.popleft(), until)
            except Exception:
                LOG.exception("can't invite users to a new room")

    workers = [event_loop.spawn(work) for _ in range(min(len(waiting), SERVERS_AT_ONCE))]
    answered = time.monotonic() + WITHIN_S
    with suppress(TimeoutError):
        for worker in workers:
            worker.result(max(answered - time.monotonic(), 0))


def _send_to_server(
    db: Database,
    client: FederationClient,
    keys: ServerKeys,
    locks: Locks,
    drafts: Sequence[Draft],
    until: float,
) -> None:
    """Invite users of one server, one after the other, until it does not respond."""
    is_there = True
    for draft in drafts:
        if not is_there or time.monotonic() > until:
            LOG.info("%s is not invited to the new room %s", draft.state_key, draft.room_id)
            continue
        try:
            send(db, client, keys, locks, draft)
        except MatrixError as error:
            LOG.info(
                "%s is not invited to the new room %s: %s", draft.state_key, draft.room_id, error
            )
            is_there = not client.is_failing(room_state.domain_of(draft.state_key or ""))


def _check_federated(tx: Reader, room_id: str) -> None:
    create = state.current(tx, room_id, *room_state.CREATE)
    if create is not None and create.content.get("m.federate") is False:
        raise errors.forbidden("This room is only for users of this server")


def _shown(tx: Reader, draft: Draft) -> list[Json]:
    """Return what the invited user learns of the room, with the member event of the inviter."""
    inviter = state.current(tx, draft.room_id, state.MEMBER, draft.sender)
    shown = membership_events.preview(tx, draft.room_id)
    return shown if inviter is None else [*shown, inviter.pdu]


def _ask(client: FederationClient, server: str, event: Event, shown: list[Json]) -> object:
    """Return the event that the other server responds with. Raises RemoteError."""
    parts = ("invite", event.room_id, event.event_id)
    version = event.version.name
    body = {"event": event.pdu, "room_version": version, "invite_room_state": shown}
    try:
        path = path_of(*parts, version="v2")
        answer = asking.put(client, server, path, body, max_bytes=MAX_BYTES)
    except RemoteError as error:
        if version not in FIRST_VERSIONS or error.status not in {400, 404}:
            raise
        body = {**event.pdu, "unsigned": {"invite_room_state": shown}}
        found = asking.put(client, server, path_of(*parts), body, max_bytes=MAX_BYTES)
        answer = found[1] if isinstance(found, list) and len(found) == 2 else None
    return answer.get("event") if isinstance(answer, dict) else None


def _checked(keys: ServerKeys, server: str, event: Event, signed: object) -> Received:
    """Return the invite with the signature of the other server. Raises RemoteError without it."""
    signatures = signed.get("signatures") if isinstance(signed, dict) else None
    own = signatures.get(server) if isinstance(signatures, dict) else None
    if isinstance(own, dict) and all(isinstance(it, str) for it in own.values()):
        known = event.pdu["signatures"]  # also by the policy server, which may be the same
        pdu = {**event.pdu, "signatures": {**known, server: {**own, **known.get(server, {})}}}
        for key_id in signing.key_ids(pdu, server):
            key = keys.verify_key(server, key_id)
            with suppress(SignatureError):
                if key is not None:
                    signing.verify_event(pdu, event.version, server, key_id, key)
                    whole = Event(event.event_id, pdu, event.version)
                    return Received(whole, events.encode(pdu, event.version))
    raise RemoteError("bad_response", f"{server} has not signed the invite")
