"""Whom a user wants to hear nothing of: what these say is left out, the state of rooms is not.

The list is account data of the client's; it is cached, compiled together with the push rules.
Spec: client-server-api#ignoring-users
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from homebody.core.user_data import account_data, push_rules
from homebody.storage.database import Reader


class SentEvent(Protocol):
    """What has to be known of an event: a ClientEvent, or a row with these columns."""

    @property
    def state_key(self) -> str | None:
        """Its state key, None: it is no state event."""

    @property
    def sender(self) -> str:
        """Who said it."""


E = TypeVar("E", bound=SentEvent)


def of(tx: Reader, user_id: str) -> frozenset[str]:
    """The users whom this one ignores; who names themselves is heard all the same."""
    settings = tx.cached(account_data.COMPILED, user_id)
    if settings is None:
        settings = push_rules.settings_of(tx, [user_id])[user_id]
    ignored = settings.ignored
    return ignored - {user_id} if user_id in ignored else ignored


def without(tx: Reader, user_id: str, events: Sequence[E]) -> list[E]:
    """The events without what ignored users have said, in their order.

    "State events will still be sent to the client, even if the user is ignored."
    """
    ignored = of(tx, user_id) if events else frozenset[str]()
    if not ignored:
        return list(events)
    return [it for it in events if it.state_key is not None or it.sender not in ignored]
