"""Have events signed by the policy server of their room.

If that does not respond, events are not sent, and those of other servers are not shown. Only a
user's own leave is sent without its signature.

History that is fetched from other servers is not checked: a room's policy server has never seen
what was sent before it was chosen, or before its key was replaced, and soft failure is about new
events. Other servers may show such events as well.

Spec: server-server-api#asking-for-a-policy-server-signature-on-an-event,
server-server-api#validating-policy-server-signatures
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Final

from homebody import errors
from homebody.core.events import state
from homebody.core.federation.pdus import Received
from homebody.core.timeline import policies
from homebody.errors import MatrixError
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient
from homebody.spec import events, policy_servers, signing
from homebody.spec.events import Event
from homebody.spec.policy_servers import Policy
from homebody.storage.database import Database, Server

LOG = logging.getLogger(__name__)

PATH: Final = "/_matrix/policy/v1/sign"
TIMEOUT_S: Final = 5.0
SECONDS: Final = 5.0
"""For all events of a transaction in one room together."""
SECONDS_IF_FAILING: Final = 1.0
MAX_BYTES: Final = 65_536
PASSED_ON: Final = frozenset({400, 403, 429})
"""Statuses of responses that are passed on to the client: the policy server's decision."""


def approve(client: FederationClient, policy: Policy, event: Event) -> Event:
    """Return an event of a local user with the policy server's signature.

    Raises M_FORBIDDEN, or the error with which the policy server refuses to sign.
    """
    try:
        return _ask(client, policy, event, TIMEOUT_S)
    except RemoteError as problem:
        LOG.info("%s does not sign %s: %s", policy.server, event.event_id, problem)
        if problem.status in PASSED_ON and isinstance(problem.content.get("errcode"), str):
            raise _passed_on(problem) from problem
        sentence = f"The policy server of the room, {policy.server}, has not approved this"
        raise errors.forbidden(sentence) from problem


def approve_or_leave(
    server: Server, client: FederationClient, policy: Policy, event: Event
) -> Event:
    """Return the event as `approve` does; a user's own leave also without the signature.

    Then it has no reason or other text, which nobody has checked. Raises as `approve` does.
    """
    try:
        return approve(client, policy, event)
    except MatrixError:
        if not _is_own_leave(event):
            raise
    # Deviates: "the event SHOULD NOT be sent to clients and servers". Nobody is kept in a room;
    # other servers ask the policy server themselves, and show the leave when it signs that.
    pdu = {key: it for key, it in event.pdu.items() if key not in {"hashes", "signatures"}}
    pdu["content"] = {"membership": "leave"}
    return Event(
        *signing.add_hashes_and_signatures(pdu, event.version, server.name, server.signing_key),
        event.version,
    )


def screen(
    db: Database, client: FederationClient, room_id: str, received: Sequence[Received]
) -> list[Received]:
    """Return events of other servers with signatures of the policy server, where it gives them.

    Waits for the policy server, so never within a transaction or a lock.
    """
    with db.read() as tx:
        policy = policies.of_room(tx, room_id)
    if policy is None:
        return list(received)
    until = time.monotonic() + (SECONDS_IF_FAILING if client.is_failing(policy.server) else SECONDS)
    found: list[Received] = []
    for it in received:
        if policy_servers.is_approved(it.event, policy):
            found.append(it)
            continue
        try:
            event = _ask(client, policy, it.event, until - time.monotonic())
            found.append(Received(event, events.encode(event.pdu, event.version)))
        except RemoteError as problem:
            LOG.info("%s does not sign %s: %s", policy.server, it.event.event_id, problem)
            found.append(it)
            if problem.kind in {"unreachable", "timeout"}:
                until = 0.0  # what its server sends to other rooms waits behind this
    return found


def _is_own_leave(event: Event) -> bool:
    is_own = event.type == state.MEMBER and event.state_key == event.sender
    return is_own and event.content.get("membership") == "leave"


def _ask(client: FederationClient, policy: Policy, event: Event, seconds: float) -> Event:
    if seconds <= 0:
        raise RemoteError("timeout", "The time for this transaction is over")
    answer = client.request(
        policy.server,
        "POST",
        PATH,
        json=events.encode(event.pdu, event.version),
        timeout_s=seconds,
        max_bytes=MAX_BYTES,
    )
    try:
        return policy_servers.with_signature(event, policy, answer)
    except ValueError as problem:
        raise RemoteError("bad_response", str(problem)) from problem


def _passed_on(problem: RemoteError) -> MatrixError:
    content = problem.content
    fields = {"retry_after_ms": content["retry_after_ms"]} if "retry_after_ms" in content else {}
    text = content.get("error")
    message = text if isinstance(text, str) else str(problem)
    return MatrixError(problem.status or 403, content["errcode"], message, **fields)
