"""Which servers a room's access control list lets take part.

A list may have thousands of patterns, and is asked for every event and request of another server,
so the lists of the rooms that are busy at the moment stay prepared.

Spec: server-server-api#server-access-control-lists-acls
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Final

from homebody import errors
from homebody.core.events import state
from homebody.spec.events import Json, StateKey
from homebody.spec.server_acl import ServerAcl
from homebody.storage.database import Reader

ACL: Final[StateKey] = ("m.room.server_acl", "")
MAX_PREPARED: Final = 64
"""Lists of 64 KiB take 1 MB each."""


@dataclass(frozen=True, slots=True)
class _Content:
    """The content of an event; a redaction changes it."""

    event_id: str
    content: Json = field(hash=False)


def allows(tx: Reader, room_id: str, server_name: str) -> bool:
    """Return whether a server may take part in a room; this one always may.

    An administrator of the room elsewhere may have forgotten it, and what happens here is to go on.
    """
    if server_name == tx.server.name:
        return True
    event = state.current(tx, room_id, *ACL)
    return event is None or _prepared(_Content(event.event_id, event.content)).allows(server_name)


def check(tx: Reader, room_id: str, server_name: str) -> None:
    """Raise M_FORBIDDEN for a server that the room's ACL denies."""
    if not allows(tx, room_id, server_name):
        raise errors.forbidden("The room's m.room.server_acl denies your server")


@functools.lru_cache(maxsize=MAX_PREPARED)
def _prepared(acl: _Content) -> ServerAcl:
    return ServerAcl(acl.content)
