"""Transactions: the events and other data that servers send to each other.

Spec: server-server-api#transactions
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from flask import Blueprint

from homebody import errors
from homebody.context import homeserver
from homebody.server_server.authentication import content_as, limited_to, origin
from homebody.spec.events import Json

bp = Blueprint("server_transactions", __name__)

MAX_BODY_BYTES: Final = 16 * 2**20
"""50 PDUs of 64 KiB, and 100 EDUs."""
SCALE: Final = 24
"""Legal events may have a million brackets in all. A transaction that is refused is sent again and
again, so the author of such events could keep two servers apart."""
MAX_PDUS: Final = 50
MAX_EDUS: Final = 100


class Transaction(msgspec.Struct):
    """The body of a transaction."""

    pdus: list[Any]
    edus: list[Any] = []


@bp.put("/v1/send/<txn_id>")
@limited_to(MAX_BODY_BYTES, scale=SCALE)
def send_transaction(txn_id: str) -> Json:
    """Take in PDUs and EDUs, and answer when they are on the disk."""
    body, sender = content_as(Transaction), origin()
    if len(body.pdus) > MAX_PDUS or len(body.edus) > MAX_EDUS:
        raise errors.invalid_param(f"A transaction has at most {MAX_PDUS} PDUs and {MAX_EDUS} EDUs")

    def take_in() -> Json:
        began = time.monotonic()
        outcome = homeserver.inbound.receive(sender, body.pdus)
        homeserver.edus.receive(sender, body.edus)  # they may be about those events
        homeserver.metrics.received.observe(time.monotonic() - began)
        return {"pdus": outcome}

    return homeserver.transactions.once(sender, txn_id, take_in)
