"""Reports of events and of users, as administrators page through them.

`core/rooms/reports.py` writes them. Reports of whole rooms are in neither list, as Synapse's admin
API has none of them; `homebody reports list` prints all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson
from sqlalchemy import Select, bindparam, func, select

from homebody import errors
from homebody.models.base import NOW_AND_LATER
from homebody.models.events import StoredEvent
from homebody.models.moderation import Report
from homebody.models.rooms import Room
from homebody.models.state import StateInterval
from homebody.spec.events import Json
from homebody.storage.database import Reader
from homebody.storage.expressions import contains, unindexed

_SHOWN: Final = {
    "name": ("m.room.name", "name"),
    "canonical_alias": ("m.room.canonical_alias", "alias"),
}
"""{key of a report: (event type, key of its content)}."""


@dataclass(frozen=True, slots=True)
class Query:
    """The parameters of a request for a list; filters that are None select everything."""

    start: int = 0
    limit: int = 100
    is_backwards: bool = True
    """The newest first."""
    reporter: str | None = None
    """A part of the user ID."""
    room_id: str | None = None
    """A part of the room ID."""
    sender: str | None = None
    """The sender of the event."""
    target: str | None = None
    """A part of the ID of the reported user."""


def _current(event_type: str) -> Any:
    """Return the PDU of the current state of the report's room, as a column."""
    return (
        select(StoredEvent.pdu)
        .join(StateInterval, StateInterval.event_number == StoredEvent.number)
        .join(Room, Room.number == StateInterval.room_number)
        .where(
            Room.room_id == Report.room_id,
            StateInterval.type == event_type,
            StateInterval.state_key == "",
            unindexed(StateInterval.to_position) == NOW_AND_LATER,
        )
        .correlate(Report)
        .limit(1)
        .scalar_subquery()
    )


_OF_EVENTS = select(
    Report.id,
    Report.created_ts.label("received_ts"),
    Report.room_id,
    Report.event_id,
    Report.reporter.label("user_id"),
    Report.user_id.label("sender"),
    Report.reason,
    Report.score,
    *(_current(event_type).label(name) for name, (event_type, _) in _SHOWN.items()),
).where(Report.event_id.is_not(None))
_OF_USERS = select(
    Report.id,
    Report.created_ts.label("received_ts"),
    Report.user_id.label("target_user_id"),
    Report.reporter.label("user_id"),
    Report.reason,
).where(Report.event_id.is_(None), Report.room_id.is_(None))
_ALL = select(
    Report.id,
    Report.created_ts.label("received_ts"),
    Report.room_id,
    Report.event_id,
    Report.user_id.label("target_user_id"),
    Report.reporter.label("user_id"),
    Report.reason,
)
_PDU = select(StoredEvent.pdu).where(StoredEvent.event_id == bindparam("event_id"))


def of_events(tx: Reader, query: Query) -> tuple[list[Json], int]:
    """Return a page of the reports of events, and the number of all that match.

    Of each: id, received_ts (ms), room_id, event_id, user_id (who reported), sender, reason,
    score, and name and canonical_alias of the room, None where it has none.
    """
    found, total = _page(tx, _OF_EVENTS, query)
    return [_with_names(row) for row in found], total


def of_users(tx: Reader, query: Query) -> tuple[list[Json], int]:
    """Return a page of the reports of users, and the number of all that match.

    Of each: id, received_ts (ms), target_user_id, user_id (who reported), reason.
    """
    return _page(tx, _OF_USERS, query)


def of_all(tx: Reader, query: Query) -> tuple[list[Json], int]:
    """Return a page of all reports, also those of rooms, and the number of all that match.

    Of each: id, received_ts (ms), room_id, event_id, target_user_id (who wrote the event, or is
    reported), user_id (who reported), reason.
    """
    return _page(tx, _ALL, query)


def any_of(tx: Reader, report_id: int) -> Json:
    """Return a report as `of_all`, and the PDU of its event, if any. Raises M_NOT_FOUND."""
    report = _one(tx, _ALL, report_id)
    pdu = tx.sql.execute(_PDU, {"event_id": report["event_id"]}).scalar()
    return {**report, "pdu": None if pdu is None else orjson.loads(pdu)}


def of_event(tx: Reader, report_id: int) -> Json:
    """Return a report of an event as `of_events`, and `event_json`. Raises M_NOT_FOUND.

    `event_json` is None if the event was purged.
    """
    report = _with_names(_one(tx, _OF_EVENTS, report_id))
    pdu = tx.sql.execute(_PDU, {"event_id": report["event_id"]}).scalar()
    ids = {key: report[key] for key in ("event_id", "room_id")}
    event = None if pdu is None else {**orjson.loads(pdu), **ids}
    return {**report, "event_json": event}


def of_user(tx: Reader, report_id: int) -> Json:
    """Return a report of a user as `of_users`. Raises M_NOT_FOUND."""
    return _one(tx, _OF_USERS, report_id)


def _one(tx: Reader, reports: Select[*tuple[Any, ...]], report_id: int) -> Json:
    found: list[Json] = tx.sql.execute(reports.where(Report.id == report_id)).mappings()
    if not found:
        raise errors.not_found(f"There is no report {report_id}")
    return dict(found[0])


def _page(tx: Reader, reports: Select[*tuple[Any, ...]], query: Query) -> tuple[list[Json], int]:
    parts = (
        (Report.reporter, query.reporter),
        (Report.room_id, query.room_id),
        (Report.user_id, query.target),
    )
    for column, part in parts:
        if part:
            reports = reports.where(contains(column, part))
    if query.sender:
        reports = reports.where(Report.user_id == query.sender)
    count = reports.with_only_columns(func.count(Report.id))
    total = tx.sql.execute(count).scalar_one()
    ordered = reports.order_by(Report.id.desc() if query.is_backwards else Report.id)
    found = tx.sql.execute(ordered.offset(query.start).limit(query.limit)).mappings()
    return [dict(row) for row in found], total


def _with_names(report: Json) -> Json:
    """Return a report with the names of its room in place of the events in which they are."""
    for name, (_, key) in _SHOWN.items():
        if report[name] is not None:
            value = orjson.loads(report[name])["content"].get(key)
            report[name] = value if isinstance(value, str) and value else None
    return report
