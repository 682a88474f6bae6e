"""Storing a few events that others cite, such as an auth chain; thousands of them: bulk.py."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy import select

from homebody.core.federation.pdus import Received
from homebody.core.timeline import receiving
from homebody.core.timeline.receiving import MissingEventsError
from homebody.models.events import OUT_OF_BAND, StoredEvent
from homebody.runtime import event_loop
from homebody.spec import event_order
from homebody.storage.database import Database
from homebody.storage.expressions import batches, listed

LOG = logging.getLogger(__name__)

EVENTS_PER_WRITE: Final = 20
IDS_PER_READ: Final = 500

_IDS = listed("event_ids")
_STORED = select(StoredEvent.event_id).where(
    StoredEvent.event_id.in_(select(_IDS.c.value)), StoredEvent.standing != OUT_OF_BAND
)


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


def missing(db: Database, event_ids: Iterable[str], enough: int) -> list[str]:
    """Return which events are not stored with their auth events; no more once `enough` are not."""
    found: list[str] = []
    for some in batches(event_ids, IDS_PER_READ):
        with db.read() as tx:
            stored = set(tx.sql.execute(_STORED, {"event_ids": some}).scalars())
        found += [it for it in some if it not in stored]
        if len(found) > enough:
            break
        event_loop.pause()
    return found
