"""Lists of events are read by indexes, in their order, whatever else the table contains."""

from __future__ import annotations

from typing import Any

import pytest

from homebody.core.events import aggregations, client_events, history, members, paging, threads
from homebody.core.push import counts
from homebody.core.rooms import listing, user_redaction
from homebody.core.sliding_sync import required_state
from homebody.core.sync import device_lists, spans
from homebody.core.timeline import delayed_events, redactions, removal, sticky_events
from homebody.web import Application

BY_PLACE = "INDEX ix_events_room_id_position (room_id=? AND position"
BY_TIME = "INDEX ix_events_times (room_id=? AND origin_server_ts"
CHANGED = "COVERING INDEX ix_state_intervals_current (room_number=? AND to_position=? AND"
OVER = "INDEX ix_delayed_events_user_id_finalised_ts"
# ruff: noqa: SLF001 - this is about the statements, which nobody else needs
PLANS = {
    "a page forwards": (paging.ROWS[False], BY_PLACE),
    "a page backwards": (paging.ROWS[True], BY_PLACE),
    "the newest events of rooms": (spans._NEWEST, f"COVERING {BY_PLACE}"),
    "a search for a filter": (spans._DOWN_FROM, BY_PLACE),
    "the events at places": (client_events._AT, f"COVERING {BY_PLACE}=?"),
    "the oldest notification that is kept": (counts._OLDEST_KEPT, f"COVERING {BY_PLACE}"),
    "the first member": (members._FIRST, BY_PLACE),
    "a part of a purge": (removal._SOME_EVENTS, "INDEX ix_events_room_id_position"),
    "a part of a purge of history": (removal._OLD, BY_PLACE),
    "what is left after that": (removal._NEXT, f"COVERING {BY_PLACE}"),
    "the first event since a time": (removal._SINCE_TS, f"COVERING {BY_TIME}"),
    "the events of a user": (user_redaction._ROWS, BY_PLACE),
    "the event nearest to a time": (history.NEAR[True], BY_TIME),
    "the visible event nearest to a time": (history._FIRST_VISIBLE[False], BY_TIME),
    "threads": (threads._LATEST, "INDEX ix_events_threads (room_id=? AND position"),
    "a thread": (aggregations._THREADS, "COVERING INDEX ix_events_replies"),
    "references": (aggregations._REFERENCES, "INDEX ix_events_references (relates_to=?"),
    "edits": (aggregations._EDITS, "COVERING INDEX ix_events_edits"),
    "what shows a redacted event": (redactions._REPLACED_BY, "INDEX ix_events_replaces"),
    "the names of all rooms": (listing._CONTENTS, "PRIMARY KEY (room_number=? AND type=? AND s"),
    "the sizes of all rooms": (listing._MEMBERS, f"{CHANGED} membership=?"),
    "changed state": (required_state._HELD_BUT_MEMBERS, f"{CHANGED} membership=? AND from_pos"),
    "delayed events that are over": (delayed_events._FORGET_MANY, f"{OVER} (user_id=? AND fin"),
    "sticky events since a position": (sticky_events._SINCE, "ix_sticky_events_position (position"),
    "those of rooms": (sticky_events._IN_ROOMS, "ix_sticky_events_room_id_sender (room_id=?)"),
    "those of a user": (sticky_events._KEEP_LATEST, "ix_sticky_events_room_id_sender (room_id=? A"),
    "those that were soft-failed": (sticky_events._HIDDEN, "ix_sticky_events_room_id_sender (room"),
    "changed members": (device_lists._MOVED, f"{CHANGED} membership=? AND from_position>?"),
}
SORTED = {"the newest events of rooms", "references", "those that were soft-failed"}
"""Those of several rooms, parents or users: the few that were found are sorted."""
VALUES: dict[str, Any] = dict.fromkeys(
    (
        "room_id",
        "after",
        "upto",
        "count",
        "ts",
        "since",
        "number",
        "before",
        "since_ts",
        "now_ts",
        "domain",
        "now_ms",
        "of_user",
        "of_room",
        "by",
    ),
    1,
)
LISTS = ("spans", "places", "parents", "ignored", "rooms", "room_ids", "numbers", "types")


@pytest.mark.parametrize("what", PLANS)
def test_a_list_is_read_by_an_index(app: Application, what: str) -> None:
    statement, index = PLANS[what]
    values = VALUES | {"reader": "@a:x"} | {name: [] for name in LISTS}

    with app.homeserver.database.read() as tx:
        compiled = tx.sql.compiled(statement)
        explained = f"EXPLAIN QUERY PLAN {compiled.sql}"
        plan = [row[3] for row in tx.sql.raw.execute(explained, compiled.bind(values))]

    assert any(index in step for step in plan), plan
    assert not any(step.startswith(("SCAN events", "SCAN state_intervals")) for step in plan), plan
    is_sorted = any("ORDER BY" in step for step in plan)
    assert is_sorted == (what in SORTED), plan
