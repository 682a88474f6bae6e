"""What shadow-banned users send: answered as if it was sent, and stored nowhere.

As with Synapse, messages, redactions, state events, invites, room upgrades, typing notifications
and changes of name and avatar reach nobody, while joins, knocks, leaves, kicks and bans do. Here
those are without a reason, and a room that such a user creates is not published: both could be used
as messages.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

from homebody.core.events import state
from homebody.spec.events import Json
from homebody.storage.caches import Requester
from homebody.storage.database import Reader

_KEY: Final = secrets.token_bytes(32)


def event_id(tx: Reader, requester: Requester, room_id: str, txn_id: str | None = None) -> str:
    """Return an id for an event that is not stored; a repeated request gets the same one.

    Raises M_FORBIDDEN for a room in which the user isn't, as for all others.
    """
    state.check_joined(tx, room_id, requester.user_id)
    number = secrets.token_hex(8) if txn_id is None else txn_id
    named = "\0".join((requester.user_id, requester.device_id, room_id, number))
    return f"${_digest(named)}"


def is_hidden(
    tx: Reader, requester: Requester, of_room: str, event_type: str, content: Json
) -> bool:
    """Return whether a state event is left out: any but a membership, and invites.

    A join of a member changes their name, and is not stored either.
    """
    kind = content.get("membership")
    if event_type != state.MEMBER or kind == "invite":
        return True
    return kind == "join" and state.is_joined(tx, of_room, requester.user_id)


def room_id(tx: Reader, requester: Requester, replaced: str) -> str:
    """Return the id of a replacement that a room does not get. Raises as `event_id` does."""
    state.check_joined(tx, replaced, requester.user_id)
    return f"!{_digest(replaced)[:18]}:{tx.server.name}"


def _digest(text: str) -> str:
    digest = hmac.digest(_KEY, text.encode(errors="surrogatepass"), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
