"""Samples of what a server holds, their table, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from prometheus_client import parser

from tests.bench.town import Device, Faults

COUNT = 12
"""Samples of a run: three for each quarter."""
MORE = 0.08
MORE_MB = 6.0
"""How much memory may grow: the larger of the two."""
MORE_OPEN = 3
"""A connection that is reopened may exist twice for a moment."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A moment without requests other than the waiting long polls."""

    minute: float
    requests: int
    pss_mb: float
    """Of all processes of the server, with shared memory counted once."""
    rss_mb: float
    caches_mb: float
    waiting: int
    """Waiting requests."""
    connections: int
    """Of clients; each has a greenlet."""
    threads: int
    fds: int
    database_mb: float
    failures: int
    """Responses with status 500 and above so far."""


HEADS = {
    "minute": "minute",
    "requests": "requests",
    "pss_mb": "PSS MB",
    "rss_mb": "RSS MB",
    "caches_mb": "caches MB",
    "waiting": "waiting",
    "connections": "connections",
    "threads": "threads",
    "fds": "fds",
    "database_mb": "database MB",
}


def take(minute: float, device: Device, group: int) -> Sample:
    """Return the current values of /metrics and /proc."""
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
    """Yield (PSS, RSS) of each process of a group; nothing without /proc."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group:
                rollup = (stat.parent / "smaps_rollup").read_text()
                yield _field(rollup, "Pss"), _field(rollup, "Rss")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # a process that has ended meanwhile or is not ours


def faults(samples: Sequence[Sample], failed: Faults) -> list[str]:
    """Return what is wrong with the last quarter, compared with the second, as messages."""
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
        "waiting requests": lambda it: it.waiting,
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
    """Return the memory without the caches, which a setting bounds and which may fill up."""
    return sample.pss_mb - sample.caches_mb


def markdown(samples: Sequence[Sample]) -> str:
    """Return the table for docs/performance.md."""
    lines = [list(HEADS.values()), ["---:"] * len(HEADS)]
    lines += [[_shown(getattr(it, name)) for name in HEADS] for it in samples]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def as_json(samples: Sequence[Sample], failed: Faults) -> dict[str, Any]:
    """Return the table for scripts."""
    rounded = [
        {name: round(value, 3) for name, value in asdict(sample).items()} for sample in samples
    ]
    return {"samples": rounded, "faults": faults(samples, failed)}


def _metrics(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return [(labels, value)] by name."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def _field(rollup: str, name: str) -> int:
    return int(rollup.partition(f"\n{name}:")[2].split()[0])


def _shown(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.1f}"
