"""The numbers of /metrics under their names, as prometheus_client writes them.

What is counted stands in metrics.py; the rest is looked up when somebody asks. `process_…` are the
names that Prometheus' own libraries have for memory, CPU and descriptors.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.registry import Collector

from homebody.context import Homeserver
from homebody.core import outbox
from homebody.runtime.metrics import Histogram, Metrics
from homebody.storage.caches import Caches
from homebody.storage.database import Database

__all__ = ["CONTENT_TYPE", "families", "text"]

_SQLITE: Final = "sqlite:///"
_VERSION: Final = version("homebody")


class _Found(Collector):
    """Families that have been collected already."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> list[Metric]:
        return self._found


def families(homeserver: Homeserver) -> list[Metric]:
    """All metrics with their values of now."""
    metrics, database = homeserver.metrics, homeserver.database
    return [
        *_about(metrics),
        *_requests(metrics),
        _gauge("connections", "Open connections of clients.", len(metrics.connections)),
        _gauge("waiting_requests", "Requests that wait.", len(homeserver.wakeups)),
        _histogram("hub_stall_seconds", "Moments in which nobody was served.", metrics.stalls),
        _histogram("commit_seconds", "How long a COMMIT took.", metrics.commits),
        _histogram("commit_writes", "How many writes shared a COMMIT.", metrics.writes),
        *_caches(database.caches),
        *_database(database),
    ]


def text(found: list[Metric]) -> bytes:
    """The families, and those about the process, as Prometheus reads them."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Found(found))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _about(metrics: Metrics) -> Iterator[Metric]:
    info = GaugeMetricFamily("homebody_info", "What runs.", labels=["version", "python"])
    info.add_metric([_VERSION, platform.python_version()], 1)
    yield info
    yield _gauge("uptime_seconds", "Since the start.", time.time() - metrics.started_at)
    yield _gauge("threads", "Of the operating system.", _threads())


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 0


def _requests(metrics: Metrics) -> Iterator[Metric]:
    answers = CounterMetricFamily(
        "homebody_requests", "Answers, by view and status.", labels=["endpoint", "status"]
    )
    for (endpoint, status), count in metrics.answers.items():
        answers.add_metric([endpoint, str(status)], count)
    yield answers
    yield _histograms(
        "request_seconds",
        "How long requests took, without the time in which a long poll waited.",
        "endpoint",
        metrics.seconds,
    )


def _caches(caches: Caches) -> Iterator[Metric]:
    every = caches.all()
    used = {cache.name: cache.used_bytes for cache in every}
    most = {cache.name: cache.max_bytes for cache in every}
    yield _gauges("cache_bytes", "What a cache takes, about.", "cache", used)
    yield _gauges("cache_max_bytes", "What it may take.", "cache", most)
    entries = {cache.name: len(cache) for cache in every}
    yield _gauges("cache_entries", "Entries of a cache.", "cache", entries)
    for name, counts in (
        ("hits", {cache.name: cache.hits for cache in every}),
        ("misses", {cache.name: cache.misses for cache in every}),
    ):
        family = CounterMetricFamily(f"homebody_cache_{name}", "Looks into it.", labels=["cache"])
        for cache_name, count in counts.items():
            family.add_metric([cache_name], count)
        yield family


def _database(database: Database) -> Iterator[Metric]:
    with database.read() as tx:
        position, now_ms = tx.position, tx.now_ms
        waiting = outbox.backlog(tx)
    yield _gauge("position", "The server's clock: the changes so far.", position)
    rows = {kind: count for kind, count, _ in waiting}
    ages = {kind: max(now_ms - created_ts, 0) / 1000 for kind, _, created_ts in waiting}
    yield _gauges("outbox_rows", "What is still to be delivered.", "kind", rows)
    yield _gauges("outbox_oldest_seconds", "How old the oldest of it is.", "kind", ages)
    path = Path(database.server.config.database_url.removeprefix(_SQLITE))
    files = {"database": path, "wal": path.with_name(f"{path.name}-wal")}
    sizes = {name: file.stat().st_size for name, file in files.items() if file.exists()}
    yield _gauges("database_bytes", "Size of the database's files.", "file", sizes)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(f"homebody_{name}", meaning, value)


def _gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"homebody_{name}", meaning, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _histogram(name: str, meaning: str, values: Histogram) -> Metric:
    return HistogramMetricFamily(
        f"homebody_{name}", meaning, buckets=_buckets(values), sum_value=values.sum
    )


def _histograms(name: str, meaning: str, label: str, values: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"homebody_{name}", meaning, labels=[label])
    for key, histogram in values.items():
        family.add_metric([key], _buckets(histogram), histogram.sum)
    return family


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    bounds: Iterable[str] = (*(str(bound) for bound in values.bounds), "+Inf")
    return list(zip(bounds, values.cumulated(), strict=True))
