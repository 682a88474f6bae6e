"""Templates of membership events from servers in a room, for users of this server.

Spec: server-server-api#get_matrixfederationv1make_joinroomiduserid,
server-server-api#get_matrixfederationv1make_leaveroomiduserid,
server-server-api#get_matrixfederationv1make_knockroomiduserid
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from homebody.core.events import state
from homebody.core.federation import asking
from homebody.core.profiles import profiles
from homebody.outside import RemoteError
from homebody.outside.federation import FederationClient, path_of
from homebody.spec import canonical_json, events, signing
from homebody.spec.events import Event, Json
from homebody.spec.room_versions import VERSIONS, RoomVersion
from homebody.storage.database import Server

MAX_BYTES: Final = 256 * 1024
FIRST_VERSION: Final = "1"
"""Of rooms whose template does not name a version."""


@dataclass(frozen=True, slots=True)
class Template:
    """A membership event that its user's server completes and signs."""

    version: RoomVersion
    pdu: Json
    """As it came; its type, room, sender, state_key and membership are right."""


def ask(client: FederationClient, server: str, kind: str, room_id: str, user_id: str) -> Template:
    """Return a server's template of a join, leave or knock.

    Raises RemoteError, also for a template of something else.
    """
    found = client.request(
        server,
        "GET",
        path_of(f"make_{kind}", room_id, user_id),
        query=None if kind == "leave" else {"ver": list(VERSIONS)},
        timeout_s=asking.seconds_for(client, server),
        max_bytes=MAX_BYTES,
    )
    answer = found if isinstance(found, dict) else {}
    pdu, version = answer.get("event"), answer.get("room_version", FIRST_VERSION)
    expected = {"type": state.MEMBER, "room_id": room_id, "sender": user_id, "state_key": user_id}
    if not isinstance(pdu, dict) or any(pdu.get(key) != it for key, it in expected.items()):
        raise _malformed(server, "is not of the user's membership")
    content = pdu.get("content")
    if not isinstance(content, dict) or content.get("membership") != kind:
        raise _malformed(server, f"is not of a {kind}")
    if not isinstance(version, str) or version not in VERSIONS:
        raise _malformed(server, "is of a room version that this server does not support")
    return Template(VERSIONS[version], pdu)


def complete(server: Server, template: Template, content: Json, now_ms: int) -> tuple[Event, bytes]:
    """Return the event with this content, hashed and signed, and its PDU in canonical JSON.

    Membership and authorising user are those of the template. Raises RemoteError for a template of
    which no event can be made.
    """
    version, given = template.version, template.pdu
    kept = ("membership", profiles.AUTHORISER)
    content = {key: it for key, it in content.items() if key not in kept}
    content |= {key: given["content"][key] for key in kept if key in given["content"]}
    has_id = version.event_ids == "given"
    try:
        pdu: dict[str, Any] = events.build(
            version,
            room_id=given["room_id"],
            sender=given["sender"],
            event_type=given["type"],
            content=content,
            state_key=given["state_key"],
            auth_events=given["auth_events"],
            prev_events=given["prev_events"],
            depth=given["depth"],
            origin_server_ts=now_ms,
            event_id=f"${secrets.token_urlsafe(18)}:{server.name}" if has_id else None,
        )
        canonical_json.check(pdu, is_strict=version.is_canonical_json_strict)
        event_id, signed = signing.add_hashes_and_signatures(
            pdu, version, server.name, server.signing_key
        )
        events.check_format(signed, version)
    except (KeyError, TypeError, ValueError) as problem:
        raise RemoteError(
            "bad_response", f"No event can be made of the template: {problem}"
        ) from problem
    return Event(event_id, signed, version), events.encode(signed, version)


def _malformed(server: str, what: str) -> RemoteError:
    return RemoteError("bad_response", f"The template of {server} {what}")
