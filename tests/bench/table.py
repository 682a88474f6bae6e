"""The table of what was measured, and the verdict on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.fill import Step

FOR_NOISE = 0.25
FOR_EACH_TENFOLD = 0.25
"""Ten times the history makes a B-tree half a level deeper, of three or four; a row that grew with
the history itself would take ten times as long."""
MOST_STATE_BYTES = 400
"""What a change of state may take of storage for state."""
MOST_CHANGE_BYTES = 2000
"""What it may take of everything, its event and the event's indexes included."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that was measured at each step."""

    name: str
    unit: str
    values: Sequence[float]
    may_grow_to: float | None = None
    """How many times the first value the last one may be; None: it tells, and is not judged."""
    most: float | None = None
    """What the last value may not exceed."""

    @property
    def growth(self) -> float:
        """The last value as a multiple of the first."""
        return self.values[-1] / self.values[0] if self.values[0] else math.inf

    def fault(self) -> str | None:
        """What is wrong, as a sentence; None where all is well."""
        if self.may_grow_to is not None and self.growth > self.may_grow_to:
            limit = times(self.may_grow_to)
            return f"{self.name}: grows to {times(self.growth)}, and may to {limit}"
        if self.most is not None and self.values[-1] > self.most:
            return f"{self.name}: {self.values[-1]:.0f} {self.unit}, and may be {self.most:.0f}"
        return None


def times(factor: float) -> str:
    """A factor as the table shows it."""
    return f"\N{MULTIPLICATION SIGN}{factor:.2f}"


def may_grow_to(percents: Sequence[int]) -> float:
    """The limit of growth from the first of these steps to the last."""
    return 1 + FOR_NOISE + FOR_EACH_TENFOLD * math.log10(percents[-1] / percents[0])


def storage_rows(steps: Sequence[Step]) -> list[Row]:
    """What the database takes.

    Of changes of membership there are few at first, and each page is counted whole: so they are
    counted from the first step on, and judged by the sum at the last.
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
    """The table for docs/performance.md."""
    heads = ["row", "unit", *(f"{percent} %" for percent in percents), "growth", "at most"]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        limits = [times(row.may_grow_to)] if row.may_grow_to is not None else []
        limits += [f"{row.most:.0f} {row.unit}"] if row.most is not None else []
        values = [_rounded(value) for value in row.values]
        lines.append([row.name, row.unit, *values, times(row.growth), ", ".join(limits)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(rows: Sequence[Row], percents: Sequence[int]) -> dict[str, Any]:
    """The same for scripts."""
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
    """Everything that is wrong, in sentences."""
    return [fault for row in rows if (fault := row.fault()) is not None]


def _rounded(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _each(sums: Iterable[int], numbers: Iterable[int]) -> list[float]:
    return [both[0] / both[1] for both in zip(sums, numbers, strict=True)]
