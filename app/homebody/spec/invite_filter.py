"""The users by whom a user may be invited: org.matrix.msc4155.invite_permission_config (MSC4155).

Its lists of users and servers are evaluated in a fixed order. An invite is allowed, blocked, which
the inviter notices, or ignored, which only hides it from the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from homebody.spec import globs, identifiers, room_state
from homebody.spec.globs import Patterns

Decision = Literal["allow", "ignore", "block"]

TYPE: Final = "org.matrix.msc4155.invite_permission_config"
MAX_WILDCARDS: Final = 2000
"""Patterns with wildcards in all lists. They are matched inside of writes, 2000 in 25 ms."""

_ORDER: Final[tuple[tuple[Decision, str], ...]] = (
    ("allow", "allowed_users"),
    ("ignore", "ignored_users"),
    ("block", "blocked_users"),
    ("allow", "allowed_servers"),
    ("ignore", "ignored_servers"),
    ("block", "blocked_servers"),
)


class InviteFilter:
    """The lists of a user, prepared for many invites."""

    def __init__(self, content: Mapping[str, object]) -> None:
        """Take the content of the account data; an invalid one allows all invites."""
        self._lists: Final = _compiled(content)

    def __bool__(self) -> bool:
        return bool(self._lists)

    def decide(self, inviter: str) -> Decision:
        """Return what becomes of an invite by this user."""
        user_id, host = inviter.lower(), identifiers.host(room_state.domain_of(inviter))
        for decision, is_of_servers, patterns in self._lists:
            if patterns.matches(host if is_of_servers else user_id):
                return decision
        return "allow"


def _compiled(content: Mapping[str, object]) -> list[tuple[Decision, bool, Patterns]]:
    if content.get("enabled") is False:
        return []
    lists = [(decision, name, content.get(name, [])) for decision, name in _ORDER]
    found: list[tuple[Decision, bool, Patterns]] = []
    wildcards = 0
    for decision, name, texts in lists:
        # "Any value that is not an array of strings MUST lead to the entire event being considered
        # invalid."
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return []
        wildcards += sum(map(globs.has_wildcards, texts))
        if texts:
            found.append((decision, name.endswith("_servers"), Patterns(texts)))
    # Deviates: more of them count as invalid, too
    return found if wildcards <= MAX_WILDCARDS else []


ALL_ALLOWED: Final = InviteFilter({})
"""The filter of users who have none."""
