"""An event as servers exchange it (a PDU), with its id and the rules of its room.

`Event` reads the parts of a PDU that the law needs once; the PDU itself stays as it was signed.
Spec: server-server-api#pdus, and the "Event format" of each room version
"""

from __future__ import annotations

from typing import Any, Final

from app.spec.room_versions import RoomVersion

Json = dict[str, Any]
"""A JSON object. What came from outside has been checked before code relies on its shape."""
StateKey = tuple[str, str]
"""(type, state_key): what identifies one entry of a room's state."""


class Event:
    """One event of a room. Never changed after it was made.

    `auth_event_ids` and `prev_event_ids` are plain lists of ids in every room version, although
    versions 1 and 2 write them as pairs of id and hash.
    """

    __slots__ = (
        "auth_event_ids",
        "content",
        "depth",
        "event_id",
        "origin_server_ts",
        "pdu",
        "prev_event_ids",
        "room_id",
        "sender",
        "state_key",
        "type",
        "version",
    )

    def __init__(self, event_id: str, pdu: Json, version: RoomVersion) -> None:
        self.event_id: Final = event_id
        self.pdu: Final = pdu
        self.version: Final = version
        self.type: Final[str] = pdu["type"]
        self.sender: Final[str] = pdu["sender"]
        self.content: Final[Json] = pdu["content"]
        self.state_key: Final[str | None] = pdu.get("state_key")
        self.depth: Final[int] = pdu["depth"]
        self.origin_server_ts: Final[int] = pdu["origin_server_ts"]
        self.room_id: Final[str] = room_id_of(event_id, pdu, version)
        self.auth_event_ids: Final = _ids(pdu["auth_events"], version)
        self.prev_event_ids: Final = _ids(pdu["prev_events"], version)

    def __repr__(self) -> str:
        return f"<Event {self.event_id} {self.type} {self.state_key!r}>"

    @property
    def redacts(self) -> str | None:
        """The id of the event that this redaction is about, wherever the room version keeps it."""
        place = self.content if self.version.has_redacts_in_content else self.pdu
        target = place.get("redacts")
        return target if isinstance(target, str) else None


def room_id_of(event_id: str, pdu: Json, version: RoomVersion) -> str:
    """The room of a PDU: since version 12 a create event has none, as its hash names the room."""
    if version.has_privileged_creators and pdu["type"] == "m.room.create":
        return "!" + event_id[1:]
    room_id: str = pdu["room_id"]
    return room_id


def _ids(references: list[Any], version: RoomVersion) -> list[str]:
    if version.event_ids == "given":
        return [event_id for event_id, _hashes in references]
    return references
