"""Send delayed events (MSC4140) when their time has come.

One timer for all: it is set for the next event, and nothing is polled. A restart makes an event
later, so the timer may go off for nothing; then it is set for what is next now. Events whose time
came while the server was down are sent when it starts, in the order of their times.

Each event is sent in a write of its own, which looks at the event again, as it may have been
restarted or cancelled meanwhile, and finalises it. What the rules of the room or a rate limit
refuse is finalised with the error; what the disk refuses is tried again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from homebody import errors
from homebody.core.ephemeral.timers import Timers
from homebody.core.federation import policy_servers
from homebody.core.ratelimits import RateLimits
from homebody.core.rooms import delayed_sending
from homebody.core.timeline import delayed_events
from homebody.core.timeline.policies import UnapprovedError
from homebody.errors import MatrixError
from homebody.outside.federation import FederationClient
from homebody.runtime import event_loop
from homebody.storage.database import Database
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

_MS_AFTER_A_FAULT: Final = 30_000
_AT_ONCE: Final = 8
"""Events that are sent before other requests run; each takes a millisecond."""
_NOTHING: Final[Mapping[Any, Any]] = {}


class DelayedEvents:
    """The timer. `start` after fork; `stop` before closing the database."""

    def __init__(
        self,
        db: Database,
        federation: FederationClient,
        rate_limits: RateLimits,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._db = db
        self._federation = federation
        self._rate_limits = rate_limits
        self._timers = Timers(now_ms)
        self._wake_ts: int | None = None
        self._is_started = self._is_stopped = False
        self._asking: set[str] = set()
        """Events that the policy servers of their rooms are asked about."""

    def start(self) -> None:
        """Send what is due, and everything else when it is, from now on."""
        self._is_started = True
        self.note(self._timers.now_ms())

    def stop(self) -> None:
        """Send nothing more; an event that is being sent is finished."""
        self._is_started, self._is_stopped = False, True
        self._timers.close()

    def note(self, due_ts: int) -> None:
        """Look for events that are due at `due_ts` (ms); returns at once."""
        if self._is_started and (self._wake_ts is None or due_ts < self._wake_ts):
            self._wake_ts = due_ts
            self._timers.call_only_at(due_ts, self._wake)

    def _wake(self) -> None:
        self._wake_ts = None
        try:
            next_ts = self.send_due()
        except (MatrixError, OSError) as problem:  # such as a full disk
            LOG.warning("delayed events have to wait: %s", problem)
            next_ts = self._timers.now_ms() + _MS_AFTER_A_FAULT
        except Exception:
            LOG.exception("delayed events have to wait")  # else no other event would be sent
            next_ts = self._timers.now_ms() + _MS_AFTER_A_FAULT
        if next_ts is not None:
            self.note(next_ts)

    def send_due(self) -> int | None:
        """Send all events that are due; return when (ms) the next one is, None if there is none.

        Raises MatrixError (503) when the disk is full.
        """
        wait_for_commit: Callable[[], None] | None = None
        while True:
            with self._db.read() as tx:
                found = [it for it in delayed_events.due(tx) if it not in self._asking]
                if not found:  # what becomes due from now on is the next one
                    return delayed_events.next_due_ts(tx)
            for some in batches(found, _AT_ONCE):
                if self._is_stopped:
                    return None
                for delay_id in some:
                    wait_for_commit = self._send(delay_id) or wait_for_commit
                event_loop.pause()  # a write that need not wait for others yields to nobody
            if wait_for_commit is not None:
                wait_for_commit()

    def _send(
        self, delay_id: str, approved: Mapping[Any, Any] = _NOTHING
    ) -> Callable[[], None] | None:
        """Send an event if it is due still; return what waits until that is on the disk."""
        try:
            with self._db.write(is_awaited=False) as tx:
                it = delayed_events.if_due(tx, delay_id)
                if it is None:
                    return None
                tx.approved = approved
                sender = delayed_sending.requester(tx, it.user_id)
                if not approved:
                    self._rate_limits.of(sender).check("rc_message", it.user_id)
                follow = delayed_sending.send(tx, it, sender)
        except UnapprovedError as needed:
            self._ask(delay_id, needed, approved)
            return None
        except MatrixError as problem:
            if problem.status >= 500:
                raise
            return self._give_up(delay_id, problem)
        except Exception:
            LOG.exception("can't send the delayed event %s…", delay_id[:10])
            return self._give_up(delay_id, errors.unknown("Something is wrong with the server"))
        if follow is not None:
            tx.wait_for_commit()
            follow(self._db)
        return tx.wait_for_commit

    def _give_up(self, delay_id: str, problem: MatrixError) -> Callable[[], None]:
        with self._db.write(is_awaited=False) as tx:
            delayed_events.note_failed(tx, delay_id, problem)
        return tx.wait_for_commit

    def _ask(self, delay_id: str, needed: UnapprovedError, approved: Mapping[Any, Any]) -> None:
        """Have the policy server sign the event, while others are sent."""
        self._asking.add(delay_id)
        work = partial(self._send_with_approval, delay_id, needed, approved)
        threading.Thread(target=work, daemon=True).start()

    def _send_with_approval(
        self, delay_id: str, needed: UnapprovedError, approved: Mapping[Any, Any]
    ) -> None:
        try:
            event = policy_servers.approve_or_leave(
                self._db.server, self._federation, needed.policy, needed.event
            )
            self._asking.discard(delay_id)
            self._send(delay_id, {**approved, needed.key: event})
        except MatrixError as problem:
            self._asking.discard(delay_id)
            if problem.status < 500:
                self._give_up(delay_id, problem)
            else:
                LOG.warning("a delayed event has to wait: %s", problem)
        except Exception:
            self._asking.discard(delay_id)
            LOG.exception("a delayed event has to wait")
        finally:  # if it is still there, it is tried again
            self.note(self._timers.now_ms() + _MS_AFTER_A_FAULT)
