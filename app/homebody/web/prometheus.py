"""The numbers of /metrics under their names, for prometheus_client to write.

What is counted stands in runtime/metrics.py; the rest is looked up at each scrape. `process_…` are
the names that Prometheus' own libraries have for memory, CPU and descriptors.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

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
from homebody.storage import last_backup
from homebody.storage.caches import Caches
from homebody.storage.database import Database

__all__ = ["CONTENT_TYPE", "Snapshot"]

_SQLITE: Final = "sqlite:///"
_VERSION: Final = version("homebody")


class Snapshot(Collector):
    """The metrics of a homeserver as they are now, except those about the process."""

    def __init__(self, homeserver: Homeserver) -> None:
        metrics, database = homeserver.metrics, homeserver.database
        self._families = [
            *_about(metrics),
            *_requests(metrics),
            _gauge("connections", "Open connections of clients.", len(metrics.connections)),
            _gauge("waiting_requests", "Requests that wait.", len(homeserver.wakeups)),
            _histogram("hub_stall_seconds", "Blocks of the event loop.", metrics.stalls),
            CounterMetricFamily(
                "homebody_read_seconds", "Time in statements that read.", metrics.read_seconds
            ),
            _histogram("write_wait_seconds", "How long writes waited.", metrics.write_turns),
            _histogram("write_seconds", "How long they kept others waiting.", metrics.writing),
            _histogram("commit_seconds", "How long a COMMIT took.", metrics.commits),
            _histogram("commit_writes", "How many writes shared a COMMIT.", metrics.writes),
            *_federation(homeserver),
            *_backups(homeserver),
            *_caches(database.caches),
            *_database(database),
        ]

    def collect(self) -> list[Metric]:
        """Return the metrics; see prometheus_client."""
        return self._families

    def text(self) -> bytes:
        """Write the metrics, and those about the process, as Prometheus reads them."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        return generate_latest(registry)


def _about(metrics: Metrics) -> Iterator[Metric]:
    info = GaugeMetricFamily("homebody_info", "Versions.", labels=["version", "python"])
    info.add_metric([_VERSION, platform.python_version()], 1)
    yield info
    yield _gauge("uptime_seconds", "Time since the start.", time.time() - metrics.started_at)
    yield _gauge("threads", "Threads of the operating system.", _threads())


def _threads() -> int:
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else 0


def _requests(metrics: Metrics) -> Iterator[Metric]:
    responses = CounterMetricFamily(
        "homebody_requests", "Responses, by view and status.", labels=["endpoint", "status"]
    )
    for (endpoint, status), count in metrics.responses.items():
        responses.add_metric([endpoint, str(status)], count)
    yield responses
    seconds = HistogramMetricFamily(
        "homebody_request_seconds",
        "How long requests took, without the time in which a long poll waited.",
        labels=["endpoint"],
    )
    for endpoint, histogram in metrics.seconds.items():
        seconds.add_metric([endpoint], _buckets(histogram), histogram.sum)
    yield seconds


def _federation(homeserver: Homeserver) -> Iterator[Metric]:
    """Yield what is sent to other servers, and what they send."""
    if not homeserver.server.config.federation:
        return
    metrics = homeserver.metrics
    waiting, failing = homeserver.sender.counts()
    destinations = {"waiting": waiting, "failing": failing}
    yield _gauges(
        "federation_destinations", "Servers that lack something, and that fail.", "is", destinations
    )
    sent = CounterMetricFamily("homebody_federation_sent", "What was sent.", labels=["kind"])
    sent.add_metric(["pdu"], metrics.pdus_sent)
    sent.add_metric(["edu"], metrics.edus_sent)
    yield sent
    yield _histogram(
        "federation_transaction_seconds",
        "How long other servers took to accept transactions.",
        metrics.transactions,
    )
    yield from _received(metrics)


def _received(metrics: Metrics) -> Iterator[Metric]:
    pdus = _counters("federation_received_pdus", "Events of other servers.", "standing")
    for standing, count in metrics.pdus_received.items():
        pdus.add_metric([standing], count)
    edus = _counters("federation_received_edus", "EDUs of other servers.", "type")
    for edu_type, count in metrics.edus_received.items():
        edus.add_metric([edu_type], count)
    yield from (pdus, edus)
    yield _histogram(
        "federation_received_transaction_seconds",
        "How long this server took to accept transactions.",
        metrics.received,
    )
    yield _histogram(
        "federation_state_resolution_seconds", "How long it took.", metrics.resolutions
    )
    for name, meaning, outcomes in (
        ("gap", "Searches for events that others follow or cite.", metrics.gaps),
        ("join", "Joins by way of other servers.", metrics.joins),
    ):
        counts = _counters(f"federation_{name}s", meaning, "outcome")
        for outcome, count in outcomes.counts.items():
            counts.add_metric([outcome], count)
        yield counts
        yield _histogram(f"federation_{name}_seconds", meaning, outcomes.seconds)


def _backups(homeserver: Homeserver) -> Iterator[Metric]:
    metrics, config = homeserver.metrics, homeserver.server.config
    if (latest := last_backup.read(config.data_dir)) is not None:
        yield _gauge(
            "backup_last_success_timestamp_seconds", "When the latest was made.", latest.ts / 1000
        )
    if config.backup.folder is None:
        return
    counts = _counters("backups", "Scheduled backups.", "outcome")
    for outcome, count in metrics.backups.counts.items():
        counts.add_metric([outcome], count)
    yield counts
    yield _histogram("backup_seconds", "How long they took.", metrics.backups.seconds)


def _caches(caches: Caches) -> Iterator[Metric]:
    values: list[tuple[Callable[..., Any], str, str, Callable[[Any], int]]] = [
        (GaugeMetricFamily, "bytes", "Approximate size of a cache.", attrgetter("used_bytes")),
        (GaugeMetricFamily, "max_bytes", "Largest size of a cache.", attrgetter("max_bytes")),
        (GaugeMetricFamily, "entries", "Entries of a cache.", len),
        (CounterMetricFamily, "hits", "Lookups that found an entry.", attrgetter("hits")),
        (CounterMetricFamily, "misses", "Lookups that found none.", attrgetter("misses")),
    ]
    for make, name, meaning, value_of in values:
        family = make(f"homebody_cache_{name}", meaning, labels=["cache"])
        for cache in caches.all():
            family.add_metric([cache.name], value_of(cache))
        yield family


def _database(database: Database) -> Iterator[Metric]:
    with database.read() as tx:
        position, now_ms = tx.position, tx.now_ms
        waiting = outbox.backlog(tx)
    yield _gauge("position", "Position of the last change.", position)
    rows = {kind: count for kind, count, _ in waiting}
    ages = {kind: max(now_ms - created_ts, 0) / 1000 for kind, _, created_ts in waiting}
    yield _gauges("outbox_rows", "Rows that wait for delivery.", "kind", rows)
    yield _gauges("outbox_oldest_seconds", "Age of the oldest such row.", "kind", ages)
    path = Path(database.server.config.database_url.removeprefix(_SQLITE))
    files = {"database": path, "wal": path.with_name(f"{path.name}-wal")}
    sizes = {name: file.stat().st_size for name, file in files.items() if file.exists()}
    yield _gauges("database_bytes", "Size of the database's files.", "file", sizes)


def _counters(name: str, meaning: str, label: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"homebody_{name}", meaning, labels=[label])


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


def _buckets(values: Histogram) -> list[tuple[str, float]]:
    bounds: Iterable[str] = (*(str(bound) for bound in values.bounds), "+Inf")
    return list(zip(bounds, values.cumulated(), strict=True))
