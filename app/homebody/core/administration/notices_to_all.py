"""A server notice to all users, one after the other: a task, which goes on after a restart.

Each user gets it once, as the ID of the task is the transaction ID of its notices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import select

from homebody import errors
from homebody.core import audit, tasks
from homebody.core.rooms import server_notices
from homebody.core.rooms.server_notices import Notice
from homebody.core.tasks import Task
from homebody.errors import MatrixError
from homebody.models.accounts import Account
from homebody.models.appservices import AppserviceUser
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database, Reader, Tx

ACTION: Final = "notice_to_all"
"""The name of the task."""

Report = Callable[[Json], None]

_RECIPIENTS = (
    select(Account.user_id)
    .where(
        Account.deactivated_ts.is_(None),
        Account.is_guest.is_(False),
        Account.user_id.not_in(select(AppserviceUser.user_id)),
    )
    .order_by(Account.user_id)
)


def nothing(_so_far: Json) -> None:
    """Report to nobody."""


def order(tx: Tx, actor: str, text: str) -> str:
    """Order the task that sends a text to all users, and return its ID.

    Raises M_INVALID_PARAM for an empty text, M_UNKNOWN (400) where no sender is configured.
    """
    note(tx, actor, text)
    return tasks.add(tx, ACTION, {"actor": actor, "text": text})


def note(tx: Tx, actor: str, text: str) -> None:
    """Check what `order` checks, and add the audit log's entry, which is without the text."""
    if not text.strip():
        raise errors.invalid_param("The notice has no text")
    server_notices.sender(tx)
    audit.note(tx, actor, "notice.send_to_all")


def recipients(tx: Reader) -> list[str]:
    """Return the users who get it: not guests, users of bridges, and the sender of notices."""
    sender = f"@{tx.server.config.server_notices_user}:{tx.server.name}"
    return [it for it in tx.sql.execute(_RECIPIENTS).scalars() if it != sender]


def run(db: Database, task: Task, report: Report) -> Json:
    """Do what `order` has ordered."""
    return send(db, task.params["actor"], task.params["text"], task.id, report)


def send(db: Database, actor: str, text: str, txn_id: str, report: Report = nothing) -> Json:
    """Send a text to all users, and return how many there are as `users`.

    `report` is called after each user, with the number so far. Repeated with the same transaction
    ID, it reaches only those who do not have it.
    """
    notice = server_notices.text_notice(text, txn_id)
    with db.read() as reading:
        user_ids = recipients(reading)
    sent = 0
    for user_id in user_ids:
        sent += _send_one(db, actor, user_id, notice)
        report({"users": sent})
        event_loop.pause()
    return {"users": sent}


def _send_one(db: Database, actor: str, user_id: str, notice: Notice) -> bool:
    try:
        with db.write() as tx:
            server_notices.send_unnoted(tx, actor, user_id, notice)
    except MatrixError as error:
        if error.status >= 500:
            raise
        return False  # the account was deactivated meanwhile
    return True
