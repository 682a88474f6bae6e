"""The table of what was measured, and the verdict on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.fill import Step

FOR_NOISE = 0.25
FOR_EACH_TENFOLD = 0.25
"""Ten times the history makes a B-tree half a level deeper, of three or four; a row that grew with
the history itself would take ten times as long."""
MOST_STATE_BYTES = 400
"""What a change of state may cost of storage for state."""


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
    """What the database takes."""
    limit = may_grow_to([step.percent for step in steps])
    message = [(it.between.bytes - it.before.bytes) / it.messages for it in steps]
    change = [(it.after.bytes - it.between.bytes) / it.changes for it in steps]
    changes = itertools.accumulate(it.changes for it in steps)
    at_first = steps[0].before.state_bytes
    # since the first step, as a few changes cost a page or none
    state = [(it.after.state_bytes - at_first) / n for it, n in zip(steps, changes, strict=True)]
    all_state = [it.after.state_bytes / it.after.state_rows for it in steps]
    return [
        Row("events", "", [it.after.events for it in steps]),
        Row("database", "MB", [it.after.bytes / 1e6 for it in steps]),
        Row("a message takes", "bytes", message, limit),
        Row("a change of membership takes", "bytes", change, limit),
        Row("of that for state", "bytes", state, most=MOST_STATE_BYTES),
        Row("a change of state, for state, all rooms", "bytes", all_state, most=MOST_STATE_BYTES),
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
