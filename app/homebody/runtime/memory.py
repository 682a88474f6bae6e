"""What the process keeps: have the C library give back the rest, and the collector let it be.

A password hash takes 9 MiB for a moment. glibc keeps such blocks, once freed, in a heap of the
thread that hashed, for ever: after a day with some logins the server holds twice the memory that it
uses. Told to map large blocks one by one, it returns each to the system.
Measured: docs/performance.md.

Smaller blocks leave holes between those that stay. glibc returns only what is free at the end of a
heap, so an hour of mixed traffic (`make traffic`) left 29 MB of holes, and more came; asked to trim
every few seconds, it returns the pages in the holes too.

What the start makes (modules, routes, statements: 120,000 objects) lasts as long as the
process. Python's collector would go through all of it again and again, for 50 ms each time in which
nobody is answered; frozen, it is left out.
"""

from __future__ import annotations

import ctypes
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

LOG = logging.getLogger(__name__)

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
BLOCK_BYTES = 2**20
HEAPS = 2


def give_back() -> None:
    """Set up this process's allocator; does nothing where the C library has no such settings."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        LOG.debug("this C library has no mallopt")
        return
    mallopt(M_MMAP_THRESHOLD, BLOCK_BYTES)
    mallopt(M_TRIM_THRESHOLD, BLOCK_BYTES)
    mallopt(M_ARENA_MAX, HEAPS)


def trim() -> None:
    """Return free pages to the system, in 1 to 4 ms; nothing where the C library cannot.

    Not for a thread: whoever allocates meanwhile waits for the heap's lock, and so the hub does.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except AttributeError:
        LOG.debug("this C library has no malloc_trim")
        return
    malloc_trim(0)


@contextmanager
def made_to_last() -> Iterator[None]:
    """What the block makes is never looked at by the garbage collector."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
