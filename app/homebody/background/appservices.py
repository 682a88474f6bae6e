"""Deliver rows of the outbox to application services, as transactions.

The ID of a transaction is made of the IDs of its first and last row. A failed one is repeated
with the same rows: "Homeservers MUST NOT alter (e.g. add more) events". It holds back the later
ones as long as it fails; only the administrator may skip it. After a crash it may have become
longer, and then has another ID: the rows in both are delivered twice, and nothing is lost.

Spec: application-service-api#pushing-events
"""

from __future__ import annotations

from collections.abc import Sequence

from homebody.background.delivery import Kind
from homebody.core.appservices import bridged_devices, transactions
from homebody.core.encryption import bridged_keys
from homebody.core.outbox import Row
from homebody.outside import appservice
from homebody.storage.database import Database


def deliver(db: Database, service_id: str, rows: Sequence[Row]) -> int:
    """Deliver rows of a service in one transaction, and return how many they were.

    Raises RemoteError when the service does not accept it.
    """
    service = db.server.appservices.by_id(service_id)
    if service is None or service.url is None:
        return len(rows)  # the administrator has removed its registration
    same = transactions.first_of(rows)
    with db.read() as tx:
        events = transactions.events_of(tx, same)
        further = bridged_devices.sections(tx, service, same, events)
        further |= bridged_keys.sections(tx, bridged_devices.devices(same))
        body = transactions.body(tx, same, events, further)
    if body is not None:
        txn_id = f"{same[0].id}-{same[-1].id}"
        appservice.send_transaction(db.server.config, service, txn_id, body)
    return len(same)


KIND = Kind(deliver, max_rows=transactions.MAX_ROWS, max_wait_ms=60_000)
"""Bridges run next to the server: an attempt per minute costs little, and ends a pause soon."""
