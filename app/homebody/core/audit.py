"""The audit log: which administrator has done what, and when.

Each action of an administrator adds its entry in the transaction of the action. Secrets, such as
passwords and tokens, have no place in it. It is kept as long as the settings `audit_log` say. This
module alone writes the table audit_log.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Final

from sqlalchemy import bindparam, delete, func, insert, select

from homebody.models.moderation import AuditEntry
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

COMMAND_LINE: Final = "command line"
"""The actor of the command `homebody`, which asks for no account."""

SHARED_SECRET: Final = "shared secret"  # noqa: S105 - a name
"""The actor of tools that know `registration_shared_secret`."""

MAX_SHOWN: Final = 4
"""Characters of a secret that is the subject of an action."""

DELETED_AT_ONCE: Final = 500
"""Entries for each write, so that other writers get their turn."""

_OLDEST = select(AuditEntry.id, AuditEntry.ts).order_by(AuditEntry.id).limit(DELETED_AT_ONCE)
_FIRST_BEYOND = (
    select(AuditEntry.id).order_by(AuditEntry.id.desc()).limit(1).offset(bindparam("max_entries"))
)
_DELETE = delete(AuditEntry).where(AuditEntry.id <= bindparam("last_id"))
_LATEST = select(
    AuditEntry.id,
    AuditEntry.ts,
    AuditEntry.actor,
    AuditEntry.action,
    AuditEntry.subject,
    AuditEntry.details,
).order_by(AuditEntry.id.desc())
_OF_ACTIONS = (
    select(AuditEntry.id, AuditEntry.action, AuditEntry.subject)
    .where(
        AuditEntry.id > bindparam("since"),
        AuditEntry.action.in_(bindparam("actions", expanding=True)),
    )
    .order_by(AuditEntry.id)
    .limit(bindparam("count"))
)
_LAST_OF_ACTIONS = select(func.coalesce(func.max(AuditEntry.id), 0)).where(
    AuditEntry.action.in_(bindparam("actions", expanding=True))
)


def masked(secret: str) -> str:
    """Return the beginning of a registration token, by which to tell it from others."""
    return f"{secret[: min(MAX_SHOWN, len(secret) // 4)]}…"


def note(tx: Tx, actor: str, action: str, subject: str | None = None, **details: object) -> None:
    """Add an entry: an action such as "user.lock", and the user, room or file that it concerns."""
    tx.sql.execute(
        insert(AuditEntry),
        {
            "ts": tx.now_ms,
            "actor": actor,
            "action": action,
            "subject": subject,
            "details": details,
        },
    )


def latest(
    tx: Reader,
    limit: int,
    *,
    before: int | None = None,
    subject: str | None = None,
    actor: str | None = None,
    actions: Collection[str] = (),
) -> list[Json]:
    """Return the latest entries, newest first: id, ts (ms), actor, action, subject, details.

    Args:
        tx: the transaction.
        limit: how many.
        before: only entries with smaller ids, to go on from the last one of a page.
        subject: only entries that concern this user, room or file.
        actor: only what this administrator has done.
        actions: only these actions; empty: all.

    """
    statement = _LATEST.limit(limit)
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    if subject is not None:
        statement = statement.where(AuditEntry.subject == subject)
    if actor is not None:
        statement = statement.where(AuditEntry.actor == actor)
    if actions:
        statement = statement.where(AuditEntry.action.in_(sorted(actions)))
    return [dict(row) for row in tx.sql.execute(statement).mappings()]


def of_actions(tx: Reader, actions: Collection[str], since: int, limit: int) -> list[Json]:
    """Return the first entries of these actions after an id, oldest first: id, action, subject."""
    asked = {"actions": sorted(actions), "since": since, "count": limit}
    return tx.sql.execute(_OF_ACTIONS, asked).mappings()


def last_of_actions(tx: Reader, actions: Collection[str]) -> int:
    """Return the id of the last entry of these actions; 0 if there is none."""
    return int(tx.sql.execute(_LAST_OF_ACTIONS, {"actions": sorted(actions)}).scalar_one())


def sweep(db: Database, step: Callable[[], None] = event_loop.pause) -> int:
    """Delete the entries that are too old or too many, the oldest first; return their number."""
    count, last = 0, DELETED_AT_ONCE
    while last == DELETED_AT_ONCE:
        with db.write() as tx:
            last = _delete_some(tx)
        count += last
        step()
    return count


def _delete_some(tx: Tx) -> int:
    """Delete some of the entries that are not to be kept; return their number."""
    settings = tx.server.config.audit_log
    before_ts = 0 if settings.lifetime_ms is None else tx.now_ms - settings.lifetime_ms
    beyond: int | None = None
    if settings.max_entries:
        asked = {"max_entries": settings.max_entries}
        beyond = tx.sql.execute(_FIRST_BEYOND, asked).scalar()
    gone = list(
        itertools.takewhile(
            lambda row: row.ts < before_ts or row.id <= (beyond or 0), tx.sql.execute(_OLDEST)
        )
    )
    if gone:
        tx.sql.execute(_DELETE, {"last_id": gone[-1].id})
    return len(gone)
