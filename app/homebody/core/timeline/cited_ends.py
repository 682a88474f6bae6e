"""Which ends of a room's graph an event of this server follows, in a room that has many.

An event may cite 20 others, and each that cites many makes the state before it harder to find. So
it follows the newest ends, and the others are left for the next events. If the states of those have
gone apart by thousands of entries, resolving them would hold up all writes: then it follows one end
only, after which its sender may do the same as now, and a dummy event joins the others in the
background (core/federation/dummy_events.py).

Spec: server-server-api#pdus
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from homebody.core.events import state
from homebody.core.timeline import forks, limits
from homebody.core.timeline.forks import Point
from homebody.core.timeline.limits import TooLongError
from homebody.spec.events import StateKey
from homebody.storage.database import Reader, Tx

MAX_CITED: Final = 10
"""Events that a new one follows; of a room with more ends, the newest ones."""
SECONDS_TO_RESOLVE: Final = 0.02
"""For the states after these, in the write that stores the new one."""


def choose(
    tx: Tx, room_id: str, head: state.RoomHead, keys: Collection[StateKey]
) -> tuple[state.RoomHead, Point | None]:
    """Return the head with some ends only, and the state after those.

    The state is None if it is the current one. `keys`: the entries of the state that decide whether
    the event is allowed. Raises TooLongError if the write is limited already.
    """
    ends = head.forward_extremities[-MAX_CITED:]
    points = forks.after_events(tx, ends)
    try:
        with _limited(tx):
            before = forks.resolve(tx, room_id, list(points.values()))
    except TooLongError:
        if limits.is_limited(tx):  # by a caller who wants to join the ends
            raise
        end = _like_now(tx, room_id, ends, points, keys)
        ends = [end] if end is not None else ends
        before = forks.resolve(tx, room_id, [points[it] for it in ends if it in points])
    with _limited(tx):
        is_current = not forks.may_differ(tx, room_id, before, forks.current(tx))
    return head._replace(forward_extremities=ends), None if is_current else before


def _like_now(
    tx: Reader,
    room_id: str,
    ends: Sequence[str],
    points: Mapping[str, Point],
    keys: Collection[StateKey],
) -> str | None:
    """Return the newest end with the same entries after it as the current state, or None."""
    current = forks.values(tx, room_id, forks.current(tx), keys)
    for end in reversed(ends):
        if end in points and forks.values(tx, room_id, points[end], keys) == current:
            return end
    return None


@contextmanager
def _limited(tx: Tx) -> Iterator[None]:
    """Limit the state resolution of a block, and not more than it is."""
    before = tx.seconds_to_resolve
    tx.seconds_to_resolve = min(before, SECONDS_TO_RESOLVE)
    try:
        yield
    finally:
        tx.seconds_to_resolve = before
