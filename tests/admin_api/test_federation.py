"""Other servers by the admin API: whether they accept what is sent, and which rooms they are in."""

from __future__ import annotations

import time

import pytest

from homebody.core import audit, outgoing
from homebody.core.outgoing import Progress
from homebody.web import Application
from tests.conftest import Person
from tests.helpers.remote import Remotes
from tests.helpers.rooms import Json, refusal, unchanged
from tests.helpers.shared_rooms import shared_room, wait_for_bodies

PATH = "/_synapse/admin/v1/federation/destinations"
NOW_MS = time.time_ns() // 1_000_000
FAILING = Progress("b.test", 7, NOW_MS - 60_000, 3, NOW_MS + 4_000, "b.test takes too long")


def save(app: Application, *known: Progress) -> int:
    """Store what is known of servers; return the position that those without one have reached."""
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, known)
        return tx.position


def listed(admin: Person, **query: str) -> Json:
    answer = admin.get(PATH, query_string=query)
    assert answer.status_code == 200, answer.get_json()
    found: Json = answer.get_json()
    return found


def names(found: Json) -> list[str]:
    return [it["destination"] for it in found["destinations"]]


def test_a_server_is_shown_with_when_it_failed(app: Application, admin: Person) -> None:
    well = Progress("c.test", last_sent_ts=NOW_MS)
    silent = Progress("d.test", 7, 1, 30, outgoing.NEVER, "d.test can't be reached")
    position = save(app, FAILING, well, silent)

    found = listed(admin)

    assert found == {
        "destinations": [
            {
                "destination": "b.test",
                "failure_ts": NOW_MS - 60_000,
                "retry_last_ts": NOW_MS,
                "retry_interval": 4_000,
                "last_successful_stream_ordering": None,
            },
            {
                "destination": "c.test",
                "failure_ts": None,
                "retry_last_ts": 0,
                "retry_interval": 0,
                "last_successful_stream_ordering": position,
            },
            {
                "destination": "d.test",
                "failure_ts": 1,
                "retry_last_ts": 1,
                "retry_interval": 24 * 3_600_000,
                "last_successful_stream_ordering": None,
            },
        ],
        "total": 3,
    }
    for one in found["destinations"]:
        assert admin.get(f"{PATH}/{one['destination']}").get_json() == one


def test_a_server_that_only_has_edus_waiting_is_listed(app: Application, admin: Person) -> None:
    with app.homeserver.database.write() as tx:
        outgoing.send_edu(tx, ["c.test"], "m.direct_to_device", {})

    assert names(listed(admin)) == (["c.test"] if app.homeserver.server.config.federation else [])


def test_a_list_has_pages_an_order_and_a_filter(app: Application, admin: Person) -> None:
    save(app, *(Progress(f"{it}.example", last_sent_ts=1) for it in "abcde"), FAILING)

    first = listed(admin, limit="2", id="x")
    second = listed(admin, limit="2", **{"from": first["next_token"]})
    last = listed(admin, limit="2", **{"from": "4"})

    assert names(first) == ["a.example", "b.example"]
    assert (first["next_token"], second["next_token"], first["total"]) == ("2", "4", 6)
    assert names(second) == ["b.test", "c.example"]
    assert "next_token" not in last
    assert names(listed(admin, dir="b"))[0] == "e.example"
    assert names(listed(admin, order_by="failure_ts", dir="b"))[0] == "b.test"
    for order in ("retry_last_ts", "retry_interval", "last_successful_stream_ordering"):
        assert len(names(listed(admin, order_by=order))) == 6
    assert names(listed(admin, destination="TEST")) == ["b.test"]
    assert listed(admin, destination="TEST")["total"] == 1
    assert names(listed(admin, limit="0")) == []


def test_the_rooms_of_a_server_are_those_in_which_it_has_users(
    app: Application, remote: Remotes, admin: Person
) -> None:
    b = remote("b.test")
    rooms = [shared_room(app, admin, b), shared_room(app, admin, b)]
    admin.create_room()
    save(app, Progress("b.test", last_sent_ts=1), Progress("test", last_sent_ts=1))

    def page(server: str = "b.test", **query: str) -> Json:
        found: Json = admin.get(f"{PATH}/{server}/rooms", query_string=query).get_json()
        return found

    found = page()
    assert [it["room_id"] for it in found["rooms"]] == rooms
    assert found["total"] == 2
    assert all(it["stream_ordering"] > 0 for it in found["rooms"])
    assert page(limit="1") == {"rooms": found["rooms"][:1], "total": 2, "next_token": "1"}
    assert page(dir="b")["rooms"] == found["rooms"][::-1]
    assert page(**{"from": "1"}) == {"rooms": found["rooms"][1:], "total": 2}
    assert page("test") == {"rooms": [], "total": 0}


def test_a_server_that_fails_is_tried_again_at_once(
    app: Application, remote: Remotes, admin: Person
) -> None:
    b, sender = remote("b.test"), app.homeserver.sender
    room_id = shared_room(app, admin, b)
    b.fail("/send/")
    sender.start()
    admin.send(room_id, "hello")
    b.wait_until(lambda: len(b.received("/send/")) == 3)  # the next attempt follows in 4 seconds
    b.recover()
    time.sleep(1.5)

    began = time.monotonic()
    answer = admin.post(f"{PATH}/b.test/reset_connection", json=None)
    wait_for_bodies(b, ["hello"])
    sender.stop()

    assert (answer.status_code, answer.get_json()) == (200, {})
    assert time.monotonic() - began < 1.5
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 10, subject="b.test")
    assert (entry["actor"], entry["action"]) == (admin.user_id, "federation.retry")


def test_wrong_requests_are_refused(app: Application, admin: Person) -> None:
    save(app, Progress("c.test", last_sent_ts=1))

    with unchanged(app):
        for path in ("b.test", "b.test/rooms", "%00"):
            assert refusal(admin.get(f"{PATH}/{path}")) == (404, "M_NOT_FOUND")
        unknown = admin.post(f"{PATH}/b.test/reset_connection")
        well = admin.post(f"{PATH}/c.test/reset_connection")

    assert (refusal(unknown), refusal(well)) == ((404, "M_NOT_FOUND"), (400, "M_UNKNOWN"))


@pytest.mark.parametrize(
    "query", [{"from": "-1"}, {"limit": "x"}, {"order_by": "id"}, {"dir": "ASC"}]
)
def test_a_wrong_page_is_refused(app: Application, admin: Person, query: dict[str, str]) -> None:
    save(app, Progress("c.test", last_sent_ts=1))

    assert refusal(admin.get(PATH, query_string=query)) == (400, "M_INVALID_PARAM")
