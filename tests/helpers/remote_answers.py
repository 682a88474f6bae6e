"""What a scripted remote server responds to each operation of the Server-Server API.

One function for each: it takes the remote and the request. `RESPONSES` finds them by method and the
segments after /_matrix/. Unknown rooms, users and events are M_NOT_FOUND.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from homebody.spec import event_auth, signing
from homebody.spec.events import Event
from homebody.spec.room_versions import VERSIONS
from tests.helpers import remote_checks
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.scripted_server import Request, Response

if TYPE_CHECKING:
    from tests.helpers.remote import Remote

Json = dict[str, Any]


class RefusalError(Exception):
    """An error to respond with."""

    def __init__(self, status: int, errcode: str, error: str, **fields: Any) -> None:
        super().__init__(error)
        self.response = Response(status, {"errcode": errcode, "error": error, **fields})


def not_found(what: str) -> RefusalError:
    return RefusalError(404, "M_NOT_FOUND", f"{what} is not here")


def room_of(remote: Remote, room_id: str) -> RemoteRoom:
    """Return a room of the remote. Raises M_NOT_FOUND."""
    if room_id not in remote.rooms:
        raise not_found(room_id)
    return remote.rooms[room_id]


def receive(remote: Remote, room: RemoteRoom, pdu: Json) -> Event:
    """Add an event by the server under test, and note what other servers would refuse it for."""
    try:
        remote_checks.check_event(remote.peer(), pdu, room.version)
        event = Event(signing.event_id_of(pdu, room.version), pdu, room.version)
        event_auth.check_auth_events(event, [room.events[it] for it in event.auth_event_ids])
    except (ValueError, LookupError, event_auth.AuthError) as problem:
        remote.complaints.append(f"{problem!r} in {pdu}")
    return room.receive(pdu)


def send(remote: Remote, request: Request) -> Any:
    """Record a transaction, and add its events to the rooms that the remote has."""
    transaction = {"pdus": [], "edus": [], **request.json, "transaction_id": request.parts[-1]}
    if len(transaction["pdus"]) > 50 or len(transaction["edus"]) > 100:
        remote.complaints.append("A transaction with more than 50 PDUs or 100 EDUs")
    results: Json = {}
    for pdu in transaction["pdus"]:
        room = remote.rooms.get(pdu.get("room_id"))
        if room is not None:
            results[receive(remote, room, pdu).event_id] = {}
    remote.transactions.append(transaction)
    return {"pdus": results}


def make_membership(remote: Remote, request: Request) -> Any:
    """Respond to make_join, make_leave and make_knock with an event to sign."""
    operation, room_id, user_id = request.parts[-3:]
    room = room_of(remote, room_id)
    membership = operation.removeprefix("make_")
    if membership != "leave" and room.version.name not in request.query.get("ver", ["1"]):
        wanted = room.version.name
        sentence = f"The room has version {wanted}"
        raise RefusalError(400, "M_INCOMPATIBLE_ROOM_VERSION", sentence, room_version=wanted)
    content: Json = {"membership": membership}
    rule = (room.content("m.room.join_rules") or {}).get("join_rule")
    is_restricted = rule in {"restricted", "knock_restricted"}
    if membership == "join" and is_restricted and room.membership(user_id) == "leave":
        content["join_authorised_via_users_server"] = room.creator
    pdu = room.unsigned_event("m.room.member", content, user_id, sender=user_id)
    event = room.sign(pdu, add=False)
    try:
        event_auth.check(event, room.state)
    except event_auth.AuthError as problem:
        raise RefusalError(403, "M_FORBIDDEN", str(problem)) from problem
    return {"event": {**pdu, "origin": remote.name}, "room_version": room.version.name}


def send_join(remote: Remote, request: Request) -> Any:
    """Add a join, and respond with the state before it."""
    room = room_of(remote, request.parts[-2])
    pdu = request.json
    if "join_authorised_via_users_server" in pdu["content"]:
        pdu = signing.sign_event(pdu, room.version, remote.name, remote.key)
    state = room.state
    receive(remote, room, pdu)
    omits = remote.omits_members and request.query.get("omit_members") == ["true"]
    given = [event for key, event in state.items() if not omits or key[0] != "m.room.member"]
    response = {
        "state": [event.pdu for event in given],
        "auth_chain": [event.pdu for event in room.auth_chain(given)],
        "event": pdu,
        "origin": remote.name,
        "members_omitted": omits,
        **({"servers_in_room": sorted(room.servers())} if omits else {}),
    }
    return [200, response] if request.parts[2] == "v1" else response


def send_leave(remote: Remote, request: Request) -> Any:
    """Add a leave."""
    receive(remote, room_of(remote, request.parts[-2]), request.json)
    return [200, {}] if request.parts[2] == "v1" else {}


def send_knock(remote: Remote, request: Request) -> Any:
    """Add a knock, and respond with what may be known of the room."""
    room = room_of(remote, request.parts[-2])
    receive(remote, room, request.json)
    return {"knock_room_state": stripped(room)}


def stripped(room: RemoteRoom) -> list[Json]:
    """Return the state that invites and knocks contain."""
    types = ("m.room.create", "m.room.join_rules", "m.room.name")
    found = [room.state[key, ""] for key in types if (key, "") in room.state]
    if room.version.has_privileged_creators:
        return [event.pdu for event in found]
    keys = ("type", "state_key", "sender", "content")
    return [{key: event.pdu[key] for key in keys} for event in found]


def invite(remote: Remote, request: Request) -> Any:
    """Record an invite and sign it."""
    is_old = request.parts[2] == "v1"
    given = {"event": request.json, "room_version": "1"} if is_old else request.json
    remote.invites.append(given)
    version = VERSIONS[given["room_version"]]
    try:
        remote_checks.check_event(remote.peer(), given["event"], version)
    except ValueError as problem:
        remote.complaints.append(f"{problem!r} in {given}")
    event = signing.sign_event(given["event"], version, remote.name, remote.key)
    return [200, {"event": event}] if is_old else {"event": event}


def event(remote: Remote, request: Request) -> Any:
    """Respond with a single event, in the form of a transaction."""
    wanted = request.parts[-1]
    for room in remote.rooms.values():
        if wanted in room.events and wanted not in room.hidden:
            found = room.events[wanted]
            ts = found.origin_server_ts
            return {"origin": remote.name, "origin_server_ts": ts, "pdus": [found.pdu]}
    raise not_found(wanted)


def _state_before(remote: Remote, request: Request) -> tuple[RemoteRoom, list[Event]]:
    room = room_of(remote, request.parts[-1])
    event_id = request.query["event_id"][0]
    if event_id not in room.events or event_id in room.hidden:
        raise not_found(event_id)
    return room, list(room.state_after(room.events[event_id].prev_event_ids).values())


def state(remote: Remote, request: Request) -> Any:
    """Respond with the state before an event."""
    room, found = _state_before(remote, request)
    chain = room.auth_chain(found)
    return {"pdus": [it.pdu for it in found], "auth_chain": [it.pdu for it in chain]}


def state_ids(remote: Remote, request: Request) -> Any:
    """Respond with the ids of the state before an event."""
    room, found = _state_before(remote, request)
    chain = room.auth_chain(found)
    return {
        "pdu_ids": [it.event_id for it in found],
        "auth_chain_ids": [it.event_id for it in chain],
    }


def event_auth_chain(remote: Remote, request: Request) -> Any:
    """Respond with the auth chain of an event."""
    room = room_of(remote, request.parts[-2])
    if request.parts[-1] not in room.events:
        raise not_found(request.parts[-1])
    return {"auth_chain": [it.pdu for it in room.auth_chain([room.events[request.parts[-1]]])]}


def get_missing_events(remote: Remote, request: Request) -> Any:
    """Respond with the events between two sets of events, oldest first."""
    room, asked = room_of(remote, request.parts[-1]), request.json
    latest = asked["latest_events"]
    limit = min(asked.get("limit", 10), 20) + len(latest)
    found = room.before(latest, limit, without=asked["earliest_events"])
    missing = [it for it in found if it.event_id not in latest]
    missing = [it for it in missing if it.depth >= asked.get("min_depth", 0)]
    return {"events": [it.pdu for it in sorted(missing, key=lambda it: it.depth)]}


def backfill(remote: Remote, request: Request) -> Any:
    """Respond with events and those before them, newest first."""
    room = room_of(remote, request.parts[-1])
    limit = min(int(request.query["limit"][0]), 100)
    found = room.before(request.query["v"], limit)
    return {
        "origin": remote.name,
        "origin_server_ts": 0,
        "pdus": [it.pdu for it in sorted(found, key=lambda it: -it.depth)],
    }


def timestamp_to_event(remote: Remote, request: Request) -> Any:
    """Respond with the event next to a time."""
    room = room_of(remote, request.parts[-1])
    ts, direction = int(request.query["ts"][0]), request.query["dir"][0]
    ordered = sorted(room.events.values(), key=lambda it: it.origin_server_ts)
    if direction == "b":
        found = [it for it in ordered if it.origin_server_ts <= ts][-1:]
    else:
        found = [it for it in ordered if it.origin_server_ts >= ts][:1]
    if not found:
        raise not_found("An event")
    return {"event_id": found[0].event_id, "origin_server_ts": found[0].origin_server_ts}


def profile(remote: Remote, request: Request) -> Any:
    """Respond with a profile, or one field of it."""
    user_id = request.query["user_id"][0]
    if user_id not in remote.profiles:
        raise not_found(user_id)
    found = remote.profiles[user_id]
    fields = request.query.get("field", list(found))
    return {key: value for key, value in found.items() if key in fields}


def directory(remote: Remote, request: Request) -> Any:
    """Respond with the room of an alias."""
    alias = request.query["room_alias"][0]
    if alias not in remote.aliases:
        raise not_found(alias)
    return {"room_id": remote.aliases[alias], "servers": [remote.name]}


def public_rooms(remote: Remote, _request: Request) -> Any:
    """Respond with all published rooms on one page."""
    rooms = remote.published
    return {"chunk": rooms, "total_room_count_estimate": len(rooms)}


def hierarchy(remote: Remote, request: Request) -> Any:
    """Respond with a space and its children, as the test has set them."""
    room_id = request.parts[-1]
    if room_id not in remote.hierarchies:
        raise not_found(room_id)
    return remote.hierarchies[room_id]


def user_devices(remote: Remote, request: Request) -> Any:
    """Respond with the devices of a user."""
    user_id = request.parts[-1]
    devices = remote.devices.get(user_id, {})
    return {
        "user_id": user_id,
        "stream_id": remote.device_stream_ids.get(user_id, 0),
        "devices": [
            {"device_id": device_id, "keys": keys, "device_display_name": f"Device {device_id}"}
            for device_id, keys in devices.items()
        ],
        **remote.cross_signing.get(user_id, {}),
    }


def keys_query(remote: Remote, request: Request) -> Any:
    """Respond with device keys and cross-signing keys."""
    asked = request.json["device_keys"]
    found: Json = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
    for user_id, device_ids in asked.items():
        devices = remote.devices.get(user_id, {})
        wanted = device_ids or list(devices)
        found["device_keys"][user_id] = {it: devices[it] for it in wanted if it in devices}
        for kind in ("master_key", "self_signing_key"):
            if key := remote.cross_signing.get(user_id, {}).get(kind):
                found[f"{kind}s"][user_id] = key
    return found


def keys_claim(remote: Remote, request: Request) -> Any:
    """Hand out one-time keys, each once."""
    claimed: Json = {}
    for user_id, by_device in request.json["one_time_keys"].items():
        for device_id in by_device:
            if keys := remote.one_time_keys.get((user_id, device_id)):
                key_id, key = keys.popitem()
                claimed.setdefault(user_id, {})[device_id] = {key_id: key}
    return {"one_time_keys": claimed}


def media(remote: Remote, request: Request) -> Any:
    """Respond with a file as multipart/mixed, or where it is."""
    media_id = request.parts[-1]
    if media_id not in remote.media:
        raise not_found(media_id)
    content_type, content = remote.media[media_id]
    if content_type.startswith("http"):
        part = f"Location: {content_type}\r\n\r\n".encode()
    else:
        part = f"Content-Type: {content_type}\r\n\r\n".encode() + content
    body = b"--split\r\nContent-Type: application/json\r\n\r\n{}\r\n--split\r\n" + part
    kind = {"Content-Type": 'multipart/mixed; boundary="split"'}
    return Response(200, body + b"\r\n--split--\r\n", kind)


def server_keys(remote: Remote, _request: Request) -> Any:
    """Respond with the remote's own keys."""
    return remote.published_keys()


def query_keys(remote: Remote, request: Request) -> Any:
    """Respond as a notary, for the servers that the test has set."""
    wanted = list(request.json["server_keys"]) if request.body else [request.parts[-1]]
    known = [remote.notary_for[name] for name in wanted if name in remote.notary_for]
    signed = [signing.sign_json(keys, remote.name, remote.key) for keys in known]
    return {"server_keys": signed}


def version(_remote: Remote, _request: Request) -> Any:
    """Respond with name and version."""
    return {"server": {"name": "scripted", "version": "1"}}


_FEDERATION: dict[str, Callable[[Remote, Request], Any]] = {
    "send": send,
    "make_join": make_membership,
    "make_leave": make_membership,
    "make_knock": make_membership,
    "send_join": send_join,
    "send_leave": send_leave,
    "send_knock": send_knock,
    "invite": invite,
    "event": event,
    "state": state,
    "state_ids": state_ids,
    "event_auth": event_auth_chain,
    "get_missing_events": get_missing_events,
    "backfill": backfill,
    "timestamp_to_event": timestamp_to_event,
    "publicRooms": public_rooms,
    "hierarchy": hierarchy,
    "user/devices": user_devices,
    "user/keys": keys_query,
    "query/profile": profile,
    "query/directory": directory,
    "media/download": media,
    "media/thumbnail": media,
    "version": version,
}


def respond(remote: Remote, request: Request) -> Response:
    """Respond to any request."""
    try:
        found = _responder(request)(remote, request)
    except RefusalError as refusal:
        return refusal.response
    return found if isinstance(found, Response) else Response(200, found)


def _responder(request: Request) -> Callable[[Remote, Request], Any]:
    _matrix, area, _version, *names = [*request.parts, "", ""]
    if area == "key":
        return server_keys if names[0] == "server" else query_keys
    if request.parts[-2:] == ["keys", "claim"]:
        return keys_claim
    for name in ("/".join(names[:2]), names[0]):
        if area == "federation" and name in _FEDERATION:
            return _FEDERATION[name]
    raise RefusalError(404, "M_UNRECOGNIZED", "Unknown request")
