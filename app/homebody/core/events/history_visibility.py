"""The rules of history visibility: what a user may see, by the history of two entries of the state.

Spec: client-server-api#room-history-visibility
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from homebody.core.events import state
from homebody.models.base import NOW_AND_LATER
from homebody.spec.events import StateKey

VISIBILITY: StateKey = ("m.room.history_visibility", "")
SETTINGS = frozenset({"invited", "joined", "shared", "world_readable"})
DEFAULT = "shared"
"""For rooms without the event, or with an unknown value."""


class Placed(Protocol):
    """A ClientEvent, or a row with these columns."""

    @property
    def position(self) -> int:
        """Its position on the clock."""

    @property
    def type(self) -> str:
        """Its type."""

    @property
    def state_key(self) -> str | None:
        """Its state key; None for an event that is not state."""


class ValueIntervals:
    """The history of one value: it changes at some positions, and is None before the first."""

    def __init__(self, intervals: Iterable[tuple[int, int, str]]) -> None:
        self._starts: list[int] = []
        self._values: list[str | None] = []
        end = 0
        for start, until, value in intervals:
            if start > end:  # a gap
                self._change(end, None)
            self._change(start, value)
            end = until
        if end != NOW_AND_LATER:
            self._change(end, None)

    def at(self, position: int) -> str | None:
        """Return the value after this position."""
        index = bisect_right(self._starts, position) - 1
        return self._values[index] if index >= 0 else None

    @property
    def now(self) -> str | None:
        """The value at the end."""
        return self._values[-1] if self._values else None

    def starts_after(self, position: int) -> list[int]:
        """Return the later positions at which it changes."""
        return self._starts[bisect_right(self._starts, position) :]

    def _change(self, start: int, value: str | None) -> None:
        self._starts.append(start)
        self._values.append(value)


@dataclass(frozen=True, slots=True)
class History:
    """What one user may see of one room."""

    user_id: str
    setting: ValueIntervals
    """m.room.history_visibility."""
    membership: ValueIntervals
    joined_until: int
    """Position of the user's last leave; NOW_AND_LATER: is joined, 0: never was."""

    @property
    def is_open(self) -> bool:
        """Whether anybody may read the room as it is now."""
        return self.setting.now == "world_readable"

    def shows(self, event: Placed) -> bool:
        """Return whether the user may see an event of the room.

        What changes the setting, or the user's own membership, is judged by the state before it
        as well as by the state after it.
        """
        at = event.position
        setting, membership = self.setting.at(at), self.membership.at(at)
        if self._allows(at, setting, membership):
            return True
        if (event.type, event.state_key) == VISIBILITY:
            return self._allows(at, self.setting.at(at - 1), membership)
        if (event.type, event.state_key) == (state.MEMBER, self.user_id):
            return self._allows(at, setting, self.membership.at(at - 1))
        return False

    def first_seen(self, position: int) -> int | None:
        """Return the first position from this one on at which the user may know the room's state.

        A token from /sync may stand just before the user's own join.
        """
        changes = self.setting.starts_after(position) + self.membership.starts_after(position)
        for at in (position, *sorted(changes)):
            if self._allows(at, self.setting.at(at), self.membership.at(at)):
                return at
        return None

    def spans(self) -> list[tuple[int, int]]:
        """Return the (first, last position) of each part of the room that the user may see.

        For searches in SQL; in accordance with `shows`. No two overlap.
        """
        starts = {0, *self.setting.starts_after(0), *self.membership.starts_after(0)}
        starts |= {self.joined_until} - {NOW_AND_LATER}
        edges = [*sorted(starts), NOW_AND_LATER + 1]
        found = [
            (first, after - 1)
            for first, after in itertools.pairwise(edges)
            if self._allows(first, self.setting.at(first), self.membership.at(first))
        ]
        settings, memberships = self.setting.starts_after(0), self.membership.starts_after(0)
        changes = [(at, self.setting.at(at - 1), self.membership.at(at)) for at in settings]
        changes += [(at, self.setting.at(at), self.membership.at(at - 1)) for at in memberships]
        return _merged(found + [(it[0], it[0]) for it in changes if self._allows(*it)])

    def ranges(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of a range of positions whose messages the user may see."""
        changes = {*self.setting.starts_after(first), *self.membership.starts_after(first)}
        starts = [first, *sorted(at for at in changes if at <= last)]
        ends = [*(start - 1 for start in starts[1:]), last]
        found: list[tuple[int, int]] = []
        for start, end in zip(starts, ends, strict=True):
            # "shared" lets former members see what was said before they left
            cut = self.joined_until if start < self.joined_until <= end else end + 1
            parts = ((start, cut - 1), (cut, end))
            found += [part for part in parts if part[0] <= part[1] and self._sees(part[0])]
        return found

    def _sees(self, position: int) -> bool:
        return self._allows(position, self.setting.at(position), self.membership.at(position))

    def _allows(self, position: int, setting: str | None, membership: str | None) -> bool:
        """Apply the specification's five rules, in its order."""
        if setting == "world_readable" or membership == "join":
            return True
        if setting not in SETTINGS:
            setting = DEFAULT
        if setting == "shared" and position < self.joined_until:
            return True
        return setting == "invited" and membership == "invite"


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans that cover the same positions, in their order, with a gap between any two."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged
