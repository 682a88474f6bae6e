"""Rows of the outbox become transactions for application services.

A transaction is named by its first and its last row. One that failed is made of the same rows
again: "Homeservers MUST NOT alter (e.g. add more) events". It holds back the later ones as long as
it fails; only the owner may skip it. After a crash it may have become longer, and has another name
then: what was in both is delivered twice, and nothing is lost.

Spec: application-service-api#pushing-events
"""

from __future__ import annotations

from collections.abc import Sequence

from homebody.background.delivery import Kind
from homebody.core.appservices import transactions
from homebody.core.outbox import Row
from homebody.outside import appservice
from homebody.storage.database import Database


def deliver(db: Database, service_id: str, rows: Sequence[Row]) -> int:
    """How many of a service's rows have been delivered, in one transaction.

    Raises RemoteError when the service does not take it.
    """
    service = db.server.appservices.by_id(service_id)
    if service is None or service.url is None:
        return len(rows)  # the owner has taken it out of the configuration
    same = transactions.first_of(rows)
    with db.read() as tx:
        told = transactions.body(tx, same)
    if told is not None:
        name = f"{same[0].id}-{same[-1].id}"
        appservice.send_transaction(db.server.config, service, name, told)
    return len(same)


KIND = Kind(deliver, at_once=transactions.MAX_ROWS, longest_wait_ms=60_000)
"""Bridges run beside the server: to ask each minute costs little, and ends a pause soon."""
