"""When delayed events are sent: their timer, their order, and what refuses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from homebody.background.delayed_events import DelayedEvents
from homebody.core.timeline import delayed_events
from homebody.runtime import event_loop
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.rooms import Json
from tests.helpers.waiting import wait_for

Room = Callable[..., str]
HOUR = 3_600_000


@pytest.fixture
def timer(app: Application) -> Iterator[DelayedEvents]:
    """The timer, which the test starts."""
    yield app.homeserver.delayed_events
    app.homeserver.delayed_events.stop()


def schedule(person: Person, room_id: str, txn_id: str, delay_ms: int = HOUR) -> str:
    body = {"delay_ms": delay_ms, "content": {"body": txn_id}}
    path = f"rooms/{quote(room_id)}/delayed_event/m.room.message/{txn_id}"
    return str(person.put(path, json=body).get_json()["delay_id"])


def looked_up(person: Person, delay_id: str) -> Json:
    found: Json = person.get(f"/_matrix/client/v1/delayed_events/{delay_id}").get_json()
    return found


def bodies(person: Person, room_id: str) -> list[str]:
    """The texts of the room's messages, oldest first."""
    chunk = person.get(f"rooms/{quote(room_id)}/messages?dir=f&limit=100").get_json()["chunk"]
    return [it["content"]["body"] for it in chunk if it["type"] == "m.room.message"]


def change(app: Application, delay_id: str, **values: object) -> None:
    """Change the row of an event, as time or damage does."""
    with app.homeserver.database.write() as tx:
        for name, value in values.items():
            query = f"UPDATE delayed_events SET {name} = ? WHERE delay_id = ?"  # noqa: S608 - ours
            tx.sql.connection.exec_driver_sql(query, (value, delay_id))


def test_what_became_due_while_the_server_was_down_is_sent_in_the_order_of_its_times(
    app: Application, login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    for number, due_ts in enumerate((5000, 1000, 3000, 2000, 4000)):
        change(app, schedule(alice, room_id, str(due_ts) + str(number)), due_ts=due_ts)
    schedule(alice, room_id, "later")

    timer.start()

    wait_for(lambda: len(bodies(alice, room_id)) == 5)
    assert bodies(alice, room_id) == ["10001", "20003", "30002", "40004", "50000"]


def test_nothing_is_sent_before_the_start_and_after_the_stop(
    login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    schedule(alice, room_id, "early", 1)
    time.sleep(0.05)
    before = bodies(alice, room_id)
    timer.start()
    wait_for(lambda: bodies(alice, room_id) == ["early"])
    timer.stop()

    schedule(alice, room_id, "late", 1)
    time.sleep(0.05)

    assert before == []
    assert bodies(alice, room_id) == ["early"]


def test_an_earlier_event_that_is_scheduled_later_is_sent_at_its_time(
    login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    timer.start()
    schedule(alice, room_id, "third", HOUR)
    schedule(alice, room_id, "second", 300)

    schedule(alice, room_id, "first", 100)

    wait_for(lambda: len(bodies(alice, room_id)) == 2)
    assert bodies(alice, room_id) == ["first", "second"]


def test_earlier_and_earlier_events_do_not_add_up_to_many_timers(
    login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    timer.start()

    for number in range(5):
        schedule(alice, room_id, str(number), HOUR - 60_000 * number)

    assert len(timer._timers) <= 1  # noqa: SLF001 - what it costs


def test_restarts_do_not_add_up_to_many_timers(
    login: Login, room: Room, timer: DelayedEvents, statements: list[str]
) -> None:
    alice = login("alice")
    delay_id = schedule(alice, room(alice), "t", 1000)
    began = time.monotonic()
    timer.start()

    while (seconds := time.monotonic() - began) < 2.2:
        alice.post(f"/_matrix/client/v1/delayed_events/{delay_id}/restart")
        time.sleep(0.02)

    looks = [it for it in statements if it.startswith("SELECT min(delayed_events.due_ts)")]
    assert "finalised_ts" not in looked_up(alice, delay_id)
    assert len(looks) <= 2 + seconds  # at the start, and each second


def test_an_event_that_cannot_be_sent_does_not_hold_up_the_next(
    app: Application, login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    broken, elsewhere, good = (schedule(alice, room_id, it) for it in ("a", "b", "c"))
    change(app, broken, content='"damaged"', due_ts=1)
    change(app, elsewhere, room_id="!unknown:localhost", due_ts=2)
    change(app, good, due_ts=3)

    timer.start()

    wait_for(lambda: bodies(alice, room_id) == ["c"])
    assert looked_up(alice, broken)["error"]["errcode"] == "M_UNKNOWN"
    assert looked_up(alice, elsewhere)["error"]["errcode"] == "M_NOT_FOUND"
    assert "event_id" in looked_up(alice, good)


def test_an_event_that_becomes_due_just_after_a_look_is_sent(
    monkeypatch: pytest.MonkeyPatch, login: Login, room: Room, timer: DelayedEvents
) -> None:
    alice = login("alice")
    room_id = room(alice)
    look = timer.send_due

    def slow_look() -> int | None:
        found = look()
        time.sleep(0.3)
        return found

    monkeypatch.setattr(timer, "send_due", slow_look)
    schedule(alice, room_id, "soon", 150)

    timer.start()

    wait_for(lambda: bodies(alice, room_id) == ["soon"])


@pytest.fixture
def due(
    app: Application, login: Login, room: Room, monkeypatch: pytest.MonkeyPatch
) -> tuple[Person, str]:
    """A user and the room in which three of their events are due."""
    alice = login("alice")
    room_id = room(alice)
    for number in range(3):
        change(app, schedule(alice, room_id, str(number)), due_ts=number + 1)
    monkeypatch.setattr("homebody.background.delayed_events._AT_ONCE", 1)
    return alice, room_id


def test_other_requests_run_in_between(
    monkeypatch: pytest.MonkeyPatch, due: tuple[Person, str], timer: DelayedEvents
) -> None:
    pauses: list[list[str]] = []
    with monkeypatch.context() as patched:
        patched.setattr(event_loop, "pause", lambda: pauses.append([]))

        timer.send_due()

    assert bodies(*due) == ["0", "1", "2"]
    assert len(pauses) >= 3


def test_a_server_that_stops_does_not_send_all_that_is_due_first(
    monkeypatch: pytest.MonkeyPatch, due: tuple[Person, str], timer: DelayedEvents
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(event_loop, "pause", timer.stop)

        timer.send_due()

    assert bodies(*due) == ["0"]
    assert len(due[0].get("/_matrix/client/v1/delayed_events").get_json()["delayed_events"]) == 2


def test_what_became_of_events_is_kept_for_seven_days(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    room_id = room(alice)
    old, new = schedule(alice, room_id, "old"), schedule(alice, room_id, "new")
    for it in (old, new):
        alice.post(f"/_matrix/client/v1/delayed_events/{it}/cancel")
    change(app, old, finalised_ts=int(time.time() * 1000) - 7 * 86_400_000 - 1)

    with app.homeserver.database.write() as tx:
        delayed_events.forget_old(tx)

    assert looked_up(alice, old)["errcode"] == "M_NOT_FOUND"
    assert "finalised_ts" in looked_up(alice, new)


def test_only_the_newest_thousand_that_are_over_are_kept(
    app: Application, login: Login, room: Room
) -> None:
    alice = login("alice")
    last = schedule(alice, room(alice), "last")
    with app.homeserver.database.write() as tx:
        query = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1100)"
            " INSERT INTO delayed_events (delay_id, user_id, device_id, room_id, type, content,"
            " delay_ms, scheduled_ts, finalised_ts)"
            " SELECT 'old' || i, '@alice:localhost', '', '!r', 'm.x', '{}', 1, 1, i FROM n"
        )
        tx.sql.connection.exec_driver_sql(query)

    alice.post(f"/_matrix/client/v1/delayed_events/{last}/cancel")

    with app.homeserver.database.read() as tx:
        count = tx.sql.connection.exec_driver_sql("SELECT count(*) FROM delayed_events")
        assert count.scalar_one() == 1000
    assert looked_up(alice, "old102")["finalised_ts"] == 102
    assert looked_up(alice, "old101")["errcode"] == "M_NOT_FOUND"
