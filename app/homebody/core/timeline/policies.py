"""Events of local users that the room's policy server has to sign before they are sent.

A transaction can't wait for another server. So `sending.send` raises UnapprovedError, which undoes
the write; client_server/policy_servers.py has the event signed, and makes the request again. Then
`send` finds the event in `tx.approved`, and stores it instead of a new one.

Spec: server-server-api#policy-servers
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from homebody.core.events import state
from homebody.errors import MatrixError
from homebody.spec import policy_servers
from homebody.spec.events import Event
from homebody.spec.policy_servers import POLICY, Policy
from homebody.storage.database import Reader, Tx

if TYPE_CHECKING:
    from homebody.core.timeline.sending import Draft

Key = tuple[str | bytes | None, ...]


class UnapprovedError(MatrixError):
    """An event was not sent, as the policy server has not signed it."""

    def __init__(self, key: Key, event: Event, policy: Policy) -> None:
        super().__init__(403, "M_FORBIDDEN", f"{policy.server} has to approve this first")
        self.key = key
        self.event = event
        self.policy = policy


def of_room(tx: Reader, room_id: str) -> Policy | None:
    """Return the policy server of a room, if it has one that is in the room."""
    event = state.current(tx, room_id, *POLICY)
    policy = None if event is None else policy_servers.of_content(event.content)
    if policy is None or policy.server not in state.joined(tx, room_id).servers:
        return None
    return policy


def check(tx: Tx, draft: Draft, event: Event) -> None:
    """Raise UnapprovedError unless the event may be sent without a signature, or has it."""
    policy = of_room(tx, event.room_id)
    if policy is not None and not policy_servers.is_approved(event, policy):
        raise UnapprovedError(_key(draft), event, policy)


def is_approved(tx: Reader, event: Event) -> bool:
    """Return whether the policy server of its room, if there is one, has signed an event."""
    policy = of_room(tx, event.room_id)
    return policy is None or policy_servers.is_approved(event, policy)


def approved(tx: Tx, draft: Draft) -> Event | None:
    """Return the event that a policy server has signed for this draft."""
    found: Event | None = tx.approved.get(_key(draft))
    return found


def _key(draft: Draft) -> Key:
    content = orjson.dumps(draft.content, option=orjson.OPT_SORT_KEYS)
    return draft.room_id, draft.sender, draft.type, draft.state_key, content, draft.redacts
