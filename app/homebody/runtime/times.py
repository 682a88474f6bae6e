"""How long the current request has spent in the database.

Kept for each greenlet, as the request ID is. Work outside of requests adds to an object that nobody
reads. There are no functions, as this is part of every transaction: storage/database.py adds to the
numbers, and web/middleware.py logs them.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import msgspec


class Times(msgspec.Struct):
    """Seconds in the database."""

    read: float = 0.0
    """In statements of snapshots."""
    turn: float = 0.0
    """Waiting for the turn to write."""
    write: float = 0.0
    """Holding that turn."""
    commit: float = 0.0
    """Waiting for the COMMIT of what was written."""


CURRENT: Final[ContextVar[Times]] = ContextVar("times", default=Times())  # noqa: B039 - see above
"""Those of the current request; set by web/middleware.py."""
