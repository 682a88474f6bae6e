"""Another server that signs requests to the one under test, in the test's own process.

It has no listener: its keys are put into the database, as if they had been fetched before.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlencode

import orjson
from werkzeug.test import TestResponse

from homebody.core.events import state
from homebody.core.federation import keys
from homebody.core.timeline import receiving, store
from homebody.spec import canonical_json, event_auth, events, server_keys, signing, x_matrix
from homebody.spec.events import Event, Json
from homebody.spec.signing import SigningKey
from homebody.web import Application

DAY_MS = 86_400_000
FEDERATION = "/_matrix/federation/"


def now_ms() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000


class SigningServer:
    """A server with a name and a key; its paths are below /_matrix/federation/."""

    def __init__(self, app: Application, name: str = "peer.test", seed: bytes = b"p" * 32) -> None:
        self.app = app
        self.name = name
        self.key = SigningKey.from_seed("p1", seed)

    def publish(self, valid_ms: int = DAY_MS) -> dict[str, Any]:
        """Return the response with the server's keys."""
        return server_keys.publish(self.name, self.key, [], now_ms() + valid_ms)

    def introduce(self, valid_ms: int = DAY_MS) -> SigningServer:
        """Let the server under test know the keys."""
        response = self.publish(valid_ms)
        found = server_keys.parse(response, self.name)
        with self.app.homeserver.database.write() as tx:
            keys.store(tx, self.name, found, response, direct=True)
        return self

    def put_event(
        self,
        room_id: str,
        event_type: str,
        content: Json,
        state_key: str | None = None,
        sender: str = "carol",
        prev: list[str] | None = None,
    ) -> str:
        """Store an event of a user of this server as it is, and return its id.

        `prev`: the events that it follows, by which it is then received as from another server.
        """
        user_id = f"@{sender}:{self.name}"
        with self.app.homeserver.database.write() as tx:
            head = state.head(tx, room_id)
            version = state.version(tx, room_id)
            keys = event_auth.auth_types(version, event_type, state_key, user_id, content)
            cited = state.current_many(tx, room_id, keys)
            pdu = events.build(
                version,
                room_id=room_id,
                sender=user_id,
                event_type=event_type,
                content=content,
                state_key=state_key,
                auth_events=[it.event_id for it in cited.values()],
                prev_events=list(head.forward_extremities) if prev is None else prev,
                depth=head.depth + 1,
                origin_server_ts=tx.now_ms,
                event_id=None,
            )
            event_id, signed = signing.add_hashes_and_signatures(pdu, version, self.name, self.key)
            event = Event(event_id, signed, version)
            encoded = canonical_json.encode(signed)
            if prev is None:
                store.store(tx, event, encoded, (None, None))
            else:
                assert receiving.receive(tx, event, encoded) == "accepted"
        return event_id

    def member(self, room_id: str, membership: str = "join", user: str = "carol") -> str:
        """Change the membership of a user of this server, whether or not that is allowed."""
        content = {"membership": membership}
        return self.put_event(room_id, state.MEMBER, content, f"@{user}:{self.name}", user)

    def sign(self, method: str, uri: str, content: Any = None, **changed: str) -> str:
        """Return the Authorization header of a request."""
        names = {"origin": self.name, "destination": self.app.homeserver.server.name, **changed}
        return x_matrix.sign(self.key, method=method, uri=uri, content=content, **names)

    def request(
        self, method: str, path: str, json: Any = None, header: str | None = None, **query: Any
    ) -> TestResponse:
        """Send a signed request; `header` replaces the right Authorization header."""
        uri = (path if path.startswith("/") else FEDERATION + path) + (
            f"?{urlencode(query, doseq=True)}" if query else ""
        )
        signed = self.sign(method, uri, json) if header is None else header
        body = None if json is None else orjson.dumps(json)
        return self.app.test_client().open(
            uri, method=method, data=body, headers={"Authorization": signed}
        )

    def get(self, path: str, **query: Any) -> TestResponse:
        return self.request("GET", path, **query)

    def put(self, path: str, json: Any, **query: Any) -> TestResponse:
        return self.request("PUT", path, json, **query)

    def post(self, path: str, json: Any, **query: Any) -> TestResponse:
        return self.request("POST", path, json, **query)
