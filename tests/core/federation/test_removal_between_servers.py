"""Two real servers: an administrator of one deletes a shared room, or its history."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import quote

import pytest

from tests.core.federation.test_gaps_between_servers import read, say, shared_room
from tests.helpers.live import Person
from tests.helpers.network import Homebody, Network
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
ADMIN = "/_synapse/admin"


@pytest.fixture
def servers(two_servers: Network) -> tuple[Homebody, Homebody]:
    return two_servers["a.test"], two_servers["b.test"]


def administrator(server: Homebody) -> Person:
    """Return a new user of a server, who is an administrator."""
    person = server.person("admin")
    with closing(sqlite3.connect(server.data_dir / "homebody.db", timeout=10)) as connection:
        change = "UPDATE accounts SET is_admin = 1 WHERE user_id = ?"
        connection.execute(change, (person.user_id,))
        connection.commit()
    wait_for(lambda: person.raw("GET", f"{ADMIN}/v1/rooms")[0] == 200)
    return person


def order(admin: Person, method: str, path: str, body: Json | None = None) -> Json:
    """Send a request to the admin API, and return the JSON of its response."""
    found: Json = admin.ask(method, ADMIN + path, body)
    return found


def ended(admin: Person, path: str) -> Json:
    """Return the status of a task that has ended."""
    wait_for(lambda: order(admin, "GET", path)["status"] in {"complete", "failed"})
    return order(admin, "GET", path)


def membership(person: Person, room_id: str, user_id: str) -> Callable[[], str]:
    """Return how to see a user's membership: "" before the server knows of any."""
    path = f"/rooms/{quote(room_id)}/state/m.room.member/{quote(user_id)}"

    def look() -> str:
        status, body = person.raw("GET", path)
        return str(json.loads(body)["membership"]) if status == 200 else ""

    return look


def test_history_that_one_server_has_purged_stays_on_the_other_and_does_not_come_back(
    servers: tuple[Homebody, Homebody],
) -> None:
    admin = administrator(servers[0])
    alice, bob, room_id = shared_room(servers)
    said = say(alice, room_id, 10) + say(bob, room_id, 10)
    wait_for(lambda: said[-1] in read(alice, room_id))
    said += say(alice, room_id, 10)
    wait_for(lambda: said[-1] in read(bob, room_id))
    first = say(alice, room_id, 1)[0]
    options = {"delete_local_events": True}
    path = f"/v1/purge_history/{quote(room_id)}/{quote(first)}"
    purge_id = order(admin, "POST", path, options)["purge_id"]
    assert ended(admin, f"/v1/purge_history_status/{purge_id}") == {"status": "complete"}

    assert read(alice, room_id) == [first]
    wait_for(lambda: set(read(bob, room_id)) == {*said, first})
    second = say(bob, room_id, 1)[0]
    wait_for(lambda: read(alice, room_id) == [first, second])
    bob.ask(
        "PUT",
        f"/rooms/{quote(room_id)}/state/m.room.member/{quote(bob.user_id)}",
        {"membership": "join", "displayname": "Bobby"},
    )
    carol = servers[1].person("carol")
    carol.ask("POST", f"/join/{quote(room_id)}?via=a.test", {})
    dave = servers[0].person("dave")
    dave.ask("POST", f"/join/{quote(room_id)}", {})
    third = say(carol, room_id, 1)[0]
    wait_for(lambda: read(dave, room_id) == [first, second, third])
    assert read(alice, room_id) == [first, second, third]
    assert membership(alice, room_id, carol.user_id)() == "join"


def test_users_of_a_deleted_room_leave_it_on_the_other_server_and_can_not_come_back(
    servers: tuple[Homebody, Homebody],
) -> None:
    admin = administrator(servers[1])
    alice, bob, room_id = shared_room(servers)
    say(bob, room_id, 3)

    path = f"/v2/rooms/{quote(room_id)}"
    delete_id = order(admin, "DELETE", path, {"block": True})["delete_id"]

    status = ended(admin, f"/v2/rooms/delete_status/{delete_id}")
    assert (status["status"], status["shutdown_room"]["kicked_users"]) == (
        "complete",
        [bob.user_id],
    )
    left = membership(alice, room_id, bob.user_id)
    wait_for(lambda: left() == "leave")
    status_code, answer = bob.raw("POST", f"/join/{quote(room_id)}?via=a.test", {})
    assert (status_code, json.loads(answer)["errcode"]) == (403, "M_FORBIDDEN")
    order(admin, "PUT", f"/v1/rooms/{quote(room_id)}/block", {"block": False})
    bob.ask("POST", f"/join/{quote(room_id)}?via=a.test", {})
    assert len(read(bob, room_id)) == 3


def test_a_user_is_joined_to_a_room_of_the_other_server(
    servers: tuple[Homebody, Homebody],
) -> None:
    admin = administrator(servers[1])
    alice, _, room_id = shared_room(servers)
    carol = servers[1].person("carol")

    joined = order(
        admin, "POST", f"/v1/join/{quote(room_id)}?server_name=a.test", {"user_id": carol.user_id}
    )

    assert joined == {"room_id": room_id}
    wait_for(lambda: membership(alice, room_id, carol.user_id)() == "join")
