"""Requests that send events to rooms with a policy server.

Spec: server-server-api#policy-servers
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from flask import g

from homebody.context import homeserver
from homebody.core.federation import policy_servers
from homebody.core.timeline.policies import UnapprovedError

R = TypeVar("R")

MAX_EVENTS: Final = 20
"""Events of one request that policy servers sign."""


def with_approval(needed: UnapprovedError, view: Callable[[], R]) -> R:
    """Have an event signed by its policy server, and call the view again that was to send it.

    Each event undoes the request's write, so nothing of it is sent before all are signed.
    Raises M_FORBIDDEN, or what the policy server says; but a user may always leave.
    """
    for _ in range(MAX_EVENTS):
        event = policy_servers.approve_or_leave(
            homeserver.server, homeserver.federation, needed.policy, needed.event
        )
        g.approved = {**g.get("approved", {}), needed.key: event}
        try:
            return view()
        except UnapprovedError as next_one:
            needed = next_one
    raise needed
