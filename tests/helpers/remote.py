"""A scripted remote homeserver: another server of the federation, on a real socket with TLS.

    b = remote("b.test")                      # a server with a key of its own
    room = b.room("11", creator="carol")      # a room there, on no server but this
    room = b.join(room_id, "carol")           # or one of the server under test, which she joins
    b.send(room.message("hello"))             # PUT /send to the server under test
    b.wait_for_event(event_id)                # what that sends is recorded

It responds to every operation from what the test gave it (`remote_answers.py`), and fails if asked
to (`scripted_server.py`): `b.fail("/send_join/", 500)`, `b.hang("/state_ids/")`. Events that are
wrong are made by `remote_room.py`. A test fails if the server under test sends requests without a
valid signature, or events that other servers would not accept; `unsigned.clear()` and
`complaints.clear()` forgive that.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from nacl.signing import SigningKey as Seed

from homebody.config.settings import SIGNING_KEY_NAME
from homebody.spec import signing
from homebody.spec.events import Event
from homebody.spec.signing import SigningKey
from homebody.web import Application
from tests.helpers import certificates, peers, remote_answers, remote_checks, remote_room
from tests.helpers.peers import Answer, Peer, nowhere
from tests.helpers.remote_room import RemoteRoom
from tests.helpers.scripted_server import Request, Response, ScriptedServer
from tests.helpers.server import RunningServer

Json = dict[str, Any]
FEDERATION = "/_matrix/federation/"
NAMES = ("b.test", "c.test", "d.test")
"""Names that `Remotes.settings` maps to listeners."""


class Remote:
    """A scripted server. What it responds is in plain attributes, to be set by tests."""

    _transaction_ids = itertools.count(1)

    def __init__(self, listener: ScriptedServer, name: str = "") -> None:
        self.name = name or f"127.0.0.1:{listener.port}"
        self.key = _new_key("a_1")
        self.old_keys: dict[str, Json] = {}
        self.key_valid_for_ms = 24 * 3_600_000
        self.listener = listener
        self.lock = threading.RLock()
        self.peer: Callable[[], Peer] = nowhere
        # what it has
        self.rooms: dict[str, RemoteRoom] = {}
        self.profiles: dict[str, Json] = {}
        self.aliases: dict[str, str] = {}
        self.published: list[Json] = []
        self.hierarchies: dict[str, Json] = {}
        self.devices: dict[str, dict[str, Json]] = {}
        self.device_stream_ids: dict[str, int] = {}
        self.cross_signing: dict[str, Json] = {}
        self.one_time_keys: dict[tuple[str, str], Json] = {}
        self.media: dict[str, tuple[str, bytes]] = {}
        self.notary_for: dict[str, Json] = {}
        self.omits_members = False
        # what it received
        self.transactions: list[Json] = []
        self.invites: list[Json] = []
        self.unsigned: list[str] = []
        """The requests without a valid signature."""
        self.complaints: list[str] = []
        """What else other servers would not accept."""
        # faults, by a text in the path
        self.answer = listener.answer
        self.fail = listener.fail
        self.hang = listener.hang
        self.delay = listener.delay
        self.cut = listener.cut
        self.recover = listener.recover
        self.received = listener.received
        self.wait_until = listener.wait_until

    def user_id(self, user: str) -> str:
        """Return the user ID of a localpart; whole ids are returned as they are."""
        return user if user.startswith("@") else f"@{user}:{self.name}"

    # rooms

    def room(self, version: str = "11", creator: str = "carol", **options: Any) -> RemoteRoom:
        """Make a room here, with the options of `remote_room.make`."""
        room = remote_room.make(self, version, creator, **options)
        self.rooms[room.id] = room
        return room

    def join(self, room_id: str, user: str = "carol", **content: Any) -> RemoteRoom:
        """Join a user to a room of the server under test, and return the room."""
        template = self._template("make_join", room_id, user)
        pdu, version = template["event"], template["room_version"]
        pdu["content"].update(content)
        room = RemoteRoom(self, version, self.user_id(user), room_id)
        event = room.sign(_with_event_id(room, pdu), add=False)
        answer = self.put("v2", "send_join", room_id, event.event_id, json=event.pdu)
        assert answer.status == 200, answer
        joined = answer.json.get("event", event.pdu)
        room.load(answer.json["state"], answer.json["auth_chain"], joined)
        self.rooms[room_id] = room
        return room

    def leave(self, room_id: str, user: str = "carol") -> Event:
        """Leave a room of the server under test, or reject an invite."""
        return self._make_and_send("leave", room_id, user)[0]

    def knock(self, room_id: str, user: str = "carol") -> list[Json]:
        """Knock, and return the stripped state."""
        answer = self._make_and_send("knock", room_id, user)[1]
        state: list[Json] = answer["knock_room_state"]
        return state

    def invite(self, room: RemoteRoom, user_id: str, **options: Any) -> Answer:
        """Invite a user of the server under test, and add the event if the server signs it."""
        event = room.member(user_id, "invite", sender=room.creator, add=False, **options)
        body = {
            "event": event.pdu,
            "room_version": room.version.name,
            "invite_room_state": remote_answers.stripped(room),
        }
        answer = self.put("v2", "invite", room.id, event.event_id, json=body)
        if answer.status == 200:
            room.receive(answer.json["event"])
        return answer

    def _make_and_send(self, verb: str, room_id: str, user: str) -> tuple[Event, Json]:
        template = self._template(f"make_{verb}", room_id, user)
        room = self.rooms.get(room_id)
        room = room or RemoteRoom(self, template["room_version"], self.user_id(user), room_id)
        event = room.sign(_with_event_id(room, template["event"]), add=False)
        version = "v1" if verb == "knock" else "v2"
        answer = self.put(version, f"send_{verb}", room_id, event.event_id, json=event.pdu)
        assert answer.status == 200, answer
        room.receive(event.pdu)
        return event, answer.json

    def _template(self, operation: str, room_id: str, user: str) -> Json:
        versions = [("ver", str(number)) for number in range(1, 13)]
        answer = self.get("v1", operation, room_id, self.user_id(user), query=versions)
        assert answer.status == 200, answer
        template: Json = answer.json
        return template

    # requests to the server under test

    def send(
        self, *pdus: Event | Json, edus: list[Json] | None = None, transaction_id: str = ""
    ) -> Json:
        """Send a transaction, and return {event ID: {} or {"error": …}}."""
        answer = self.try_to_send(*pdus, edus=edus, transaction_id=transaction_id)
        assert answer.status == 200, answer
        results: Json = answer.json["pdus"]
        return results

    def try_to_send(
        self, *pdus: Event | Json, edus: list[Json] | None = None, transaction_id: str = ""
    ) -> Answer:
        """Send a transaction, and return the response as it is."""
        body = {
            "origin": self.name,
            "origin_server_ts": int(time.time() * 1000),
            "pdus": [it.pdu if isinstance(it, Event) else it for it in pdus],
            "edus": edus or [],
        }
        transaction_id = transaction_id or f"t{next(self._transaction_ids)}"
        return self.put("v1", "send", transaction_id, json=body)

    def send_edu(self, edu_type: str, content: Json) -> None:
        """Send a single EDU."""
        self.send(edus=[edu(edu_type, content)])

    def get(self, *parts: str, **options: Any) -> Answer:
        """Send a GET: `get("v1", "state_ids", room_id, query={"event_id": …})`."""
        return self.request("GET", path(*parts), **options)

    def put(self, *parts: str, **options: Any) -> Answer:
        """Send a PUT with a body `json`, or as bytes `body`."""
        return self.request("PUT", path(*parts), **options)

    def post(self, *parts: str, **options: Any) -> Answer:
        """Send a POST with a body `json`, or as bytes `body`."""
        return self.request("POST", path(*parts), **options)

    def request(
        self,
        method: str,
        uri: str,
        /,
        *,
        json: Any = None,
        body: bytes | None = None,
        query: Any = None,
        authorization: str | None = None,
        **claims: str,
    ) -> Answer:
        """Send a signed request.

        `claims`: an `origin`, `destination`, `uri` or `method` that is signed instead of the true
        one. `authorization`: a header to send instead; "" for none.
        """
        uri += "?" + urlencode(query, doseq=True) if query else ""
        peer = self.peer()
        content = _encode(json) if json is not None else body or b""
        if json is None and body:
            json = _decode(body)
        if authorization is None:
            authorization = self.authorization(method, uri, json, peer.name, **claims)
        headers = {"Content-Type": "application/json"} if content else {}
        if authorization:
            headers["Authorization"] = authorization
        status, answer = peer.call(method, uri, headers, content)
        return Answer(status, _decode(answer))

    def authorization(
        self, method: str, uri: str, content: Any, destination: str, /, **claims: str
    ) -> str:
        """Return the header that signs a request."""
        signed: Json = {
            "method": method,
            "uri": uri,
            "origin": self.name,
            "destination": destination,
            **({} if content is None else {"content": content}),
            **claims,
        }
        origin = signed["origin"]
        try:
            signed = signing.sign_json(signed, origin, self.key)
        except ValueError:  # such as a lone surrogate: no server could sign that
            signed = signing.sign_json({**signed, "content": None}, origin, self.key)
        signature = signed["signatures"][origin]
        return (
            f'X-Matrix origin="{origin}",destination="{signed["destination"]}",'
            f'key="{self.key.key_id}",sig="{signature[self.key.key_id]}"'
        )

    # what it received

    @property
    def pdus(self) -> list[Json]:
        """The events in all transactions, in order."""
        return [pdu for it in list(self.transactions) for pdu in it.get("pdus", [])]

    def edus(self, edu_type: str) -> list[Json]:
        """Return the contents of the EDUs of this type in all transactions, in order."""
        found = [one for it in list(self.transactions) for one in it.get("edus", [])]
        return [one["content"] for one in found if one["edu_type"] == edu_type]

    def wait_for_event(self, event_id: str) -> Event:
        """Return an event of a room here, once it has been received."""

        def look() -> Event | None:
            rooms = list(self.rooms.values())
            return next((it.events[event_id] for it in rooms if event_id in it.events), None)

        found: Event = self.wait_until(look, f"the event {event_id}")
        return found

    def wait_for_edu(
        self, edu_type: str, is_wanted: Callable[[Json], Any] = lambda _content: True
    ) -> Json:
        """Return the content of the first such EDU, once it has been received."""

        def look() -> Json | None:
            return next(filter(is_wanted, self.edus(edu_type)), None)

        found: Json = self.wait_until(look, f"the EDU {edu_type}")
        return found

    # keys and devices

    def rotate_key(self) -> SigningKey:
        """Take a new signing key, publish the old one as expired, and return it."""
        old = self.key
        public = signing.verify_key_to_base64(old.verify_key)
        self.old_keys[old.key_id] = {"expired_ts": int(time.time() * 1000), "key": public}
        self.key = _new_key(f"a_{len(self.old_keys) + 1}")
        return old

    def published_keys(self) -> Json:
        """Return the signed response of /_matrix/key/v2/server."""
        public = signing.verify_key_to_base64(self.key.verify_key)
        keys = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": public}},
            "old_verify_keys": self.old_keys,
            "valid_until_ts": int(time.time() * 1000) + self.key_valid_for_ms,
        }
        return signing.sign_json(keys, self.name, self.key)

    def add_device(self, user: str, device_id: str, *one_time_keys: str) -> Json:
        """Give a user a device, with one-time keys of these names, and return its keys."""
        user_id, key = self.user_id(user), _new_key(device_id)
        public = signing.verify_key_to_base64(key.verify_key)
        names = {f"ed25519:{device_id}": public, f"curve25519:{device_id}": "c" * 43}
        bare = {
            "user_id": user_id,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
            "keys": names,
        }
        keys = signing.sign_json(bare, user_id, key)
        self.devices.setdefault(user_id, {})[device_id] = keys
        self.one_time_keys[user_id, device_id] = {
            f"signed_curve25519:{name}": signing.sign_json({"key": name}, user_id, key)
            for name in one_time_keys
        }
        self.device_stream_ids[user_id] = self.device_stream_ids.get(user_id, 0) + 1
        return keys

    # called by the listener

    def respond(self, request: Request) -> Response:
        """Respond to a request, once its signature is verified."""
        is_open = request.path.startswith("/_matrix/key/") or request.path.endswith("/version")
        with self.lock:
            problem = (
                None
                if is_open
                else remote_checks.problem_of_request(self.name, self.peer(), request)
            )
            if problem:
                self.unsigned.append(f"{request.method} {request.uri}: {problem}")
                return Response(401, {"errcode": "M_UNAUTHORIZED", "error": problem})
            return remote_answers.respond(self, request)


class Remotes:
    """Starts remotes, `remote()` or `remote("b.test")`, and has the settings that reach them."""

    def __init__(self, ca_file: str) -> None:
        self._listeners: dict[str, ScriptedServer] = {}
        self._made: dict[str, Remote] = {}
        self.peer: Callable[[], Peer] = nowhere
        for name in NAMES:
            self._listen(name)
        ports = {name: listener.port for name, listener in self._listeners.items()}
        hosts = ", ".join(f'"{name}" = "127.0.0.1:{port}"' for name, port in ports.items())
        self.settings = {
            "federation": "true",
            "federation_ca_file": ca_file,
            "federation_hosts": f"{{{hosts}}}",
            "outside_allowed": "127.0.0.0/8",
        }
        """The settings of a server that talks to these remotes."""

    def __call__(self, name: str = "") -> Remote:
        """Return the remote of this name, or a new one whose name is its address and port."""
        if name in self._made:
            return self._made[name]
        listener = self._listeners[name] if name else self._listen("")
        made = Remote(listener, name)
        made.peer = lambda: self.peer()  # noqa: PLW0108 - it may be set later
        self._made[made.name] = made
        return made

    def talk_to(self, app: Application) -> None:
        """Have the remotes send their requests to this server."""
        peer = peers.in_process(app)
        self.peer = lambda: peer

    def talk_to_running(self, server: RunningServer, data_dir: Path, name: str) -> None:
        """Have the remotes send their requests to a server in another process."""
        key = SigningKey.from_text((data_dir / SIGNING_KEY_NAME).read_text())
        peer = peers.at(server.url, name, key)
        self.peer = lambda: peer

    def _listen(self, name: str) -> ScriptedServer:
        def respond(request: Request) -> Response:
            return self._made[name or f"127.0.0.1:{listener.port}"].respond(request)

        context = certificates.server_context("127.0.0.1", "localhost", *NAMES)
        listener = ScriptedServer(respond, context)
        self._listeners[name or f"127.0.0.1:{listener.port}"] = listener
        return listener

    def close(self) -> None:
        """Stop all. Raises AssertionError if one received what it should not have."""
        for listener in self._listeners.values():
            listener.close()
        for remote in self._made.values():
            assert not remote.listener.errors, "\n".join(remote.listener.errors)
            assert not remote.unsigned, remote.unsigned
            assert not remote.complaints, remote.complaints


@contextmanager
def running(ca_file: str) -> Iterator[Remotes]:
    """Run remotes within the block."""
    remotes = Remotes(ca_file)
    try:
        yield remotes
    finally:
        remotes.close()


def path(version: str, operation: str, *parts: str) -> str:
    """Return a path of the federation API; an operation may be several segments."""
    return FEDERATION + "/".join([version, operation, *(quote(it, safe="") for it in parts)])


def edu(edu_type: str, content: Json) -> Json:
    """Return an EDU."""
    return {"edu_type": edu_type, "content": content}


def _with_event_id(room: RemoteRoom, pdu: Json) -> Json:
    """Return a template with the id that room versions 1 and 2 need."""
    event_id = room._given_id(room.remote)  # noqa: SLF001 - of the same helper
    return pdu if event_id is None else {**pdu, "event_id": event_id}


def _new_key(key_version: str) -> SigningKey:
    return SigningKey.from_seed(key_version, bytes(Seed.generate()))


def _encode(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _decode(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content
