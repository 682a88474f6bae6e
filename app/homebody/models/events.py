"""Events, in the order of the server's clock."""

from __future__ import annotations

from sqlalchemy import Index, text
from sqlalchemy.orm import Mapped, mapped_column

from homebody.models.base import Base


class StoredEvent(Base):
    """One event of a room.

    Only core/timeline/store.py, redactions.py and leaving_threads.py write here.

    The columns beside `pdu` repeat parts of it, for look-ups.
    """

    __tablename__ = "events"
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_id: Mapped[str] = mapped_column(unique=True)
    room_id: Mapped[str]
    type: Mapped[str]
    state_key: Mapped[str | None]
    sender: Mapped[str]
    origin_server_ts: Mapped[int]
    pdu: Mapped[str]  # canonical JSON as signed; after a redaction what that left of it
    replaces: Mapped[int | None]  # position of the state event that this one took the place of
    redacted_by: Mapped[int | None]  # position of the redaction
    relates_to: Mapped[str | None]  # m.relates_to.event_id
    rel_type: Mapped[str | None]
    thread_id: Mapped[str | None]  # root of the thread that the event belongs to, None: main
    edit_of: Mapped[int | None]  # position of the event that this one validly replaces
    annotation_key: Mapped[bytes | None]  # of a reaction: a digest of its key
    # Who sent it by which transaction id: the event and the memory of its request are one row, so
    # that no crash can part them. Spec: client-server-api#transaction-identifiers
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
        # for what somebody has said about an event already, among all that others have …
        Index(
            "ix_events_relations",
            "relates_to",
            "rel_type",
            "sender",
            sqlite_where=text("relates_to IS NOT NULL"),
        ),
        # … and for the same reaction among all others of theirs
        Index(
            "ix_events_annotations",
            "relates_to",
            "sender",
            "type",
            "annotation_key",
            sqlite_where=text("annotation_key IS NOT NULL"),
        ),
        # For bundles. Each answers by itself, and holds one kind of relation only: nobody makes an
        # event costly to read by relating thousands of others to it.
        Index(
            "ix_events_replies",
            "thread_id",
            "rel_type",  # else SQLite looks it up in the row
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
