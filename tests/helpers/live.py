"""A client of a server in another process, over one persistent connection."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import Any
from urllib.parse import quote, urlsplit

from tests.helpers.server import RunningServer

SECONDS = 60.0
V3 = "/_matrix/client/v3"


class Person:
    """An account with one device. `server` can be replaced by a later one on the same data."""

    _numbers = itertools.count()

    def __init__(self, server: RunningServer, name: str) -> None:
        self._token = ""
        self.name = name
        self.server = server
        account = {"username": name, "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
        session = self.ask("POST", "/register", account)
        self.user_id: str = session["user_id"]
        self._token = session["access_token"]

    @property
    def server(self) -> RunningServer:
        """The server that receives the requests."""
        return self._server

    @server.setter
    def server(self, server: RunningServer) -> None:
        if hasattr(self, "_connection"):
            self.close()
        self._server = server
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=SECONDS)

    def again(self) -> Person:
        """Return the same device with a connection of its own, for another thread."""
        twin = Person.__new__(Person)
        twin.name, twin.user_id, twin._token = self.name, self.user_id, self._token  # noqa: SLF001 - of this class
        twin.server = self._server
        return twin

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def begin_to_ask(self, method: str, path: str, body: Any = None) -> None:
        """Send a request. Bytes are sent unchanged, everything else as JSON."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if method == "GET" else body if isinstance(body, bytes) else json.dumps(body)
        url = (
            path if path.startswith(("/_matrix", "/_synapse")) or path == "/metrics" else V3 + path
        )
        self._connection.request(method, url, data, headers)

    def answer(self) -> tuple[int, bytes]:
        """Return (status, body) of the response to it."""
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def raw(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Send a request and return (status, body) of the response."""
        self.begin_to_ask(method, path, body)
        return self.answer()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the JSON. Raises AssertionError with the response for an
        error."""
        status, answer = self.raw(method, path, {} if body is None else body)
        assert status == 200, answer
        return json.loads(answer)

    def create_room(self, **wishes: Any) -> str:
        """Create a room and return its id."""
        return str(self.ask("POST", "/createRoom", wishes)["room_id"])

    def join(self, room_id: str) -> None:
        """Join a room."""
        self.ask("POST", f"/rooms/{quote(room_id)}/join")

    def send(self, room_id: str, body: str = "hello") -> str:
        """Send a message and return its event ID."""
        path = f"/rooms/{quote(room_id)}/send/m.room.message/{self.name}{next(self._numbers)}"
        return str(self.ask("PUT", path, {"msgtype": "m.text", "body": body})["event_id"])
