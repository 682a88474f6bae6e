"""Have the C library give back what it no longer needs.

A password hash takes 19 MiB for a moment. glibc keeps such blocks, once freed, in a heap of the
thread that hashed, for ever: after a day with some logins the server holds twice the memory that it
uses. Told to map large blocks one by one, it returns each to the system.
Measured: docs/performance.md.
"""

from __future__ import annotations

import ctypes
import logging

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
