"""A user of either server: requests, and a /sync that keeps what it has received."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

from tests.helpers.live import Person
from tests.helpers.relay import Relay
from tests.helpers.server import RunningServer

Json = dict[str, Any]
Found = TypeVar("Found")
WAIT_SECONDS = 20.0
_FILTER = '{"room": {"timeline": {"limit": 100}}}'


class Home(Protocol):
    """A homeserver, ours or Synapse."""

    name: str
    running: RunningServer
    persons: list[Person]
    relay: Relay

    def start(self) -> None: ...

    def stop(self) -> None: ...


class User(Person):
    """A user with one device, who syncs when a test waits for something."""

    def __init__(self, home: Home, name: str) -> None:
        super().__init__(home.running, f"{name}-{time.time_ns()}")
        self.home = home
        self.device_id = str(self.ask("GET", "/account/whoami")["device_id"])
        self._since = ""
        self.timeline: list[Json] = []
        """All events of all timelines, each with its `room_id`."""
        self.state: dict[tuple[str, str, str], Json] = {}
        """{(room id, type, state key): content}."""
        self.invites: dict[str, Json] = {}
        self.knocks: dict[str, Json] = {}
        self.ephemeral: list[Json] = []
        self.to_device: list[Json] = []
        self.presence: list[Json] = []
        self.changed_devices: set[str] = set()
        home.persons.append(self)

    def sync(self, timeout_ms: int = 0) -> None:
        """Keep what is new."""
        query = {"timeout": timeout_ms, "filter": _FILTER}
        query |= {"since": self._since} if self._since else {}
        body = self.ask("GET", f"/sync?{urlencode(query)}")
        self._since = body["next_batch"]
        rooms = body.get("rooms", {})
        self.invites |= rooms.get("invite", {})
        self.knocks |= rooms.get("knock", {})
        for room_id, room in {**rooms.get("join", {}), **rooms.get("leave", {})}.items():
            timeline = room.get("timeline", {}).get("events", [])
            for event in (*room.get("state", {}).get("events", []), *timeline):
                if "state_key" in event:
                    key = (room_id, event["type"], event["state_key"])
                    self.state[key] = event["content"]
            self.timeline += [{**event, "room_id": room_id} for event in timeline]
            ephemeral = room.get("ephemeral", {}).get("events", [])
            self.ephemeral += [{**event, "room_id": room_id} for event in ephemeral]
        self.to_device += body.get("to_device", {}).get("events", [])
        self.presence += body.get("presence", {}).get("events", [])
        self.changed_devices |= set(body.get("device_lists", {}).get("changed", []))

    def until(self, look: Callable[[], Found], what: str) -> Found:
        """Sync until `look` returns something true, and return that."""
        end = time.monotonic() + WAIT_SECONDS
        while not (found := look()):
            assert time.monotonic() < end, (
                f"{self.user_id} has not received {what}; the last events: {self.timeline[-5:]}"
            )
            self.sync(500)
        return found

    def sees(self, room_id: str, body: str) -> Json:
        """Return the message with this body, once it is there."""

        def look() -> Json | None:
            found = (it for it in self.timeline if it["content"].get("body") == body)
            return next((it for it in found if it["room_id"] == room_id), None)

        found = self.until(look, f"the message {body!r}")
        assert found is not None
        return found

    def sees_member(self, room_id: str, user: User, membership: str = "join") -> Json:
        """Return the content of a user's member event, once it has this membership."""

        def look() -> Json | None:
            found = self.state.get((room_id, "m.room.member", user.user_id), {})
            return found if found.get("membership") == membership else None

        found = self.until(look, f"{membership} of {user.user_id}")
        assert found is not None
        return found

    def sees_state(self, room_id: str, event_type: str, content: Json) -> None:
        """Wait until a state event with an empty state key has this content."""
        key = (room_id, event_type, "")
        self.until(lambda: self.state.get(key) == content, f"{event_type} {content}")

    def sees_invite(self, room_id: str) -> Json:
        """Return an invite, once it is there."""
        return self.until(lambda: self.invites.get(room_id), f"the invite to {room_id}") or {}

    def sees_ephemeral(self, event_type: str, is_wanted: Callable[[Json], Any]) -> Json:
        """Return the first such ephemeral event."""

        def look() -> Json | None:
            found = (it for it in self.ephemeral if it["type"] == event_type)
            return next(filter(is_wanted, found), None)

        return self.until(look, event_type) or {}

    def join_via(self, room: str, home: Home) -> str:
        """Join a room, by id or alias, through this server, and return its id."""
        query = urlencode([("server_name", home.name), ("via", home.name)])
        return str(self.ask("POST", f"/join/{quote(room, safe='')}?{query}", {})["room_id"])

    def knock(self, room_id: str, home: Home) -> None:
        query = urlencode([("server_name", home.name), ("via", home.name)])
        self.ask("POST", f"/knock/{quote(room_id, safe='')}?{query}", {})

    def invite(self, room_id: str, user: User) -> None:
        self.ask("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": user.user_id})

    def act(self, room_id: str, verb: str, **body: Any) -> None:
        """Send a POST below /rooms/{roomId}, such as `act(room_id, "kick", user_id=…)`."""
        self.ask("POST", f"/rooms/{quote(room_id)}/{verb}", body)

    def set_state(self, room_id: str, event_type: str, content: Json) -> None:
        self.ask("PUT", f"/rooms/{quote(room_id)}/state/{event_type}/", content)

    def members(self, room_id: str) -> set[str]:
        """Return the joined members."""
        found = self.ask("GET", f"/rooms/{quote(room_id)}/joined_members")["joined"]
        return set(found)
