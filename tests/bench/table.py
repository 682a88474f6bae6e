"""The table of the measurements, and what is wrong with them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.fill import Step

FOR_NOISE = 0.25
FOR_EACH_TENFOLD = 0.25
"""With ten times the history, a B-tree of three or four levels gets half a level deeper; a row that
grew with the history itself would take ten times as long."""
MOST_STATE_BYTES = 400
"""The limit for the size of a state change in the storage for state."""
MOST_CHANGE_BYTES = 2000
"""The limit for its total size, including the event and its indexes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure, with its value at each step."""

    name: str
    unit: str
    values: Sequence[float]
    may_grow_to: float | None = None
    """The limit of last value / first value; None: for information only."""
    most: float | None = None
    """The limit of the last value."""

    @property
    def growth(self) -> float:
        """Return the last value as a multiple of the first."""
        return self.values[-1] / self.values[0] if self.values[0] else math.inf

    def fault(self) -> str | None:
        """Return what is wrong, as a message, or None."""
        if self.may_grow_to is not None and self.growth > self.may_grow_to:
            limit = times(self.may_grow_to)
            return f"{self.name}: grows to {times(self.growth)}, and may to {limit}"
        if self.most is not None and self.values[-1] > self.most:
            return f"{self.name}: {self.values[-1]:.0f} {self.unit}, and may be {self.most:.0f}"
        return None


def times(factor: float) -> str:
    """Format a factor."""
    return f"\N{MULTIPLICATION SIGN}{factor:.2f}"


def may_grow_to(percents: Sequence[int]) -> float:
    """Return the limit of growth from the first of these steps to the last."""
    return 1 + FOR_NOISE + FOR_EACH_TENFOLD * math.log10(percents[-1] / percents[0])


def storage_rows(steps: Sequence[Step]) -> list[Row]:
    """Return the rows about the size of the database.

    There are few membership changes at first, and whole pages are counted: so they are counted from
    the first step on, and checked by the sum at the last.
    """
    limit = may_grow_to([step.percent for step in steps])
    message = [(it.between.bytes - it.before.bytes) / it.messages for it in steps]
    changes = list(itertools.accumulate(it.changes for it in steps))
    whole = itertools.accumulate(it.after.bytes - it.between.bytes for it in steps)
    state = [it.after.state_bytes - steps[0].before.state_bytes for it in steps]
    all_state = [it.after.state_bytes / it.after.state_rows for it in steps]
    return [
        Row("events", "", [it.after.events for it in steps]),
        Row("database", "MB", [it.after.bytes / 1e6 for it in steps]),
        Row("a message takes", "bytes", message, limit),
        Row(
            "a change of membership takes", "bytes", _each(whole, changes), None, MOST_CHANGE_BYTES
        ),
        Row("of that for state", "bytes", _each(state, changes), None, MOST_STATE_BYTES),
        Row("a change of state, for state, all rooms", "bytes", all_state, None, MOST_STATE_BYTES),
    ]


def markdown(rows: Sequence[Row], percents: Sequence[int]) -> str:
    """Return the table for docs/performance.md."""
    heads = ["row", "unit", *(f"{percent} %" for percent in percents), "growth", "at most"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        limits = [times(row.may_grow_to)] if row.may_grow_to is not None else []
        limits += [f"{row.most:.0f} {row.unit}"] if row.most is not None else []
        values = [_rounded(value) for value in row.values]
        lines.append([row.name, row.unit, *values, times(row.growth), ", ".join(limits)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows: Sequence[Row], percents: Sequence[int]) -> dict[str, Any]:
    """Return the table for scripts."""
    return {
        "percents": list(percents),
        "rows": [
            {
                "name": row.name,
                "unit": row.unit,
                "values": [round(value, 3) for value in row.values],
                "growth": round(row.growth, 3),
                "may_grow_to": row.may_grow_to,
                "most": row.most,
            }
            for row in rows
        ],
        "faults": faults(rows),
    }


def faults(rows: Sequence[Row]) -> list[str]:
    """Return everything that is wrong, as messages."""
    return [fault for row in rows if (fault := row.fault()) is not None]


def _rounded(value: float) -> str:
    """Round to three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _each(sums: Iterable[int], numbers: Iterable[int]) -> list[float]:
    return [both[0] / both[1] for both in zip(sums, numbers, strict=True)]
