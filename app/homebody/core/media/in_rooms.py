"""The files of a room: those to which its unencrypted events refer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, case, func, select

from homebody.models.events import StoredEvent
from homebody.runtime import event_loop
from homebody.spec.events import Json
from homebody.storage.database import Database

_AT_ONCE: Final = 500
_MXC: Final = "mxc://"
_EVENTS = (
    select(
        StoredEvent.position,
        case((func.instr(StoredEvent.pdu, _MXC) > 0, StoredEvent.pdu), else_=None).label("pdu"),
    )
    .where(
        StoredEvent.room_id == bindparam("room_id"),
        StoredEvent.position < bindparam("before"),
    )
    .order_by(StoredEvent.position.desc())
    .limit(_AT_ONCE)
)


def uris(db: Database, room_id: str) -> list[tuple[str, str]]:
    """Return (server name, media ID) of the room's files, those of the latest events first.

    Files of messages, stickers and the room's avatar, with their thumbnails; not members' avatars.
    """
    found: dict[tuple[str, str], None] = {}
    before = 2**63 - 1
    while True:
        with db.read() as tx:
            rows = tx.sql.execute(_EVENTS, {"room_id": room_id, "before": before}).all()
        for row in rows:
            if row.pdu is not None:
                found.update(dict.fromkeys(_of_event(orjson.loads(row.pdu))))
        if len(rows) < _AT_ONCE:
            return list(found)
        before = rows[-1].position
        event_loop.pause()


def _of_event(pdu: Json) -> Iterator[tuple[str, str]]:
    content = pdu["content"]
    for whole in (content, content.get("m.new_content")):
        if isinstance(whole, dict):
            for place in (whole, whole.get("info")):
                if isinstance(place, dict):
                    yield from _of_place(place)


def _of_place(place: dict[str, Any]) -> Iterator[tuple[str, str]]:
    urls = [place.get("url"), place.get("thumbnail_url")]
    for name in ("file", "thumbnail_file"):
        encrypted = place.get(name)
        urls.append(encrypted.get("url") if isinstance(encrypted, dict) else None)
    for url in urls:
        if isinstance(url, str) and url.startswith(_MXC):
            origin, _, media_id = url.removeprefix(_MXC).partition("/")
            if origin and media_id:
                yield origin, media_id
