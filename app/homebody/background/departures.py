"""Deliver rows of the outbox as leaves to other servers; see core/federation/departures.py.

Spec: server-server-api#leaving-rooms-rejecting-invites
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from homebody.background.delivery import Kind
from homebody.core.federation import departures
from homebody.core.outbox import Row
from homebody.outside.federation import FederationClient
from homebody.storage.database import Database

KEPT_MS: Final = 7 * 86_400_000


def kind(client: FederationClient) -> Kind:
    """Return how leaves are delivered, by this client."""

    def deliver(db: Database, room_id: str, rows: Sequence[Row]) -> int:
        departures.send(db, client, room_id, rows[0].payload)
        return 1

    return Kind(deliver, kept_ms=KEPT_MS)
