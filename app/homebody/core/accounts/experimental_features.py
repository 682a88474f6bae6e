"""Features that administrators switch on for single accounts, as tools for Synapse do.

Everything that they name is on for all accounts of this server, so they change nothing but what
GET returns. This module alone writes the table experimental_features.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select
from sqlalchemy.dialects.sqlite import insert

from homebody import errors
from homebody.core import audit
from homebody.models.accounts import ExperimentalFeature
from homebody.storage.database import Reader, Tx

NAMES: Final = ("msc3881", "msc3575", "msc4222")
"""Remote switches of pushers, sliding sync, the state after the timeline."""

_OF_USER = select(ExperimentalFeature.name, ExperimentalFeature.is_enabled).where(
    ExperimentalFeature.user_id == bindparam("user_id")
)
_UPSERT = insert(ExperimentalFeature)
_UPSERT = _UPSERT.on_conflict_do_update(
    index_elements=["user_id", "name"], set_={"is_enabled": _UPSERT.excluded.is_enabled}
)


def of_user(tx: Reader, user_id: str) -> dict[str, bool]:
    """Return {name: whether it was switched on}, of all features."""
    rows = tx.sql.execute(_OF_USER, {"user_id": user_id})
    return {**dict.fromkeys(NAMES, False), **{row.name: row.is_enabled for row in rows}}


def put(tx: Tx, actor: str, user_id: str, features: dict[str, bool]) -> None:
    """Switch features on or off. Raises M_UNKNOWN for unknown ones."""
    for name in features:
        if name not in NAMES:
            raise errors.unknown(f"{name} is not an experimental feature of this server")
    rows = [{"user_id": user_id, "name": it, "is_enabled": on} for it, on in features.items()]
    tx.sql.execute(_UPSERT, rows)
    audit.note(tx, actor, "user.features", user_id, **features)
