"""Events and EDUs that other servers are sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import quote

import pytest
import requests
from sqlalchemy import select

from homebody.background.federation import destination
from homebody.background.federation.destination import Destination
from homebody.background.federation.sender import Sender
from homebody.background.federation.transactions import Entry
from homebody.core import outgoing
from homebody.core.outgoing import Progress
from homebody.core.rooms import purge
from homebody.core.timeline import sending
from homebody.core.timeline.sending import Draft
from homebody.models.outgoing import FederationLogRow
from homebody.storage.caches import Caches
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers import server as real_server
from tests.helpers.remote import Remote, Remotes
from tests.helpers.scripted_server import Response
from tests.helpers.shared_rooms import bodies, join, leave, shared_room, wait_for_bodies

SEND = "/send/"
TYPING = "m.typing"


class UnexpectedError(Exception):
    """A bug."""


def sent(remote: Remote) -> list[tuple[str, bytes]]:
    """The (path, body) of each request that a server has got, also of those that it refused."""
    return [(it.path, it.body) for it in remote.received(SEND)]


def progress(app: Application) -> dict[str, Progress]:
    with app.homeserver.database.read() as tx:
        return {it.server: it for it in outgoing.all_progress(tx)}


def logged(app: Application) -> int:
    with app.homeserver.database.read() as tx:
        return len(tx.sql.execute(select(FederationLogRow)))


def registered(app: Application) -> Person:
    """Register Alice."""
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    client = app.test_client()
    session = client.post(V3 + "register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


def send_as(db: Database, room_id: str, user_id: str, text: str) -> None:
    """Send a message without the client's API."""
    with db.write() as tx:
        content = {"msgtype": "m.text", "body": text}
        sending.send(tx, Draft(room_id, user_id, "m.room.message", content))


def send_reliably(app: Application, server: str, number: int) -> None:
    with app.homeserver.database.write() as tx:
        outgoing.send_edu(tx, [server], "m.direct_to_device", {"n": number})


def rows_for(app: Application, server: str) -> int:
    """Return how many EDUs wait in the outbox."""
    with app.homeserver.database.read() as tx:
        return len(outgoing.edus(tx, server, 0, 1000))


def wait_until_saved(app: Application) -> None:
    """Wait until the database says that all servers have everything."""

    def is_saved() -> bool:
        with app.homeserver.database.read() as tx:
            to_all, last = outgoing.sent_to_all(tx), outgoing.last_position(tx)
            places = [it.sent_upto for it in outgoing.all_progress(tx)]
        return (to_all or 0) >= last and places.count(None) == len(places)

    until = time.monotonic() + 10
    while not is_saved():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture
def restart(make_app: MakeApp, remote: Remotes) -> Iterator[list[Application]]:
    """Servers of the test that are to be stopped."""
    started: list[Application] = []
    yield started
    for app in started:
        app.homeserver.delivery.stop()
        app.homeserver.sender.stop()


def started_again(make_app: MakeApp, remote: Remotes, running: list[Application]) -> Application:
    """Start another server on the same database, and have it send."""
    app = make_app(**remote.settings)
    running.append(app)
    app.homeserver.sender.start()
    app.homeserver.delivery.start()
    return app


def wait_until_got(remote: Remote, text: str) -> None:
    remote.wait_until(lambda: text in bodies(remote), text)


def test_a_message_reaches_the_other_servers_of_the_room(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c, stranger = remote("b.test"), remote("c.test"), remote("d.test")
    room_id = shared_room(app, alice, b, c)

    event_id = alice.send(room_id, "hello")
    wait_for_bodies(b, ["hello"])
    wait_for_bodies(c, ["hello"])

    assert not stranger.transactions
    (pdu,) = b.pdus
    assert (pdu["room_id"], pdu["sender"]) == (room_id, alice.user_id)
    assert "unsigned" not in pdu
    assert "event_id" not in pdu
    assert event_id.startswith("$")
    transaction = b.transactions[0]
    assert transaction["origin"] == "localhost"
    assert transaction["edus"] == []
    assert abs(transaction["origin_server_ts"] - time.time() * 1000) < 60_000


def test_a_room_of_local_users_logs_nothing(
    app: Application, remote: Remotes, sender: Sender, alice: Person, login: Login
) -> None:
    room_id = alice.create_room(preset="public_chat")
    login("bob").post(f"rooms/{quote(room_id)}/join")

    alice.send(room_id)

    assert logged(app) == 0


def test_without_federation_nothing_is_logged(make_app: MakeApp) -> None:
    app = make_app(federation="false")
    alice = registered(app)
    room_id = alice.create_room(preset="public_chat")
    join(app, room_id, "@carol:b.test")

    alice.send(room_id)

    assert logged(app) == 0


def test_events_of_other_servers_are_not_sent_on(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)

    join(app, room_id, b.user_id("dave"))
    alice.send(room_id, "hello")
    wait_for_bodies(c, ["hello"])

    assert len(c.pdus) == 1


def test_events_come_in_order_and_several_in_a_transaction(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.delay(SEND, 0.5, times=1)

    texts = [str(number) for number in range(120)]
    for text in texts:
        alice.send(room_id, text)
    wait_for_bodies(b, texts)

    sizes = [len(it["pdus"]) for it in b.transactions]
    assert len(sizes) <= 10
    assert max(sizes) <= 50
    paths = [path for path, _ in sent(b)]
    assert len(set(paths)) == len(paths)


def test_a_failed_transaction_is_repeated_unchanged(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND, 500, times=1)

    alice.send(room_id, "first")
    b.wait_until(lambda: len(sent(b)) == 1)
    alice.send(room_id, "second")
    wait_for_bodies(b, ["first", "second"])

    refused, repeated, last = sent(b)
    assert refused == repeated
    assert last[0] != repeated[0]


def test_a_transaction_that_is_too_large_is_split(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    too_large = Response(413, b"<html>Request entity too large</html>")
    ok = Response(200, {"pdus": {}})
    b.fail(SEND, 500, times=1)
    alice.send(room_id, "0")
    b.wait_until(lambda: len(sent(b)) == 1)
    for number in range(1, 30):
        alice.send(room_id, str(number))

    b.answer(SEND, lambda it: too_large if len(it.json["pdus"]) > 13 else ok)
    b.wait_until(lambda: sum(len(json.loads(body)["pdus"]) <= 13 for _, body in sent(b)) >= 5)
    b.recover()
    alice.send(room_id, "last")
    b.wait_until(lambda: "last" in bodies(b))

    accepted = [json.loads(body)["pdus"] for _, body in sent(b)[1:]]
    texts = [it["content"]["body"] for pdus in accepted if len(pdus) <= 13 for it in pdus]
    assert texts == [*(str(number) for number in range(30)), "last"]


def test_a_cut_response_is_a_failure(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.cut(SEND, times=1)

    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 2)

    assert sent(b)[0] == sent(b)[1]


def test_a_server_that_loses_its_last_member_gets_that_event_and_none_after_it(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)

    kicked = {"user_id": b.user_id("carol")}
    assert alice.post(f"rooms/{quote(room_id)}/kick", json=kicked).status_code == 200
    alice.send(room_id, "after")
    wait_for_bodies(c, ["after"])
    b.wait_until(lambda: b.pdus)

    assert [it["content"]["membership"] for it in b.pdus] == ["leave"]


def test_an_invite_that_is_taken_back_is_sent_to_a_server_that_is_not_in_the_room(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = alice.create_room(preset="public_chat")
    with app.homeserver.database.write() as tx:
        for it in (b, c):
            content, user_id = {"membership": "invite"}, it.user_id("carol")
            sending.send(tx, Draft(room_id, alice.user_id, "m.room.member", content, user_id))

    kicked = {"user_id": b.user_id("carol")}
    assert alice.post(f"rooms/{quote(room_id)}/kick", json=kicked).status_code == 200
    b.wait_until(lambda: b.pdus)

    assert [it["content"]["membership"] for it in b.pdus] == ["leave"]
    assert not sent(c)


def test_a_ban_of_a_user_who_was_not_there_is_no_business_of_their_server(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, c)

    banned = {"user_id": b.user_id("mallory")}
    assert alice.post(f"rooms/{quote(room_id)}/ban", json=banned).status_code == 200
    alice.send(room_id, "after")
    wait_for_bodies(c, ["after"])

    assert not sent(b)


def test_a_server_with_another_member_left_gets_all(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    join(app, room_id, b.user_id("dave"))

    leave(app, room_id, b.user_id("carol"))
    alice.send(room_id, "after")

    wait_for_bodies(b, ["after"])


def test_a_server_that_the_settings_exclude_gets_nothing(
    make_app: MakeApp, remote: Remotes, restart: list[Application]
) -> None:
    b, c = remote("b.test"), remote("c.test")
    app = make_app(**remote.settings, federation_deny_servers='["b.test"]')
    restart.append(app)
    app.homeserver.sender.start()
    alice = registered(app)
    room_id = shared_room(app, alice, b, c)
    remote.talk_to(app)

    alice.send(room_id, "hello")
    wait_for_bodies(c, ["hello"])

    assert not sent(b)


def test_servers_that_are_down_or_hang_hold_up_no_others(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    hanging = [remote() for _ in range(12)]
    for it in hanging:
        it.hang(SEND)
    room_id = shared_room(app, alice, b, *hanging)
    join(app, room_id, *(f"@carol:127.0.0.1:{real_server.free_port()}" for _ in range(12)))

    for number in range(5):
        began = time.monotonic()
        alice.send(room_id, str(number))
        wait_for_bodies(b, [str(it) for it in range(number + 1)])
        assert time.monotonic() - began < 2.0

    assert {len(sent(it)) for it in hanging} <= {0, 1}
    for it in hanging:
        it.recover()


def test_a_request_from_a_server_ends_its_back_off(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND)
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 3)  # the next attempt follows after 4 seconds
    b.recover()

    time.sleep(1.1)
    began = time.monotonic()
    answer = b.get("v1", "query", "profile", query={"user_id": alice.user_id})
    wait_for_bodies(b, ["hello"])

    assert answer.status == 200
    assert time.monotonic() - began < 1.5


def test_a_request_that_a_server_did_not_sign_ends_no_back_off(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND)
    alice.send(room_id, "hello")
    b.wait_until(lambda: len(sent(b)) == 3)  # the next attempt follows after 4 seconds

    time.sleep(1.1)
    forged = b.authorization("GET", "/", None, "localhost")
    answer = b.get("v1", "query", "profile", authorization=forged)
    time.sleep(0.3)

    assert answer.status == 401
    assert len(sent(b)) == 3


def test_why_a_server_fails_is_saved_until_it_accepts(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    b.fail(SEND, 502, times=2, errcode="M_UNKNOWN", error="Out of order")

    alice.send(room_id, "hello")
    b.wait_until(lambda: "b.test" in progress(app))
    failing = progress(app)["b.test"]
    wait_for_bodies(b, ["hello"])
    wait_until_saved(app)

    assert failing.tries > 0
    assert failing.sent_upto is not None
    assert failing.failing_since_ts is not None
    assert "502" in (failing.problem or "")
    assert "Out of order" in (failing.problem or "")
    accepted = progress(app)["b.test"]
    assert (accepted.tries, accepted.problem, accepted.failing_since_ts) == (0, None, None)
    assert accepted.last_sent_ts > 0


def test_what_was_not_sent_before_a_restart_is_sent_after_it(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b, c = remote("b.test"), remote("c.test")
    room_id = shared_room(app, alice, b, c)
    alice.send(room_id, "first")
    wait_for_bodies(b, ["first"])
    wait_until_saved(app)
    sender.stop()
    texts = [str(number) for number in range(60)]
    for text in texts:
        alice.send(room_id, text)
    leave(app, room_id, c.user_id("carol"))
    alice.send(room_id, "last")

    started_again(make_app, remote, restart)

    wait_for_bodies(b, ["first", *texts, "last"])
    wait_for_bodies(c, ["first", *texts])


def test_after_more_than_500_events_only_the_newest_of_each_room_is_sent(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b, c = remote("b.test"), remote("c.test")
    busy, quiet = shared_room(app, alice, b, c), shared_room(app, alice, b)
    wait_until_saved(app)
    sender.stop()
    alice.send(quiet, "quiet")
    texts = [str(number) for number in range(500)]
    for text in texts:
        alice.send(busy, text)

    started_again(make_app, remote, restart)

    wait_for_bodies(c, texts)
    wait_for_bodies(b, ["quiet", "499"])


def test_what_another_process_logs_is_sent(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    alice.send(room_id, "first")
    wait_for_bodies(b, ["first"])
    wait_until_saved(app)
    db = app.homeserver.database
    other = Database(db.server.config.database_url, db.server, Caches(0), lambda _: None)

    send_as(other, room_id, alice.user_id, "by a command")
    other.close()
    sender.rescan()

    wait_for_bodies(b, ["first", "by a command"])
    alice.send(room_id, "later")
    wait_for_bodies(b, ["first", "by a command", "later"])


def test_an_event_that_could_not_be_queued_is_found_in_the_log(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    add, calls = Destination.add, iter([True, True])

    def add_but_fail_first(self: Destination, entry: Entry) -> None:
        if next(calls, False):
            raise UnexpectedError
        add(self, entry)

    monkeypatch.setattr(Destination, "add", add_but_fail_first)
    for text in ("first", "second", "third"):
        alice.send(room_id, text)
    b.wait_until(lambda: len(set(bodies(b))) == 3)

    in_order = [it for it in bodies(b) if it != "third"]
    assert in_order == ["first", "second"]
    assert "UnexpectedError" in caplog.text


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
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b = remote("b.test")
    sender.stop()
    app.homeserver.delivery.stop()
    for number in range(250):
        send_reliably(app, "b.test", number)

    again = started_again(make_app, remote, restart)
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


def test_twenty_servers_get_everything(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    remotes = [remote() for _ in range(20)]
    room_id = shared_room(app, alice, *remotes)

    texts = [str(number) for number in range(20)]
    for text in texts:
        alice.send(room_id, text)

    for it in remotes:
        wait_for_bodies(it, texts)


def break_somehow(remote: Remote, random: Random) -> None:
    """Have the next transactions fail, or be accepted without a response, or take longer."""
    times = random.randint(1, 3)
    match random.randrange(3):
        case 0:
            remote.fail(SEND, times=times)
        case 1:
            remote.cut(SEND, times=times)
        case _:
            remote.delay(SEND, 0.05, times=times)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_out_of_order_however_servers_fail(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setattr(destination, "FIRST_WAIT_MS", 10)
    monkeypatch.setattr(destination, "MAX_WAIT_MS", 100)
    random = Random(seed)  # noqa: S311 - no secret
    remotes = [remote(name) for name in ("b.test", "c.test", "d.test")]
    rooms = [shared_room(app, alice, *remotes), shared_room(app, alice, *remotes[:2])]
    sent_to: list[list[str]] = [[], []]

    for number in range(60):
        it = random.choice(remotes)
        break_somehow(it, random)
        at = random.randrange(2)
        alice.send(rooms[at], f"{at}-{number}")
        sent_to[0].append(f"{at}-{number}")
        sent_to[1] += [f"{at}-{number}"] if at == 0 else []
        send_reliably(app, "b.test", number)
        time.sleep(random.random() / 50)

    for it, expected in zip(remotes, (sent_to[0], sent_to[0], sent_to[1]), strict=True):
        wait_until_got(it, expected[-1])
        # a response that was cut had been accepted, and is repeated
        assert list(dict.fromkeys(bodies(it))) == expected
    b = remotes[0]
    b.wait_until(lambda: {"n": 59} in b.edus("m.direct_to_device"))
    numbers = [it["n"] for it in b.edus("m.direct_to_device")]
    assert list(dict.fromkeys(numbers)) == list(range(60))


def test_a_purged_event_is_left_out(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b = remote("b.test")
    gone, room_id = shared_room(app, alice, b), shared_room(app, alice, b)
    wait_until_saved(app)
    sender.stop()
    alice.send(gone, "gone")
    alice.send(room_id, "here")
    purge.purge(app.homeserver.database, gone, is_forced=True)

    started_again(make_app, remote, restart)

    wait_for_bodies(b, ["here"])


def test_the_log_is_swept_when_all_have_it(
    app: Application, remote: Remotes, sender: Sender, alice: Person
) -> None:
    b, c = remote("b.test"), remote("c.test")
    c.fail(SEND)
    both, only_b = shared_room(app, alice, b, c), shared_room(app, alice, b)
    for number in range(3):
        alice.send(only_b, str(number))
    alice.send(both, "both")
    alice.send(only_b, "last")
    wait_for_bodies(b, ["0", "1", "2", "both", "last"])
    c.wait_until(lambda: progress(app).get("c.test"))

    sender.sweep()
    left = logged(app)
    c.recover()
    wait_for_bodies(c, ["both"])
    wait_until_saved(app)
    sender.sweep()

    assert left == 2
    assert logged(app) == 0


def test_a_server_that_was_away_for_a_month_gets_the_newest_event_of_each_room(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b = remote("b.test")
    first, second, left = (shared_room(app, alice, b) for _ in range(3))
    leave(app, left, b.user_id("carol"))
    for room_id in (first, second, first, left):
        alice.send(room_id, room_id)
    wait_until_saved(app)
    sender.stop()
    known = Progress("b.test", outgoing.NOT_LOGGED, failing_since_ts=1, tries=20)
    with app.homeserver.database.write() as tx:
        outgoing.save(tx, tx.position, [known])
    before = len(b.pdus)

    started_again(make_app, remote, restart)
    b.wait_until(lambda: len(b.pdus) >= before + 2)
    wait_until_saved(app)

    assert [it["content"]["body"] for it in b.pdus[before:]] == [second, first]


def test_places_of_servers_that_failed_for_a_month_do_not_hold_the_log(
    app: Application,
    remote: Remotes,
    sender: Sender,
    alice: Person,
    make_app: MakeApp,
    restart: list[Application],
) -> None:
    b, c = remote("b.test"), remote("c.test")
    for it in (b, c):
        it.fail(SEND)
    room_id = shared_room(app, alice, b, c)
    sender.stop()
    now_ms = time.time_ns() // 1_000_000
    with app.homeserver.database.write() as tx:
        for server, days in (("b.test", 31), ("c.test", 29)):
            since_ts = now_ms - days * 86_400_000
            outgoing.save(tx, 1, [Progress(server, 1, since_ts, 30, outgoing.NEVER)])
    alice.send(room_id, "hello")
    again = started_again(make_app, remote, restart)
    until = time.monotonic() + 10
    while again.homeserver.sender.counts()[0] < 2 or not logged(app):
        assert time.monotonic() < until

    time.sleep(1.5)
    again.homeserver.sender.sweep()
    with_c = logged(app), progress(app)["b.test"].sent_upto
    c.recover()
    again.homeserver.sender.heard_from("c.test")
    wait_for_bodies(c, ["hello"])
    time.sleep(1.5)
    again.homeserver.sender.sweep()

    assert with_c == (1, 1)
    assert logged(app) == 0
    assert progress(app)["b.test"].sent_upto == outgoing.NOT_LOGGED


@pytest.mark.timeout(120)
def test_a_killed_server_sends_what_it_acknowledged(
    app: Application, remote: Remotes, alice: Person, tmp_path: Path
) -> None:
    b = remote("b.test")
    room_id = shared_room(app, alice, b)
    app.homeserver.database.close()
    b.delay(SEND, 0.2)
    sent_texts: list[str] = []
    for attempt in range(3):
        running = real_server.start(tmp_path, **remote.settings)
        remote.talk_to_running(running, tmp_path, "localhost")
        try:
            for number in range(20):
                text = f"{attempt}-{number}"
                path = f"{V3}rooms/{quote(room_id)}/send/m.room.message/{text}"
                answer = requests.put(
                    running.url + path,
                    json={"msgtype": "m.text", "body": text},
                    headers={"Authorization": f"Bearer {alice.access_token}"},
                    timeout=10,
                )
                assert answer.status_code == 200, answer.text
                sent_texts.append(text)
            if attempt == 2:
                b.wait_until(lambda: "2-19" in bodies(b))
        finally:
            running.kill()

    in_order = list(dict.fromkeys(bodies(b)))
    assert in_order == sent_texts
