"""Reports about rooms, events and users; administrators read them with `homebody reports`.

This module alone writes the table reports.
Spec: client-server-api#reporting-content
"""

from __future__ import annotations

from typing import Final

import orjson
from sqlalchemy import delete, insert, select

from homebody import errors
from homebody.core import audit
from homebody.core.accounts import accounts
from homebody.core.events import history, state
from homebody.models.events import StoredEvent
from homebody.models.moderation import Report
from homebody.spec.events import Json
from homebody.storage.database import Reader, Tx

MAX_REASON: Final = 5000
"""Characters."""

_ALL = (
    select(
        Report.id,
        Report.created_ts,
        Report.reporter,
        Report.reason,
        Report.room_id,
        Report.event_id,
        Report.user_id,
        Report.score,
        StoredEvent.pdu,
    )
    .outerjoin(StoredEvent, StoredEvent.event_id == Report.event_id)
    .order_by(Report.id)
)


def report_room(tx: Tx, reporter: str, room_id: str, reason: str) -> None:
    """Add a report about a room, which the reporter need not be in. Raises M_NOT_FOUND."""
    state.head(tx, room_id)
    _add(tx, reporter, reason, room_id=room_id)


def report_event(
    tx: Tx, reporter: str, room_id: str, event_id: str, reason: str, score: int | None = None
) -> None:
    """Add a report about an event; `score` is from -100 (most offensive) to 0, by old clients.

    Raises M_NOT_FOUND for an event that the reporter can't see, and unless they are in the room:
    "servers MUST verify that the reporting user is currently joined to the room".
    """
    if not state.is_joined(tx, room_id, reporter):
        raise errors.not_found("You are not in this room")
    found = history.event(tx, reporter, event_id, room_id)
    _add(
        tx,
        reporter,
        reason,
        room_id=room_id,
        event_id=event_id,
        user_id=found.sender,
        score=score,
    )


def report_user(tx: Tx, reporter: str, user_id: str, reason: str) -> None:
    """Add a report about a user. Raises M_NOT_FOUND for an unknown one."""
    if accounts.find(tx, user_id) is None:
        raise errors.not_found("This server has no such user")
    _add(tx, reporter, reason, user_id=user_id)


def all_reports(tx: Reader) -> list[Json]:
    """Return all reports, oldest first: id, created_ts (ms), reporter, reason and the subject.

    `event` is the current content of the reported event, where the server still has it.
    """
    return [_described(dict(row)) for row in tx.sql.execute(_ALL).mappings()]


def remove(tx: Tx, actor: str, report_id: int) -> None:
    """Delete a report. Raises M_NOT_FOUND."""
    if not tx.sql.execute(delete(Report).where(Report.id == report_id)).rowcount:
        raise errors.not_found(f"There is no report {report_id}")
    audit.note(tx, actor, "report.remove", None, id=report_id)


def remove_room(tx: Tx, room_id: str) -> None:
    """Delete all reports about a room; called by rooms/purge.py alone."""
    tx.sql.execute(delete(Report).where(Report.room_id == room_id))


def _add(
    tx: Tx,
    reporter: str,
    reason: str,
    *,
    room_id: str | None = None,
    event_id: str | None = None,
    user_id: str | None = None,
    score: int | None = None,
) -> None:
    if len(reason) > MAX_REASON:
        raise errors.invalid_param(f"The reason is longer than {MAX_REASON} characters")
    subject = {"room_id": room_id, "event_id": event_id, "user_id": user_id}
    report = {"created_ts": tx.now_ms, "reporter": reporter, "reason": reason, "score": score}
    tx.sql.execute(insert(Report), {**subject, **report})


def _described(report: Json) -> Json:
    pdu = report.pop("pdu")
    report = {key: value for key, value in report.items() if value is not None}
    if pdu is not None:
        event = orjson.loads(pdu)
        report["event"] = {"type": event["type"], "content": event["content"]}
    return report
