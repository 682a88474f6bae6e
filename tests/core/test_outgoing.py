"""EDUs that wait for a server which does not come back."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from homebody.core import outbox, outgoing
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import Login
from tests.helpers.remote import Remotes
from tests.helpers.shared_rooms import shared_room
from tests.helpers.waiting import wait_for

Json = dict[str, Any]
MESSAGES, DEVICES, KEYS = "m.direct_to_device", "m.device_list_update", "m.signing_key_update"
DAY_MS = 86_400_000
ALICE, BOB = "@alice:localhost", "@bob:localhost"


@pytest.fixture
def db(app: Application) -> Database:
    return app.homeserver.database


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_CHANGES", 3)
    monkeypatch.setattr(outgoing, "_READ_AT_ONCE", 2)


def add(db: Database, edu_type: str, content: Json, *, days_ago: float = 0) -> None:
    """Have an EDU sent to b.test that was made some days ago."""
    with db.write() as tx:
        tx.now_ms -= round(days_ago * DAY_MS)
        outgoing.send_edu(tx, ["b.test"], edu_type, content)


def waiting(db: Database, server: str = "b.test") -> list[Json]:
    """Return the contents of the EDUs that wait for a server, in their order."""
    with db.read() as tx:
        return [row.payload["content"] for row in outgoing.edus(tx, server, 0, 10_000)]


def change(number: int, user_id: str = ALICE) -> Json:
    return {"user_id": user_id, "device_id": "A", "stream_id": number, "prev_id": [number - 1]}


@pytest.mark.usefixtures("remote", "few")
def test_messages_to_devices_wait_for_thirty_days(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for days_ago in (32, 31, 30.1, 29.9, 14, 0):
        add(db, MESSAGES, {"days_ago": days_ago}, days_ago=days_ago)

    outgoing.sweep_edus(db)
    outgoing.sweep_edus(db)

    assert [it["days_ago"] for it in waiting(db)] == [29.9, 14, 0]
    (record,) = [it for it in caplog.records if it.name == "homebody.core.outgoing"]
    assert record.levelno == logging.WARNING
    assert "3 EDUs" in record.message
    assert "b.test" in record.message


@pytest.mark.usefixtures("remote", "few")
def test_of_many_changes_the_last_of_each_user_stays_whatever_its_age(
    db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for number in (1, 2):
        add(db, DEVICES, change(number), days_ago=90)
    add(db, DEVICES, change(3, BOB), days_ago=80)
    add(db, MESSAGES, {"text": "hello"}, days_ago=7)
    add(db, DEVICES, change(4), days_ago=60)

    outgoing.sweep_edus(db)

    assert waiting(db) == [change(3, BOB), {"text": "hello"}, change(4)]
    assert "2 changes of devices for b.test are superseded" in caplog.text


@pytest.mark.usefixtures("remote", "few")
def test_of_cross_signing_keys_the_last_of_each_kind_stays(db: Database) -> None:
    def keys(*usages: str, number: int) -> Json:
        named = {it: {"user_id": ALICE, "number": number} for it in usages}
        return {"user_id": ALICE, **named}

    every = [
        keys("master_key", "self_signing_key", number=1),
        keys("master_key", "self_signing_key", number=2),
        keys("self_signing_key", number=3),
        keys("self_signing_key", number=4),
    ]
    for content in every:
        add(db, KEYS, content)

    outgoing.sweep_edus(db)

    assert waiting(db) == [every[1], every[3]]


@pytest.mark.usefixtures("remote", "few")
def test_few_changes_stay_as_they_are_and_each_server_is_counted_by_itself(db: Database) -> None:
    for number in (1, 2, 3):
        with db.write() as tx:
            outgoing.send_edu(tx, ["b.test", "c.test"], DEVICES, change(number))
    add(db, DEVICES, change(4))

    outgoing.sweep_edus(db)

    assert waiting(db) == [change(4)]
    assert waiting(db, "c.test") == [change(1), change(2), change(3)]


def test_rows_of_other_kinds_stay(db: Database) -> None:
    with db.write() as tx:
        tx.now_ms -= 90 * DAY_MS
        outbox.add(tx, "appservice", "b.test", {"edu_type": MESSAGES, "content": {}})

    outgoing.sweep_edus(db)

    with db.read() as tx:
        assert len(outbox.first(tx, "appservice", "b.test", 9)) == 1


@pytest.mark.usefixtures("few")
def test_a_server_that_is_back_gets_what_is_left_in_order(
    app: Application, db: Database, remote: Remotes, login: Login
) -> None:
    b, sender = remote("b.test"), app.homeserver.sender
    shared_room(app, login("alice"), b)
    b.fail("/send/")
    sender.start()
    app.homeserver.delivery.start()
    for number in range(1, 9):
        add(db, DEVICES, change(number))
        add(db, MESSAGES, {"number": number}, days_ago=29)
    b.wait_until(lambda: b.received("/send/"))

    sender.sweep()
    b.recover()
    sender.heard_from("b.test")

    b.wait_until(lambda: len(b.edus(MESSAGES)) == 8)
    wait_for(lambda: not waiting(db), "the empty outbox")
    app.homeserver.delivery.stop()
    sender.stop()
    assert [it["number"] for it in b.edus(MESSAGES)] == list(range(1, 9))
    assert b.edus(DEVICES)[-1] == change(8)
