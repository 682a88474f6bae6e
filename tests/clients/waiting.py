"""Waits with a deadline, for tests whose other half is an external program."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

WAIT_SECONDS = 15.0
_LOOK_EVERY_SECONDS = 0.02

Found = TypeVar("Found")


async def until(look: Callable[[], Found], what: str, report: Callable[[], str] = str) -> Found:
    """The first truthy answer of `look`; `report` tells what was there instead.

    Raises AssertionError when WAIT_SECONDS have passed without one.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {WAIT_SECONDS} s; {report()}")
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return found
