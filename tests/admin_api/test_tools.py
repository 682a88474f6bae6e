"""Requests as tools send them to a real server, and answers as these decode them.

mautrix-go's package synapseadmin and Draupnir refuse answers with another type than they expect;
Ketesa sends parameters that an endpoint does not know, from a page of another origin. IDs are in
paths as the tools write them: with or without percent-encoding.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import msgspec
import pytest

from tests.helpers.server import RunningServer, start
from tests.helpers.waiting import wait_for

T = TypeVar("T")
Ms = Annotated[int, msgspec.Meta(ge=10**12)]
Seconds = Annotated[int, msgspec.Meta(ge=10**9, lt=10**11)]
Count = Annotated[int, msgspec.Meta(ge=0)]
PASSWORD = "a password that nobody guesses"
LIST = {"from": "0", "limit": "50", "order_by": "id", "dir": "ASC"}
"""What Ketesa adds to the requests of lists, whether or not they know it."""


@dataclass
class Tool:
    """A program with the access token of an administrator."""

    address: str
    token: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    """The headers of the last answer."""

    def send(self, method: str, path: str, body: bytes | None = None, **query: str) -> Any:
        """Send a request whose path is not changed; return (status, JSON of the answer)."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        bearer = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        target = f"{path}?{urlencode(query)}" if query else path
        connection.request(method, target, body, {**bearer, **self.headers})
        answer = connection.getresponse()
        text = answer.read()
        self.answered = {name.lower(): value for name, value in answer.getheaders()}
        connection.close()
        return answer.status, json.loads(text) if text else None

    def admin(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Return the answer to a request of the admin API, which must succeed."""
        return self.refused(200, method, path, body, **query)

    def refused(
        self, status: int, method: str, path: str, body: object = None, **query: str
    ) -> Any:
        """Return the answer to a request of the admin API, which must have this status."""
        raw = None if body is None else json.dumps(body).encode()
        found, answer = self.send(method, f"/_synapse/admin/{path}", raw, **query)
        assert found == status, (method, path, answer)
        return answer

    def client(self, method: str, path: str, body: object = None) -> Any:
        """Return the answer to a request of the Client-Server API, which must succeed."""
        raw = None if body is None else json.dumps(body).encode()
        status, answer = self.send(method, f"/_matrix/client/v3/{path}", raw)
        assert status == 200, (method, path, answer)
        return answer

    def room(self, **options: Any) -> str:
        body = {"preset": "public_chat", "name": "Kitchen", **options}
        return str(self.client("POST", "createRoom", body)["room_id"])

    def message(self, room_id: str) -> str:
        path = f"rooms/{quote(room_id)}/send/m.room.message/{time.monotonic_ns()}"
        sent = self.client("PUT", path, {"msgtype": "m.text", "body": "hello"})
        return str(sent["event_id"])


def decoded(answer: Any, kind: type[T]) -> T:
    """Return an answer as a strict decoder does. Raises ValidationError for another type."""
    return msgspec.convert(answer, kind, strict=True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    server = start(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


def register(running: RunningServer, name: str) -> tuple[Tool, str]:
    """Return a user with their ID."""
    tool = Tool(urlsplit(running.url).netloc)
    body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = tool.client("POST", "register", body)
    tool.token = session["access_token"]
    return tool, str(session["user_id"])


@pytest.fixture(scope="module")
def admin(running: RunningServer) -> Tool:
    return register(running, "owner")[0]


@pytest.fixture
def alice(running: RunningServer, admin: Tool) -> tuple[Tool, str]:
    assert admin.token  # the first account is the administrator's
    return register(running, f"alice{time.monotonic_ns()}")


class Room(msgspec.Struct):
    """A room, as mautrix-go decodes it: null is an empty string there."""

    room_id: str
    name: str | None
    canonical_alias: str | None
    joined_members: int
    joined_local_members: int
    version: str
    creator: str
    encryption: str | None
    federatable: bool
    public: bool
    join_rules: str | None
    guest_access: str | None
    history_visibility: str | None
    state_events: int
    room_type: str | None


class Rooms(msgspec.Struct):
    """A page of rooms."""

    rooms: list[Room]
    offset: int
    total_rooms: int
    next_batch: int = 0
    prev_batch: int = 0


class RoomDetails(Room):
    """All about a room."""

    topic: str | None
    avatar: str | None
    joined_local_devices: int
    forgotten: bool


class ThirdPartyId(msgspec.Struct):
    """An e-mail address."""

    medium: str
    address: str
    added_at: Ms
    validated_at: Ms


class User(msgspec.Struct):
    """All about a user; flags are true or false, and never 0 or 1."""

    name: str
    displayname: str | None
    avatar_url: str | None
    threepids: list[ThirdPartyId]
    is_guest: bool
    admin: bool
    deactivated: bool
    erased: bool
    shadow_banned: bool
    locked: bool
    suspended: bool
    user_type: Literal["bot", "support"] | None
    creation_ts: Seconds
    appservice_id: str | None


class SeenUser(User):
    """Draupnir does not accept users who were never seen."""

    last_seen_ts: Ms


class ListedUser(msgspec.Struct):
    """A user in a list, whose creation_ts has another unit."""

    name: str
    is_guest: bool
    admin: bool
    deactivated: bool
    shadow_banned: bool
    locked: bool
    erased: bool
    displayname: str | None
    avatar_url: str | None
    user_type: str | None
    creation_ts: Ms
    last_seen_ts: Ms | None


class Users(msgspec.Struct):
    """A page of users; its token is a string."""

    users: list[ListedUser]
    total: Count
    next_token: str | None = None


class Device(msgspec.Struct):
    """A device of a user."""

    device_id: str
    display_name: str | None
    last_seen_ip: str | None
    last_seen_ts: Ms | None
    last_seen_user_agent: str | None
    user_id: str


class Devices(msgspec.Struct):
    """All devices of a user."""

    devices: list[Device]
    total: Count


class Deletion(msgspec.Struct):
    """What came of the deletion of a room."""

    kicked_users: list[str]
    failed_to_kick_users: list[str]
    local_aliases: list[str]
    new_room_id: str | None


class DeletionStatus(msgspec.Struct):
    """How far the deletion of a room has got."""

    status: Literal["scheduled", "active", "complete", "failed"]
    shutdown_room: Deletion


class Report(msgspec.Struct):
    """A report of an event."""

    id: Count
    room_id: str
    event_id: str
    user_id: str
    reason: str | None
    score: int | None
    sender: str
    received_ts: Ms
    canonical_alias: str | None
    name: str | None


class Reports(msgspec.Struct):
    """A page of reports; its token is a number."""

    event_reports: list[Report]
    total: Count
    next_token: int | None = None


class Redaction(msgspec.Struct):
    """The status of a redaction that has ended."""

    status: Literal["complete"]
    failed_redactions: dict[str, str]


def ended(tool: Tool, path: str) -> Any:
    """Return the status of a task, once it has ended."""
    wait_for(lambda: tool.admin("GET", path)["status"] in {"complete", "failed"}, path)
    return tool.admin("GET", path)


def test_mautrix_go_lists_and_deletes_rooms(admin: Tool, alice: tuple[Tool, str]) -> None:
    person, user_id = alice
    rooms = [person.room() for _ in range(3)]

    total = decoded(admin.admin("GET", "v1/rooms", limit="0"), Rooms)
    page = decoded(admin.admin("GET", "v1/rooms", limit="2", order_by="name", dir="b"), Rooms)
    query = {"from": str(page.next_batch), "limit": "2", "search_term": "Kitchen"}
    rest = decoded(admin.admin("GET", "v1/rooms", **query), Rooms)
    details = decoded(admin.admin("GET", f"v1/rooms/{quote(rooms[0], safe='')}"), RoomDetails)
    answer = admin.admin(
        "DELETE", f"v2/rooms/{quote(rooms[0], safe='')}", {"block": False, "purge": True}
    )
    deletion = ended(admin, f"v2/rooms/delete_status/{answer['delete_id']}")
    at_once = admin.admin("DELETE", f"v1/rooms/{quote(rooms[1], safe='')}", {"purge": True})

    assert (total.rooms, total.total_rooms >= 3, len(page.rooms)) == ([], True, 2)
    assert (page.offset, page.next_batch, rest.prev_batch) == (0, 2, 0)
    assert (details.creator, details.joined_members) == (user_id, 1)
    assert decoded(deletion, DeletionStatus).shutdown_room.kicked_users == [user_id]
    assert decoded(at_once, Deletion).kicked_users == [user_id]
    admin.refused(404, "GET", f"v1/rooms/{quote(rooms[0], safe='')}")


def test_mautrix_go_manages_users(admin: Tool, alice: tuple[Tool, str]) -> None:
    _, user_id = alice
    path = f"v2/users/{quote(user_id, safe='')}"

    before = decoded(admin.admin("GET", path), User)
    changed = decoded(admin.admin("PUT", path, {"displayname": "A", "user_type": "bot"}), User)
    devices = decoded(admin.admin("GET", f"{path}/devices"), Devices)
    limits = {"messages_per_second": 0, "burst_count": 0}
    limited = admin.admin("POST", f"v1/users/{user_id}/override_ratelimit", limits)
    admin.admin("PUT", f"v1/suspend/{user_id}", {"suspend": True})
    admin.admin("POST", f"v1/reset_password/{user_id}", {"new_password": PASSWORD[::-1]})
    admin.admin("POST", f"v1/deactivate/{user_id}", {"erase": False})
    after = decoded(admin.admin("GET", path), User)

    assert (before.displayname, changed.displayname, changed.user_type) != (None, "A", None)
    assert [it.user_id for it in devices.devices] == [user_id]
    assert limited == limits
    assert (before.deactivated, after.deactivated) == (False, True)
    taken = admin.refused(400, "GET", "v1/username_available", username="owner")
    assert taken["errcode"] == "M_USER_IN_USE"


def test_ketesa_finds_out_about_a_server_before_the_login(
    running: RunningServer,
) -> None:
    page = Tool(urlsplit(running.url).netloc, headers={"Origin": "https://admin.example"})
    asked = [
        "/_synapse/admin/v1/server_version",
        "/_matrix/client/versions",
        "/_matrix/client/v3/login",
        "/.well-known/matrix/client",
    ]

    for path in asked:
        status, answer = page.send("GET", path)
        assert (status, isinstance(answer, dict)) in {(200, True), (404, True)}, path
        assert page.answered["access-control-allow-origin"] == "*"
    preflight = {"Access-Control-Request-Method": "DELETE"}
    page.headers |= {**preflight, "Access-Control-Request-Headers": "authorization,content-type"}
    assert page.send("OPTIONS", "/_synapse/admin/v2/rooms/x")[0] == 200
    assert "DELETE" in page.answered["access-control-allow-methods"]


def test_ketesa_shows_lists_with_parameters_that_they_do_not_know(
    admin: Tool, alice: tuple[Tool, str]
) -> None:
    person, user_id = alice
    room_id = person.room()
    lists = {
        "v1/registration_tokens": "registration_tokens",
        f"v2/users/{user_id}/devices": "devices",
        f"v1/users/{user_id}/joined_rooms": "joined_rooms",
        f"v1/users/{user_id}/pushers": "pushers",
        f"v1/users/{user_id}/memberships": "memberships",
        f"v1/users/{user_id}/accountdata": "account_data",
        f"v1/rooms/{room_id}/members": "members",
        f"v1/rooms/{room_id}/state": "state",
        f"v1/rooms/{room_id}/forward_extremities": "results",
        "v1/scheduled_tasks": "scheduled_tasks",
        "v1/statistics/database/rooms": "rooms",
    }

    for path, key in lists.items():
        assert key in admin.admin("GET", path, **LIST), path
    ordered = {**LIST, "order_by": "user_id", "dir": "b"}
    assert admin.admin("GET", "v1/statistics/users/media", **ordered)["users"] == []
    assert admin.admin("GET", "v1/federation/destinations", limit="5")["total"] == 0
    assert admin.admin("GET", "v1/user_reports", dir="b")["total"] == 0


def test_ketesa_sends_the_whole_record_of_a_user_back(admin: Tool, alice: tuple[Tool, str]) -> None:
    path = f"v2/users/{quote(alice[1], safe='')}"
    record = admin.admin("GET", path)
    more = {"id": alice[1], "avatar_src": None, "creation_ts_ms": record["creation_ts"] * 1000}

    changed = admin.admin("PUT", path, {**record, **more, "displayname": "Alice A."})

    assert changed == {**record, "displayname": "Alice A."}


def test_ketesa_pages_through_users(admin: Tool, alice: tuple[Tool, str]) -> None:
    query = {"from": "0", "limit": "1", "order_by": "name", "dir": "f", "guests": "false"}

    page = decoded(admin.admin("GET", "v3/users", deactivated="false", **query), Users)
    query["from"] = page.next_token or ""
    second = decoded(admin.admin("GET", "v2/users", locked="true", **query), Users)

    assert (page.next_token, page.total > 1) == ("1", True)
    assert page.users[0].name != second.users[0].name
    assert alice


def test_draupnir_asks_whether_it_may_and_redacts(admin: Tool, alice: tuple[Tool, str]) -> None:
    person, user_id = alice
    room_id = person.room()
    event_id = person.message(room_id)
    me = admin.client("GET", "account/whoami")["user_id"]

    is_admin = admin.admin("GET", f"v1/users/{me}/admin")
    shown = decoded(admin.admin("GET", f"v2/users/{user_id}"), SeenUser)
    admin.refused(404, "GET", f"v2/users/{quote('@nobody:localhost', safe='')}")
    context = admin.admin("GET", f"v1/rooms/{room_id}/context/{event_id}", limit="1")
    ordered = admin.admin("POST", f"v1/user/{quote(user_id, safe='')}/redact", {"rooms": []})
    path = f"v1/user/redact_status/{ordered['redact_id']}"
    ended(admin, path)
    status = decoded(admin.admin("GET", path), Redaction)

    assert is_admin == {"admin": True}
    assert shown.name == user_id
    assert context["event"]["event_id"] == event_id
    assert status.failed_redactions == {}
    person.refused(403, "GET", f"v1/users/{user_id}/admin")


def test_draupnir_polls_reports_from_where_it_stopped(admin: Tool, alice: tuple[Tool, str]) -> None:
    person, user_id = alice
    room_id = person.room()
    event_id = person.message(room_id)
    path = f"rooms/{quote(room_id)}/report/{quote(event_id)}"

    def poll(since: int) -> Reports:
        query = {"from": str(since), "dir": "f"}
        return decoded(admin.admin("GET", "v1/event_reports", **query), Reports)

    before = poll(0).total
    for reason in ("first", "second"):
        person.client("POST", path, {"reason": reason})
    found = poll(before)

    assert [it.reason for it in found.event_reports] == ["first", "second"]
    assert {(it.user_id, it.sender, it.event_id) for it in found.event_reports} == {
        (user_id, user_id, event_id)
    }
    assert (found.total, found.next_token) == (before + 2, None)
    assert poll(before + 2).event_reports == []


def test_mjolnir_sends_bodies_where_none_is_needed_and_none_elsewhere(
    admin: Tool, alice: tuple[Tool, str]
) -> None:
    person, user_id = alice
    room_id = person.room()

    admin.admin("POST", f"v1/users/{user_id}/shadow_ban")
    admin.admin("DELETE", f"v1/users/{user_id}/shadow_ban", {})
    made = admin.admin("POST", f"v1/rooms/{room_id}/make_room_admin", {})
    admin.admin("POST", f"v1/media/quarantine/localhost/{'x' * 24}", {})
    admin.admin("POST", f"v1/user/{user_id}/media/quarantine")
    admin.admin("POST", f"v1/deactivate/{user_id}")

    assert made == {}
    assert admin.admin("GET", f"v2/users/{user_id}")["deactivated"] is True


def test_tools_learn_from_errors_that_they_may(admin: Tool, alice: tuple[Tool, str]) -> None:
    person, _ = alice

    admin.refused(400, "GET", "v1/users/@foo:bar/admin")
    admin.admin("GET", "v1/whois/@media_repo_admin:localhost")
    person.refused(403, "GET", "v1/users/@foo:bar/admin")
    person.refused(403, "GET", "v1/whois/@media_repo_admin:localhost")


def test_the_registration_bot_sends_text(admin: Tool) -> None:
    admin.headers["Content-Type"] = "text/plain"

    made = admin.admin("POST", "v1/registration_tokens/new", {"uses_allowed": 1})
    del admin.headers["Content-Type"]

    assert len(made["token"]) == 16
    admin.refused(404, "GET", "v1/registration_tokens/unknown")
