"""Time for the tests of pages."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`later(ms)`: let the time of the database pass."""
    real, passed = time.time_ns, [0]
    monkeypatch.setattr(time, "time_ns", lambda: real() + passed[0] * 1_000_000)

    def move(ms: int) -> None:
        passed[0] += ms

    return move
