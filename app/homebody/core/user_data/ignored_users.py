"""Ignored users: their messages are omitted, the state events that they send are not.

The list is account data, which is compiled and cached together with the push rules.
Spec: client-server-api#ignoring-users
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from homebody.core.user_data import account_data, push_rules
from homebody.storage.database import Reader


class SentEvent(Protocol):
    """An event whose sender may be ignored: a ClientEvent, or a row with these columns."""

    @property
    def state_key(self) -> str | None:
        """Its state key, or None for a message event."""

    @property
    def sender(self) -> str:
        """The user who sent it."""


E = TypeVar("E", bound=SentEvent)


def of(tx: Reader, user_id: str) -> frozenset[str]:
    """Return the users whom this user ignores; users can't ignore themselves."""
    settings = tx.cached(account_data.COMPILED, user_id)
    if settings is None:
        settings = push_rules.settings_of(tx, [user_id])[user_id]
    ignored = settings.ignored
    return ignored - {user_id} if user_id in ignored else ignored


def without(tx: Reader, user_id: str, events: Sequence[E]) -> list[E]:
    """Return the events without messages of ignored users, in the same order.

    "State events will still be sent to the client, even if the user is ignored."
    """
    ignored = of(tx, user_id) if events else frozenset[str]()
    if not ignored:
        return list(events)
    return [it for it in events if it.state_key is not None or it.sender not in ignored]
