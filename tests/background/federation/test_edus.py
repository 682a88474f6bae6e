"""EDUs that other servers are sent."""

from __future__ import annotations

import time

from homebody.background.federation.sender import Sender
from homebody.web import Application
from tests.background.federation.conftest import Restart
from tests.conftest import Person
from tests.helpers.remote import Remotes
from tests.helpers.sent import (
    SEND,
    rows_for,
    send_reliably,
    sent,
)
from tests.helpers.shared_rooms import shared_room, wait_for_bodies

TYPING = "m.typing"


def test_an_edu_is_replaced_until_it_is_sent(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.delay(SEND, 0.5, times=1)
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 1)

    for is_typing in (True, False, True, False):
        content = {"room_id": room_id, "user_id": alice.user_id, "typing": is_typing}
        sender.send_edu(["b.test", "localhost"], TYPING, (room_id, alice.user_id), content)
    sender.send_edu(["b.test"], TYPING, "another", {"typing": True})
    b.wait_until(lambda: len(b.edus(TYPING)) == 2)

    assert [it["typing"] for it in b.edus(TYPING)] == [False, True]


def test_edus_are_dropped_while_a_server_fails_but_reliable_ones_are_not(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    b.fail(SEND)
    send_reliably(app, "b.test", 1)
    b.wait_until(lambda: len(sent(b)) == 1)
    time.sleep(0.1)

    sender.send_edu(["b.test"], TYPING, "key", {"typing": True})
    send_reliably(app, "b.test", 2)
    b.recover()
    b.wait_until(lambda: len(b.edus("m.direct_to_device")) == 2)

    assert [it["n"] for it in b.edus("m.direct_to_device")] == [1, 2]
    assert not b.edus(TYPING)
    assert len({path for path, _ in sent(b)}) == 2


def test_reliable_edus_survive_a_restart_and_come_in_order(
    app: Application,
    remote: Remotes,
    sender: Sender,
    restart: Restart,
) -> None:
    b = remote("b.test")
    sender.stop()
    app.homeserver.delivery.stop()
    for number in range(250):
        send_reliably(app, "b.test", number)

    again = restart()
    b.wait_until(lambda: len(b.edus("m.direct_to_device")) >= 250)

    assert [it["n"] for it in b.edus("m.direct_to_device")] == list(range(250))
    assert max(len(it["edus"]) for it in b.transactions) == 100
    until = time.monotonic() + 10
    while rows_for(again, "b.test"):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_events_and_edus_share_a_transaction(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.delay(SEND, 0.5, times=1)
    alice.send(room_id, "first")
    b.wait_until(lambda: len(sent(b)) == 1)

    alice.send(room_id, "second")
    send_reliably(app, "b.test", 1)
    sender.send_edu(["b.test"], TYPING, "key", {"typing": True})
    wait_for_bodies(b, ["first", "second"])

    assert [(len(it["pdus"]), len(it["edus"])) for it in b.transactions] == [(1, 0), (1, 2)]
