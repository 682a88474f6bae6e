"""Sticky events (MSC4354): delivered to every member for a while, however much comes after them.

A client marks an event by a duration; it is sticky for so long from when it was sent. Calls use
them to say which devices take part, in place of state that anybody may set.
"""

from __future__ import annotations

from typing import Any, Final

from homebody.spec.events import Json

KEY: Final = "msc4354_sticky"
"""Of the event, and of the section in /sync."""
TTL: Final = b"msc4354_sticky_duration_ttl_ms"
MAX_MS: Final = 3_600_000


def duration_ms(pdu: Json) -> int:
    """Return how long an event is sticky; 0 for one that is not, or says so in no valid way."""
    sticky = pdu.get(KEY)
    duration: Any = sticky.get("duration_ms") if isinstance(sticky, dict) else None
    if not isinstance(duration, int) or isinstance(duration, bool) or duration < 0:
        return 0
    return min(duration, MAX_MS)


def until_ts(now_ms: int, origin_server_ts: int, duration: int) -> int:
    """Return until when (ms) an event is sticky that is known since now at the latest.

    A time in the future counts as now.
    """
    return min(now_ms, origin_server_ts) + duration
