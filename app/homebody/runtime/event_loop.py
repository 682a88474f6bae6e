"""How requests wait without blocking the event loop: for a thread, for a lock, for a change.

All requests share one operating-system thread, each in a greenlet. A slow call into C (a password
hash, a thumbnail, COMMIT) blocks them all, unless it runs in a thread of gevent's pool.

Long polls wait until something changes. A waiting request costs a greenlet and an entry in
`Wakeups`; it holds no transaction and no connection to the database. A change names the users
concerned, and only their requests query the database again. When a client hangs up, its connection
becomes readable: that ends the wait as well.
"""

from __future__ import annotations

import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar, cast

from gevent import Timeout, get_hub, monkey
from gevent.threadpool import ThreadPool

P = ParamSpec("P")
R = TypeVar("R")

HASHES_AT_ONCE = threading.BoundedSemaphore(2)
"""Each argon2 run takes 9 MiB and a core: more than two at once only slow each other down."""


class FairLock:
    """A lock that is handed on in the order of arrival, so that no writer starves."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._is_taken = False
        self._queue: deque[threading.Lock] = deque()

    def acquire(self) -> None:
        """Wait for the lock."""
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            ticket = threading.Lock()
            ticket.acquire()
            self._queue.append(ticket)
        try:
            ticket.acquire()  # released by release()
        except BaseException:  # the greenlet is killed, as those of requests are in the end
            self._give_up(ticket)
            raise

    def release(self) -> None:
        """Hand the lock to the next in the queue, or free it."""
        with self._mutex:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._is_taken = False

    def _give_up(self, ticket: threading.Lock) -> None:
        """Leave the queue, or hand on the lock if it has just come."""
        with self._mutex:
            is_queued = ticket in self._queue
            if is_queued:
                self._queue.remove(ticket)
        if not is_queued:
            self.release()


class FairSemaphore:
    """A semaphore that serves waiting keys in turn.

    A user who makes a hundred requests at once delays those of others by one of them at most.
    """

    def __init__(self, at_once: int) -> None:
        self._mutex = threading.Lock()
        self._free = at_once
        self._waiting: OrderedDict[str, deque[threading.Lock]] = OrderedDict()

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Wait for a turn, and hold it during the block."""
        ticket = self._queue(key)
        if ticket is not None:
            try:
                ticket.acquire()  # released by _hand_on
            except BaseException:
                self._give_up(key, ticket)
                raise
        try:
            yield
        finally:
            self._hand_on()

    def waiting(self) -> int:
        """Return the number of waiting calls."""
        with self._mutex:
            return sum(map(len, self._waiting.values()))

    def _queue(self, key: str) -> threading.Lock | None:
        with self._mutex:
            if self._free:
                self._free -= 1
                return None
            ticket = threading.Lock()
            ticket.acquire()
            self._waiting.setdefault(key, deque()).append(ticket)
            return ticket

    def _hand_on(self) -> None:
        with self._mutex:
            if not self._waiting:
                self._free += 1
                return
            key, tickets = self._waiting.popitem(last=False)
            tickets.popleft().release()
            if tickets:
                self._waiting[key] = tickets  # behind all other keys

    def _give_up(self, key: str, ticket: threading.Lock) -> None:
        """Leave the queue, or hand on the turn if it has just come."""
        with self._mutex:
            tickets = self._waiting.get(key, deque())
            is_queued = ticket in tickets
            if is_queued:
                tickets.remove(ticket)
            if not tickets:
                self._waiting.pop(key, None)
        if not is_queued:
            self._hand_on()


def offload(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return what `work` returns, run in a thread of the pool while other requests go on.

    In a process without gevent's patches (command line, tests) it runs in the caller's thread.
    """
    return begin(work, *args, **kwargs)()


def pause() -> None:
    """Yield to other requests in the middle of a long computation.

    `sleep(0)` would only queue a callback, and gevent runs up to 50 of those before it polls the
    sockets. A timer that is due makes the loop poll them first, and its low priority puts sockets
    that are ready before it. With nothing ready it returns at once.
    """
    if monkey.is_module_patched("threading"):
        hub = get_hub()
        hub.wait(hub.loop.timer(0, priority=-1))


def spawn(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
    """Start `work`, which waits for sockets, beside the caller, and return its future result.

    It runs in a greenlet; in a process without gevent's patches, in a thread.
    """
    future: Future[R] = Future()

    def run() -> None:
        try:
            future.set_result(work(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller that waits
            future.set_exception(error)

    threading.Thread(target=run, name="spawned", daemon=True).start()
    return future


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in a block that waits for longer, however little it waits at a time.

    The timeouts of gevent's TLS sockets start over with each byte of the peer. Without gevent's
    patches nothing can interrupt the block, and the timeouts of sockets cover a whole call.
    """
    if not monkey.is_module_patched("threading"):
        yield
        return
    with Timeout(seconds, TimeoutError):
        yield


def begin(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Callable[[], R]:
    """Start `work` in a thread of the pool; calling the result waits for what it returns.

    In a process without gevent's patches it runs at once.
    """
    if not monkey.is_module_patched("threading"):
        done = work(*args, **kwargs)
        return lambda: done
    return _started(get_hub().threadpool, work, args, kwargs)


class DedicatedThread:
    """A thread for one kind of work, which never queues behind other work in the pool."""

    def __init__(self) -> None:
        self._pool: ThreadPool | None = None

    def offload(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `work` returns, run in this thread while other requests go on.

        In a process without gevent's patches (command line, tests) it runs in the caller's thread.
        """
        if not monkey.is_module_patched("threading"):
            return work(*args, **kwargs)
        if self._pool is None:  # not before the worker was forked
            self._pool = ThreadPool(1)
        return _started(self._pool, work, args, kwargs)()

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.kill()


def _started(
    pool: ThreadPool, work: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[[], R]:
    """Start the work in a pool; calling the result waits for what it returns."""
    outcome = pool.spawn(_outcome, work, args, kwargs)

    def wait() -> R:
        done, error = cast("tuple[R | None, BaseException | None]", outcome.get())
        if error is not None:
            raise error
        return cast("R", done)

    return wait


def _outcome(
    work: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[R | None, BaseException | None]:
    """Return what work returns or raises; gevent would print a trace of what is raised here."""
    try:
        return work(*args, **kwargs), None
    except BaseException as error:  # noqa: BLE001 - raised again by the caller that waits
        return None, error


class Waiter:
    """A waiting request."""

    __slots__ = ("_event", "is_gone")

    def __init__(self) -> None:
        self._event = threading.Event()
        self.is_gone = False
        """Whether the client has closed its connection."""

    def wake(self) -> None:
        """End the wait, as something has changed."""
        self._event.set()

    def clear(self) -> None:
        """Forget earlier changes; call this before looking for changes."""
        self._event.clear()

    def wait(self, seconds: float, connection: socket.socket | None) -> None:
        """Wait for a change, for at most `seconds`, or until the client hangs up."""
        if connection is None or not monkey.is_module_patched("socket"):
            self._event.wait(seconds)
            return
        watcher = get_hub().loop.io(connection.fileno(), 1)
        watcher.start(self._connection_is_readable, connection, watcher)
        try:
            self._event.wait(seconds)
        finally:
            watcher.stop()
            watcher.close()

    def _connection_is_readable(self, connection: socket.socket, watcher: object) -> None:
        """Check whether the client has hung up or sent more; must not block."""
        try:
            self.is_gone = not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            self.is_gone = True
        if self.is_gone:
            self._event.set()
        else:  # its next request: the socket stays readable, and the loop would spin
            watcher.stop()  # type: ignore[attr-defined]  # gevent has no public type for watchers


class Wakeups:
    """Waiting requests by key: user ID, or room ID for a user who peeks into the room."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiter]] = {}
        self.is_closing = False
        """Whether the server is stopping, so that requests no longer wait."""

    @contextmanager
    def waiting(self, *keys: str) -> Iterator[Waiter]:
        """Register a waiter for changes of these users or rooms during the block."""
        waiter = Waiter()
        places = set(keys)
        for key in places:
            self._waiting.setdefault(key, set()).add(waiter)
        try:
            yield waiter
        finally:
            for key in places:
                self._leave(key, waiter)

    def wake(self, concerned: Sequence[Collection[str]]) -> None:
        """Wake the waiting requests of these users; "*" stands for all users.

        The cost depends on the number of waiting requests, not on the size of a room.
        """
        for user_ids in concerned:
            if "*" in user_ids:
                waiting: Collection[str] = list(self._waiting)
            elif len(user_ids) > len(self._waiting):
                waiting = [user for user in self._waiting if user in user_ids]
            else:
                waiting = user_ids
            for user_id in waiting:
                for waiter in self._waiting.get(user_id, ()):
                    waiter.wake()

    def close(self) -> None:
        """Wake all requests, and let new ones respond without waiting."""
        self.is_closing = True
        self.wake([("*",)])

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._waiting.values())

    def _leave(self, key: str, waiter: Waiter) -> None:
        waiters = self._waiting[key]
        waiters.discard(waiter)
        if not waiters:
            del self._waiting[key]
