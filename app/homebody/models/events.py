"""Events, which of them they are and where they stand, and the progress of their text index."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base, EventNumber

ACCEPTED: Final = "accepted"
"""The `standing` of an event of the room's timeline; others are not shown in it."""
HISTORY: Final = "history"
"""Of an event from before this server joined the room: in the timeline, never current state."""
SOFT_FAILED: Final = "soft_failed"
"""Allowed by the state before it, but not by the current state: not shown."""
REJECTED: Final = "rejected"
"""Not allowed by its auth events or by the state before it."""
OUT_OF_BAND: Final = "out_of_band"
"""Of the membership of a local user in a room that this server is not in: its auth events are not
known."""
OUTLIER: Final = "outlier"
"""Stored because others cite it; the state before it is not known."""


class StoredEvent(Base):
    """One event of a room.

    Only core/timeline/store.py, older_events.py, redactions.py, leaving_threads.py, differences.py,
    rechecks.py, many_outliers.py and removal.py write here.

    `number` says which event it is: numbers are assigned in the order of storing, so that an event
    has a higher one than those that it cites in `auth_events`. `position` says where it stands in
    the room and the stream, on the server's clock; positions are unique within a room. Events in
    no timeline (outliers, rejected, soft-failed ones) have none, which keeps them out of every
    list: a query that is not limited by a range of positions needs `position IS NOT NULL`.

    The columns after `state_diff` repeat parts of `pdu` for queries.
    """

    __tablename__ = "events"
    number: Mapped[EventNumber] = mapped_column(primary_key=True, autoincrement=False)
    event_id: Mapped[str] = mapped_column(unique=True)
    room_id: Mapped[str]
    position: Mapped[int | None]
    standing: Mapped[str]  # accepted, soft_failed, rejected, outlier, history or out_of_band
    # the state before the event: that at a position, overlaid by a difference; both None for an
    # event with a position: the state just before it
    state_at: Mapped[int | None]
    state_diff: Mapped[int | None]
    type: Mapped[str]
    state_key: Mapped[str | None]
    sender: Mapped[str]
    origin_server_ts: Mapped[int]
    pdu: Mapped[str]  # canonical JSON as signed, or redacted
    replaces: Mapped[EventNumber | None]  # the replaced state event
    redacted_by: Mapped[EventNumber | None]  # the redaction
    relates_to: Mapped[str | None]  # m.relates_to.event_id
    rel_type: Mapped[str | None]
    thread_id: Mapped[str | None]  # root of the event's thread; None: main
    edit_of: Mapped[EventNumber | None]  # the event that this is a valid edit of
    annotation_key: Mapped[bytes | None]  # digest of a reaction's key
    # The transaction of the request, in the same row so that a crash can't separate
    # it from the event; without a device, the delay_id of an event that was scheduled.
    # See the specification: client-server-api#transaction-identifiers
    device_id: Mapped[str | None]
    txn_id: Mapped[str | None]

    __table_args__ = (
        # also of events without position, which a purge has to find
        Index(None, "room_id", "position", unique=True),
        Index(  # for timestamp_to_event
            "ix_events_times",
            "room_id",
            "origin_server_ts",
            "position",
            sqlite_where=text("position IS NOT NULL"),
        ),
        Index(  # for the list of threads
            "ix_events_threads",
            "room_id",
            "position",
            sqlite_where=text("rel_type = 'm.thread'"),
        ),
        # a user's relations to an event, among all others …
        Index(
            "ix_events_relations",
            "relates_to",
            "rel_type",
            "sender",
            sqlite_where=text("relates_to IS NOT NULL"),
        ),
        # … and the same reaction among all of the user's reactions
        Index(
            "ix_events_annotations",
            "relates_to",
            "sender",
            "type",
            "annotation_key",
            sqlite_where=text("annotation_key IS NOT NULL"),
        ),
        # For bundled aggregations. Each is a covering index of one kind of relation, so that
        # thousands of other relations don't make an event expensive to read.
        Index(
            "ix_events_replies",
            "thread_id",
            "rel_type",  # otherwise SQLite reads the row
            "sender",
            "position",
            sqlite_where=text("rel_type = 'm.thread'"),
        ),
        Index(
            "ix_events_references",
            "relates_to",
            "room_id",
            "position",
            sqlite_where=text("rel_type = 'm.reference'"),
        ),
        Index(
            "ix_events_edits",
            "edit_of",
            "origin_server_ts",
            "event_id",
            "position",
            sqlite_where=text("edit_of IS NOT NULL"),
        ),
        # for redactions: where an event is shown as the previous one
        Index("ix_events_replaces", "replaces", sqlite_where=text("replaces IS NOT NULL")),
        Index(  # for the deletion of differences
            "ix_events_state_diff", "state_diff", sqlite_where=text("state_diff IS NOT NULL")
        ),
        Index(
            "ix_events_transaction",
            "sender",
            "device_id",
            "txn_id",
            sqlite_where=text("txn_id IS NOT NULL"),
        ),
        Index(
            None,
            "relates_to",
            "position",
            sqlite_where=text("relates_to IS NOT NULL"),
        ),
    )


class SearchProgress(Base):
    """One row: all events up to here are in the index. Written by core/events/search_index.py.

    The index itself, search_index, is a virtual table without a class: see migration 0005.
    """

    __tablename__ = "search_progress"
    id: Mapped[int] = mapped_column(primary_key=True)  # always 1
    number: Mapped[EventNumber]
