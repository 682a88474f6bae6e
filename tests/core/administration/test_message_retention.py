"""Old messages are deleted as a room and the server's policy say."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import update

from homebody.config.tables import Retention
from homebody.core.administration import message_retention
from homebody.models.events import StoredEvent
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person

DAY_MS = 86_400_000
ENABLED = {"retention.enabled": "true"}


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(**ENABLED)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


def bodies(person: Person, room: str) -> list[str]:
    """The messages of a room, oldest first."""
    query = {"dir": "b", "limit": "100"}
    page = person.get(f"rooms/{quote(room)}/messages", query_string=query).get_json()
    found = [event["content"].get("body") for event in page["chunk"]]
    return [body for body in found if body][::-1]


def room_with(app: Application, person: Person, days: list[int], **retention: Any) -> str:
    """A room with a message of each age, and this m.room.retention if it is not empty."""
    room = person.create_room()
    if retention:
        assert person.set_state(room, "m.room.retention", retention).status_code == 200
    sent = [person.send(room, f"{age}") for age in days]
    with app.homeserver.database.write() as tx:
        before = StoredEvent.room_id == room, StoredEvent.event_id.not_in(sent)
        old = tx.now_ms - max(days) * DAY_MS - 1
        tx.sql.execute(update(StoredEvent).where(*before).values(origin_server_ts=old))
        for age, event_id in zip(days, sent, strict=True):
            values = {"origin_server_ts": tx.now_ms - age * DAY_MS}
            tx.sql.execute(
                update(StoredEvent).where(StoredEvent.event_id == event_id).values(**values)
            )
    return room


def sweep(app: Application) -> int:
    return message_retention.sweep(app.homeserver.database)


def test_messages_older_than_the_room_wishes_are_deleted(app: Application, alice: Person) -> None:
    room = room_with(app, alice, [40, 30, 5, 1], max_lifetime=10 * DAY_MS)
    other = room_with(app, alice, [400, 1])

    sweep(app)

    assert bodies(alice, room) == ["5", "1"]
    assert bodies(alice, other) == ["400", "1"]
    state = alice.get(f"rooms/{quote(room)}/state/m.room.retention").get_json()
    assert state == {"max_lifetime": 10 * DAY_MS}
    alice.send(room, "later")
    assert bodies(alice, room) == ["5", "1", "later"]
    assert sweep(app) == 0


def test_the_rows_of_deleted_messages_are_gone(app: Application, alice: Person) -> None:
    room = room_with(app, alice, [40] * 300 + [1], max_lifetime=10 * DAY_MS)

    count = sweep(app)

    assert count >= 300
    assert bodies(alice, room) == ["1"]


def test_the_default_applies_to_rooms_that_do_not_say(make_app: MakeApp) -> None:
    app = make_app(**ENABLED, **{"retention.default_max_lifetime": "20 d"})
    alice = _register(app)
    silent = room_with(app, alice, [40, 5])
    longer = room_with(app, alice, [40, 5], max_lifetime=100 * DAY_MS)

    sweep(app)

    assert bodies(alice, silent) == ["5"]
    assert bodies(alice, longer) == ["40", "5"]


def test_nothing_is_deleted_unless_the_administrator_wants_it(make_app: MakeApp) -> None:
    app = make_app(**{"retention.default_max_lifetime": "1 d"})
    alice = _register(app)
    room = room_with(app, alice, [40, 5], max_lifetime=DAY_MS)

    assert sweep(app) == 0
    assert bodies(alice, room) == ["40", "5"]


def test_an_event_that_claims_to_be_from_the_future_does_not_keep_others(
    app: Application, alice: Person
) -> None:
    room = room_with(app, alice, [40, -4000, 30, 1], max_lifetime=10 * DAY_MS)

    sweep(app)

    assert bodies(alice, room) == ["1"]


@pytest.mark.parametrize(
    ("policy", "content", "expected"),
    [
        ({}, {}, None),
        ({}, {"max_lifetime": 5}, 5),
        ({}, {"max_lifetime": 5, "min_lifetime": 9}, 9),
        ({}, {"min_lifetime": 9}, None),
        ({"default_max_lifetime_ms": 7}, {}, 7),
        ({"default_max_lifetime_ms": 7}, {"max_lifetime": 5}, 5),
        ({"default_max_lifetime_ms": 7}, {"max_lifetime": "5"}, 7),
        ({"default_max_lifetime_ms": 7}, {"max_lifetime": True}, 7),
        ({"default_max_lifetime_ms": 7}, {"max_lifetime": -1}, 7),
        ({"allowed_lifetime_min_ms": 6}, {"max_lifetime": 5}, 6),
        ({"allowed_lifetime_max_ms": 4}, {"max_lifetime": 5}, 4),
        ({"allowed_lifetime_max_ms": 4}, {"max_lifetime": 5, "min_lifetime": 9}, 4),
        ({"allowed_lifetime_max_ms": 4}, {}, None),
    ],
)
def test_the_lifetime_is_within_the_servers_bounds(
    policy: dict[str, int], content: dict[str, Any], expected: int | None
) -> None:
    assert message_retention.lifetime_ms(Retention(**policy), content) == expected  # type: ignore[arg-type]


def _register(app: Application) -> Person:
    body = {"username": "alice", "password": "x" * 12, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    made = client.post("/_matrix/client/v3/register", json=body).get_json()
    return Person(client, made["user_id"], made["access_token"], made["device_id"])
