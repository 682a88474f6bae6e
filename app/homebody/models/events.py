"""Events, ordered by the server's clock, and the progress of their full-text index."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class StoredEvent(Base):
    """One event of a room.

    Only core/timeline/store.py, redactions.py and leaving_threads.py write here.

    The other columns repeat parts of `pdu` for queries.
    """

    __tablename__ = "events"
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_id: Mapped[str] = mapped_column(unique=True)
    room_id: Mapped[str]
    type: Mapped[str]
    state_key: Mapped[str | None]
    sender: Mapped[str]
    origin_server_ts: Mapped[int]
    pdu: Mapped[str]  # canonical JSON as signed, or redacted
    replaces: Mapped[int | None]  # position of the replaced state event
    redacted_by: Mapped[int | None]  # position of the redaction event
    relates_to: Mapped[str | None]  # m.relates_to.event_id
    rel_type: Mapped[str | None]
    thread_id: Mapped[str | None]  # root of the event's thread; None: main
    edit_of: Mapped[int | None]  # position of the event that this is a valid edit of
    annotation_key: Mapped[bytes | None]  # digest of a reaction's key
    # The transaction of the request, in the same row so that a crash can't separate
    # it from the event. Spec: client-server-api#transaction-identifiers
    device_id: Mapped[str | None]
    txn_id: Mapped[str | None]

    __table_args__ = (
        Index(None, "room_id", "position"),
        Index(None, "room_id", "origin_server_ts"),  # for timestamp_to_event
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
            sqlite_where=text("rel_type = 'm.thread'"),
        ),
        Index(
            "ix_events_references",
            "relates_to",
            "room_id",
            sqlite_where=text("rel_type = 'm.reference'"),
        ),
        Index(
            "ix_events_edits",
            "edit_of",
            "origin_server_ts",
            "event_id",
            sqlite_where=text("edit_of IS NOT NULL"),
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
            sqlite_where=text("relates_to IS NOT NULL"),
        ),
    )


class SearchProgress(Base):
    """One row: all events up to here are in the index. Written by core/events/search_index.py.

    The index itself, search_index, is a virtual table without a class: see migration 0005.
    """

    __tablename__ = "search_progress"
    id: Mapped[int] = mapped_column(primary_key=True)  # always 1
    position: Mapped[int]
