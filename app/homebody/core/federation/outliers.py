"""Storing a few events that others cite, such as an auth chain; thousands of them: bulk.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from homebody.core.federation.pdus import Received
from homebody.core.timeline import receiving
from homebody.core.timeline.receiving import MissingEventsError
from homebody.runtime import event_loop
from homebody.spec import event_order
from homebody.storage.database import Database
from homebody.storage.expressions import batches

LOG = logging.getLogger(__name__)

EVENTS_PER_WRITE: Final = 20


def store(db: Database, received: Iterable[Received]) -> None:
    """Store events as outliers, and leave out those whose auth events are missing."""
    by_id = {it.event.event_id: it for it in received}
    ordered = event_order.oldest_first([it.event for it in by_id.values()])
    for some in batches(ordered, EVENTS_PER_WRITE):
        with db.write() as tx:
            for event in some:
                try:
                    receiving.receive_outlier(tx, *by_id[event.event_id])
                except MissingEventsError as problem:
                    LOG.info("left out the event %s: %s", event.event_id, problem)
        event_loop.pause()
