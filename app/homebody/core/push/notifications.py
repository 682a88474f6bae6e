"""The list of a user's notifications.

Spec: client-server-api#listing-notifications
"""

from __future__ import annotations

import orjson
from sqlalchemy import bindparam, select

from homebody.core.events import client_events
from homebody.models.push import Notification
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

_PAGE = (
    select(
        Notification.event_position,
        Notification.room_id,
        Notification.actions,
        Notification.is_read,
    )
    .where(
        Notification.user_id == bindparam("user_id"),
        Notification.event_position < bindparam("before"),
    )
    .order_by(Notification.event_position.desc())
    .limit(bindparam("count"))
)
_HIGHLIGHTS = _PAGE.where(Notification.is_highlight.is_(True))


def page(
    tx: Reader, requester: Requester, before: int, limit: int, *, only_highlights: bool
) -> Json:
    """Return the newest `limit` notifications before a position, as GET /notifications does.

    These are unread ones, and highlights that were read. `next_token` is set if there are more.
    """
    query = _HIGHLIGHTS if only_highlights else _PAGE
    asked = {"user_id": requester.user_id, "before": before, "count": limit + 1}
    found = tx.sql.execute(query, asked).all()
    shown = found[:limit]
    numbers = client_events.numbers_at(tx, [(row.room_id, row.event_position) for row in shown])
    loaded = client_events.load(tx, list(numbers.values()))
    loaded = client_events.hide(tx, requester.user_id, loaded)
    events = {(event.room_id, event.position): event for event in loaded}
    shown_events = client_events.encode_all(tx, requester, loaded, with_room_id=False)
    encoded = dict(zip(events, shown_events, strict=True))
    notifications = [
        {
            "actions": orjson.Fragment(row.actions),
            "event": encoded[row.room_id, row.event_position],
            "read": row.is_read,
            "room_id": row.room_id,
            "ts": events[row.room_id, row.event_position].origin_server_ts,
        }
        for row in shown
        if (row.room_id, row.event_position) in events
    ]
    more = {"next_token": str(shown[-1].event_position)} if len(found) > limit else {}
    return {"notifications": notifications, **more}
