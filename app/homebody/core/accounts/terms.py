"""The documents that people agree to when they register, and who has agreed to which version.

This module alone writes the table accepted_terms.
Spec: client-server-api#terms-of-service-at-registration
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import insert

from homebody.config.settings import Config
from homebody.models.people import AcceptedTerms
from homebody.spec.events import Json
from homebody.storage.database import Tx

STAGE: Final = "m.login.terms"

_ACCEPT = insert(AcceptedTerms)


def params(config: Config) -> Json:
    """`policies`: {id: {version, language: {name, url}}}, as the stage shows them."""
    policies: dict[str, Json] = {}
    for document in config.terms:
        policy = policies.setdefault(document.id, {"version": document.version})
        policy[document.language] = {"name": document.name, "url": document.url}
    return {"policies": policies}


def accept(tx: Tx, user_id: str) -> None:
    """Remember that a new user has agreed to all documents, as they are today."""
    policies = params(tx.server.config)["policies"]
    rows = [
        {
            "user_id": user_id,
            "document_id": document_id,
            "version": policy["version"],
            "accepted_ts": tx.now_ms,
        }
        for document_id, policy in policies.items()
    ]
    if rows:
        tx.sql.execute(_ACCEPT, rows)
