"""Settings of the C library's allocator and of the garbage collector.

A password hash takes 9 MiB for a moment. glibc keeps such blocks, once freed, in a heap of the
thread that hashed: after a day with some logins the server holds twice the memory that it uses.
With a threshold for mmap, large blocks are mapped one by one and returned to the system.
Measured: docs/performance.md.

Smaller blocks leave holes between those that stay. glibc returns only what is free at the end of a
heap, so an hour of mixed traffic (`make traffic`) left 29 MB of holes, still growing; malloc_trim,
called every few seconds, returns the pages in the holes too.

What is created at the start (modules, routes, statements: 120,000 objects) lasts as long as the
process. Each full collection would traverse it and block the event loop for 50 ms; frozen objects
are left out.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOG = logging.getLogger(__name__)

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
BLOCK_BYTES = 2**20
HEAPS = 2


def tune_allocator() -> None:
    """Configure this process's allocator; does nothing where the C library has no mallopt."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        LOG.debug("the C library has no mallopt")
        return
    mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES)
    mallopt(M_ARENA_MAX, HEAPS)


def trim() -> None:
    """Return free pages to the system, in 1 to 4 ms; does nothing without malloc_trim.

    Not to be called in another thread: the event loop would wait for the lock of the heap.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        LOG.debug("the C library has no malloc_trim")
        return
    malloc_trim(0)


@contextmanager
def frozen() -> Iterator[None]:
    """Exclude the objects that the block creates from garbage collection."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def resident_bytes() -> int | None:
    """Return how much memory this process takes; None where the system does not say it."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * resource.getpagesize()
