"""Sync tokens: positions on the server's clock, as clients keep them.

`s1234` is the place between position 1234 and the next one: paging backwards from it shows the
events up to 1234, forwards those after it. A token of /sync may have a second part, `s1234_567`:
what the client has seen of what is kept in memory only (typing, presence). Every endpoint that
takes a token takes both forms.
Spec: client-server-api#syncing
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from homebody import errors

_TOKEN = re.compile(r"s([0-9]{1,18})(?:_([0-9]{1,18}))?")
"""18 digits are enough for 30 years of a change per nanosecond, and fit SQLite's integers."""


@dataclass(frozen=True, slots=True)
class SyncToken:
    """A place between two changes. `str` returns the form for clients."""

    position: int
    """On the clock: the last change before the token."""
    ephemeral: int | None = None
    """The same for what is kept in memory only; None if the token does not say."""

    def __str__(self) -> str:
        if self.ephemeral is None:
            return f"s{self.position}"
        return f"s{self.position}_{self.ephemeral}"


START: Final = SyncToken(0)
"""Before every change."""


def parse(text: str, upto: int | None) -> SyncToken:
    """Return the token in a request; `upto` is the position of the clock, None: do not check.

    Raises M_INVALID_PARAM for what this server cannot have given out.
    """
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise errors.invalid_param("That is not a token of this server")
    position, ephemeral = match.groups()
    if upto is not None and int(position) > upto:
        raise errors.invalid_param("That token is from the future")
    return SyncToken(int(position), None if ephemeral is None else int(ephemeral))
