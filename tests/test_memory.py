"""What the garbage collector leaves alone."""

from __future__ import annotations

import gc

from app import memory


def test_what_was_made_to_last_is_not_collected_again() -> None:
    before = gc.get_freeze_count()

    with memory.made_to_last():
        made: list[list[int]] = [[] for _ in range(1000)]

    try:
        assert gc.get_freeze_count() >= before + len(made)
        assert gc.isenabled()
    finally:
        gc.unfreeze()
