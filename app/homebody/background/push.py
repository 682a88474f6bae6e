"""Deliver rows of the outbox to push gateways.

Spec: push-gateway-api#homeserver-behaviour
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from homebody.background.delivery import Kind
from homebody.core.outbox import Row
from homebody.core.push import gateway_notices, pushers
from homebody.outside import push_gateway
from homebody.outside.client import Client
from homebody.storage.database import Database

KEPT_MS: Final = 24 * 3_600_000
"""Notifications of yesterday's messages are useless when a gateway is back."""
MAX_WAIT_MS: Final = 15 * 60_000


def kind(client: Client) -> Kind:
    """Return how rows for pushers are delivered."""

    def deliver(db: Database, destination: str, rows: Sequence[Row]) -> int:
        return _deliver(db, client, destination, rows)

    return Kind(deliver, max_rows=50, max_wait_ms=MAX_WAIT_MS, kept_ms=KEPT_MS)


def _deliver(db: Database, client: Client, destination: str, rows: Sequence[Row]) -> int:
    """Notify the gateway of the first row that needs a notification."""
    with db.read() as tx:
        gateway = pushers.gateway(tx, destination)
        if gateway is None:
            return len(rows)
        for count, row in enumerate(rows, start=1):
            if "position" not in row.payload and count < len(rows):
                continue  # a later row has the counts as well
            notification = gateway_notices.about(tx, gateway, row.payload)
            if notification is not None:
                break
    if notification is None:
        return len(rows)
    if gateway.pushkey in push_gateway.notify(client, gateway.url, notification):
        with db.write() as writing:
            # unless the client has set it again meanwhile: that one was not rejected
            if pushers.gateway(writing, destination) == gateway:
                pushers.remove(writing, gateway.user_id, gateway.app_id, gateway.pushkey)
    return count
