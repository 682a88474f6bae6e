"""One transaction of another server at a time, and the same answer however often it is repeated.

Spec: server-server-api#transactions
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from homebody import errors
from homebody.spec.events import Json

MAX_REMEMBERED: Final = 1000
"""Origins whose last transaction is remembered."""
RETRY_AFTER_MS: Final = 1000


class Transactions:
    """The transactions under way, and the last answer to each server."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._under_way: dict[str, tuple[str, threading.Event]] = {}
        self._answers: OrderedDict[str, tuple[str, Json]] = OrderedDict()

    def once(self, origin: str, txn_id: str, take_in: Callable[[], Json]) -> Json:
        """Return what `take_in` returns, called once for each transaction of a server.

        A repetition that comes while the first request is under way waits for it. If that fails,
        the repetition tries again.
        Raises M_LIMIT_EXCEEDED for another transaction of a server while one is under way.
        """
        while (other := self._begin(origin, txn_id)) is not None:
            if isinstance(other, dict):
                return other
            other.wait()
        done = self._under_way[origin][1]
        try:
            answer = take_in()
            with self._mutex:
                self._answers[origin] = (txn_id, answer)
                self._answers.move_to_end(origin)
                while len(self._answers) > MAX_REMEMBERED:
                    self._answers.popitem(last=False)
        finally:
            with self._mutex:
                del self._under_way[origin]
            done.set()
        return answer

    def is_under_way(self, origin: str) -> bool:
        """Return whether a transaction of this server is being taken in."""
        return origin in self._under_way

    def _begin(self, origin: str, txn_id: str) -> Json | threading.Event | None:
        """Begin a transaction, or return its answer, or what to wait for."""
        with self._mutex:
            last = self._answers.get(origin)
            if last is not None and last[0] == txn_id:
                return last[1]
            current = self._under_way.get(origin)
            if current is None:
                self._under_way[origin] = (txn_id, threading.Event())
                return None
        if current[0] != txn_id:
            raise errors.limit_exceeded(RETRY_AFTER_MS)
        return current[1]
