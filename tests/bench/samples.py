"""What the server holds at a moment, the table of these moments, and the verdict on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from prometheus_client import parser

from tests.bench.town import Device, Faults

COUNT = 12
"""Samples of a run, so that each quarter has three."""
MORE = 0.08
MORE_MB = 6.0
"""What memory may grow by: the larger of the two."""
MORE_OPEN = 3
"""A connection that is opened again may be there twice for a moment."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One moment, in which nobody asks and the phones wait."""

    minute: float
    requests: int
    pss_mb: float
    """Of all processes of the server, what they share counted once."""
    rss_mb: float
    caches_mb: float
    waiting: int
    """Parked requests."""
    connections: int
    """Of clients; each has a greenlet."""
    threads: int
    fds: int
    database_mb: float
    failures: int
    """Answers of 500 and more, so far."""


HEADS = {
    "minute": "minute",
    "requests": "requests",
    "pss_mb": "PSS MB",
    "rss_mb": "RSS MB",
    "caches_mb": "caches MB",
    "waiting": "parked",
    "connections": "connections",
    "threads": "threads",
    "fds": "fds",
    "database_mb": "database MB",
}


def take(minute: float, device: Device, group: int) -> Sample:
    """What /metrics and /proc show now."""
    found = _metrics(device.raw("GET", "/metrics").decode())
    memory = list(memory_kb(group))
    answers = [(labels["status"], value) for labels, value in found["homebody_requests_total"]]

    def total(name: str) -> float:
        return sum(value for _, value in found.get(name, []))

    return Sample(
        minute=minute,
        requests=int(total("homebody_requests_total")),
        pss_mb=sum(pss for pss, _ in memory) / 1024,
        rss_mb=sum(rss for _, rss in memory) / 1024,
        caches_mb=total("homebody_cache_bytes") / 2**20,
        waiting=int(total("homebody_waiting_requests")),
        connections=int(total("homebody_connections")),
        threads=int(total("homebody_threads")),
        fds=int(total("process_open_fds")),
        database_mb=total("homebody_database_bytes") / 1e6,
        failures=int(sum(value for status, value in answers if int(status) >= 500)),
    )


def memory_kb(group: int) -> Iterator[tuple[int, int]]:
    """(PSS, RSS) of each process of a group; nothing without /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                rollup = (stat.parent / "smaps_rollup").read_text()
                yield _field(rollup, "Pss"), _field(rollup, "Rss")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # another process, which has ended meanwhile or is not ours


def faults(samples: Sequence[Sample], failed: Faults) -> list[str]:
    """What is wrong, in sentences; of the last quarter, compared with the second."""
    found = [f"{failed.count} requests failed: {told}" for told in failed.told[:1]]
    found += [f"and: {told}" for told in failed.told[1:]]
    if samples[-1].failures:
        found.append(f"{samples[-1].failures} answers of 500 and more")
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    before, after = median(map(unexplained_mb, second)), median(map(unexplained_mb, last))
    if after - before > max(MORE * before, MORE_MB):
        found.append(f"memory besides the caches: {before:.1f} MB, and then {after:.1f} MB")
    kept: dict[str, Callable[[Sample], int]] = {
        "parked requests": lambda it: it.waiting,
        "connections": lambda it: it.connections,
        "threads": lambda it: it.threads,
        "descriptors": lambda it: it.fds,
    }
    for name, of in kept.items():
        few, many = max(map(of, second)), max(map(of, last))
        if many > few + MORE_OPEN:
            found.append(f"{name}: {few}, and then {many}")
    return found


def unexplained_mb(sample: Sample) -> float:
    """Memory without what the caches hold: they are bounded by a setting, and may fill up."""
    return sample.pss_mb - sample.caches_mb


def markdown(samples: Sequence[Sample]) -> str:
    """The table for docs/performance.md."""
    lines = [list(HEADS.values()), ["---:"] * len(HEADS)]
    lines += [[_shown(getattr(it, name)) for name in HEADS] for it in samples]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(samples: Sequence[Sample], failed: Faults) -> dict[str, Any]:
    """The same for scripts."""
    rounded = [
        {name: round(value, 3) for name, value in asdict(sample).items()} for sample in samples
    ]
    return {"samples": rounded, "faults": faults(samples, failed)}


def _metrics(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """[(labels, value)] by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _field(rollup: str, name: str) -> int:
    return int(rollup.partition(f"\n{name}:")[2].split()[0])


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"
