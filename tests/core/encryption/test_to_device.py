"""Send-to-device messages: each arrives once, in order, and is then deleted."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import pytest
from sqlalchemy import func, select

from homebody.core.encryption import to_device
from homebody.models.to_device import PartialSync, ToDeviceMessage, ToDeviceTransaction
from homebody.storage.caches import Requester
from homebody.web import Application
from tests.conftest import V3, Login, Person
from tests.helpers.rooms import Json, refusal, unchanged

TYPE = "org.example.ping"
numbers = itertools.count()


def send(person: Person, messages: Json, txn_id: str = "") -> None:
    txn_id = txn_id or f"t{next(numbers)}"
    answer = person.put(f"sendToDevice/{TYPE}/{txn_id}", json={"messages": messages})
    assert (answer.status_code, answer.get_json()) == (200, {})


def ping(person: Person, other: Person, number: int = 0, txn_id: str = "") -> None:
    """Send a number to the other's device."""
    send(person, {other.user_id: {other.device_id: {"n": number}}}, txn_id)


def pings(answer: Json) -> list[int]:
    """Return the numbers in a /sync response."""
    return [event["content"]["n"] for event in answer["to_device"]["events"]]


def waiting(app: Application) -> int:
    """Return the number of messages in the database."""
    with app.homeserver.database.read() as tx:
        count: int = tx.sql.execute(select(func.count()).select_from(ToDeviceMessage)).scalar_one()
        return count


def test_a_message_arrives_with_its_sender(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    since = bob.sync()["next_batch"]

    ping(alice, bob, 1)

    assert bob.sync(since)["to_device"]["events"] == [
        {"type": TYPE, "sender": alice.user_id, "content": {"n": 1}}
    ]


def test_it_comes_again_until_the_next_token_is_shown_and_then_never(
    app: Application, login: Login
) -> None:
    alice, bob = login("alice"), login("bob")
    since = bob.sync()["next_batch"]
    ping(alice, bob, 1)

    first, again = bob.sync(since), bob.sync(since)
    after = bob.sync(first["next_batch"])

    assert [pings(it) for it in (first, again, after)] == [[1], [1], []]
    assert waiting(app) == 0
    assert pings(bob.sync(since)) == []


def test_a_first_sync_brings_what_waits(login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    ping(alice, bob, 1)
    ping(alice, bob, 2)

    assert pings(bob.sync()) == [1, 2]


def test_only_the_named_device_gets_it(login: Login) -> None:
    alice, phone, laptop = login("alice"), login("bob"), login("bob")

    ping(alice, phone, 1)

    assert (pings(phone.sync()), pings(laptop.sync())) == ([1], [])


def test_a_star_stands_for_all_devices_that_are_not_named(login: Login) -> None:
    alice, phone, laptop = login("alice"), login("bob"), login("bob")

    send(alice, {phone.user_id: {"*": {"n": 1}, laptop.device_id: {"n": 2}}})

    assert (pings(phone.sync()), pings(laptop.sync()), pings(alice.sync())) == ([1], [2], [])


def test_a_message_to_nobody_is_ignored(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")

    send(alice, {bob.user_id: {"UNKNOWN": {}}, "@nobody:localhost": {"*": {}}, "@a:b.c": {"X": {}}})

    assert waiting(app) == 0


def test_a_repeated_request_sends_nothing_anew(login: Login) -> None:
    alice, other_alice, bob = login("alice"), login("alice"), login("bob")

    for _ in range(2):
        ping(alice, bob, 1, "same")
    ping(other_alice, bob, 2, "same")
    answer = alice.put(
        "sendToDevice/org.example.other/same",
        json={"messages": {bob.user_id: {"*": {"n": 3}}}},
    )

    assert answer.status_code == 200
    assert pings(bob.sync()) == [1, 2, 3]


def test_transaction_ids_are_forgotten_after_a_day(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    for name in ("a", "b", "c"):
        ping(alice, bob, 1, name)
    monkeypatch.setattr(to_device, "TRANSACTIONS_KEPT_MS", -60_000)

    ping(alice, bob, 2, "new")
    after_one = transactions(app)
    monkeypatch.undo()
    ping(alice, bob, 2, "newer")

    # two in each write: a flood's would otherwise all go in the same one, a day after it
    assert after_one == ["c", "new"]
    assert transactions(app) == ["c", "new", "newer"]


def transactions(app: Application) -> list[str]:
    """Return the stored transaction IDs."""
    with app.homeserver.database.read() as tx:
        found = tx.sql.execute(select(ToDeviceTransaction.txn_id).order_by(ToDeviceTransaction.ts))
        return [str(txn_id) for txn_id in found.scalars()]


def piece_after(person: Person, token: str, timeout: int = 0) -> tuple[list[int], str]:
    """Return the messages of a response and its token; a repeated request must return the same."""
    repeated = person.sync(token)
    answer = person.sync(token, timeout=timeout)
    assert pings(repeated) == pings(answer)
    return pings(answer), answer["next_batch"]


def test_an_answer_holds_so_many_and_the_rest_comes_in_order(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "AT_ONCE", 3)
    alice, bob = login("alice"), login("bob")
    token = bob.sync()["next_batch"]
    for number in range(8):
        ping(alice, bob, number)

    got: list[list[int]] = []
    for late in (8, 9, 10, None, None):
        piece, token = piece_after(bob, token, timeout=20_000 if len(got) < 4 else 0)
        got.append(piece)
        if late is not None:
            ping(alice, bob, late)

    assert got == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10], []]
    assert waiting(app) == 0
    with app.homeserver.database.read() as tx:
        assert tx.sql.execute(select(PartialSync.token)).all() == []


def test_what_waits_comes_in_pieces_and_once_where_nothing_else_happens(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "AT_ONCE", 3)
    alice, bob = login("alice"), login("bob")
    token = bob.sync()["next_batch"]
    for number in range(8):
        ping(alice, bob, number)

    got: list[list[int]] = []
    for _ in range(4):
        piece, token = piece_after(bob, token)
        got.append(piece)

    assert got == [[0, 1, 2], [3, 4, 5], [6, 7], []]
    assert waiting(app) == 0


def test_of_two_cut_answers_with_one_token_the_shorter_counts(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two requests at once can have the same snapshot, and with it the same token.
    monkeypatch.setattr(to_device, "AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    bob_device = (bob.user_id, bob.device_id)
    start = app.homeserver.database.writer.last_position
    ping(alice, bob, 0)
    later = app.homeserver.database.writer.last_position
    for number in range(1, 5):
        ping(alice, bob, number)
    with app.homeserver.database.read() as tx:
        token = tx.position
        shorter = to_device.after(tx, *bob_device, start)
        longer = to_device.after(tx, *bob_device, later)

    for messages in (shorter, longer):
        assert messages.truncated_after is not None
        with app.homeserver.database.write() as tx:
            to_device.note_truncated(tx, *bob_device, token, messages.truncated_after)

    assert pings(bob.sync(f"s{token}")) == [2, 3]


def test_a_waiting_sync_ends_when_a_message_comes(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    since = bob.sync()["next_batch"]
    answers: list[Json] = []
    parked = Person(app.test_client(), bob.user_id, bob.access_token, bob.device_id)
    thread = threading.Thread(target=lambda: answers.append(parked.sync(since, timeout=20_000)))
    thread.start()
    wakeups = app.homeserver.wakeups
    while not len(wakeups):
        thread.join(0.01)

    ping(alice, bob, 1)
    thread.join(10)

    assert [pings(it) for it in answers] == [[1]]


def test_a_device_that_is_no_more_loses_its_messages(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    ping(alice, bob, 1)
    ping(bob, alice, 2)

    bob.post("logout")

    assert waiting(app) == 1
    with app.homeserver.database.read() as tx:
        left = tx.sql.execute(select(ToDeviceTransaction.device_id)).scalars().all()
    assert left == [alice.device_id]


def commits(app: Application) -> list[int]:
    """Return a list to which every COMMIT from now on adds its number of writes."""
    seen: list[int] = []
    app.homeserver.database.writer.committed = lambda writes, _seconds: seen.append(writes)
    return seen


def test_a_full_inbox_goes_with_its_device_in_several_writes(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 2,000 large messages kept everybody from writing for a second
    monkeypatch.setattr(to_device, "DROPPED_AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    for number in range(7):
        ping(alice, bob, number)
    seen = commits(app)

    bob.post("logout")

    assert waiting(app) == 0
    assert len(seen) == 4


def test_a_message_to_many_devices_goes_out_in_several_writes(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    # to 2,500 devices it kept everybody from writing for 280 ms
    monkeypatch.setattr(to_device, "PUT_AT_ONCE", 2)
    alice = login("alice")
    devices = [login("bob") for _ in range(5)]
    seen = commits(app)

    for _ in range(2):  # the same request again sends nothing more
        send(alice, {devices[0].user_id: {"*": {"n": 1}}}, "many")

    assert len(seen) == 6
    assert [pings(it.sync()) for it in devices] == [[1]] * 5


def test_a_message_of_a_request_that_a_crash_cut_short_arrives_when_it_is_repeated(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "PUT_AT_ONCE", 1)
    alice, phone, desk = login("alice"), login("bob"), login("bob")
    message: Json = {phone.user_id: {"*": {"n": 1}}}
    with app.homeserver.database.read() as tx:
        me = Requester(alice.user_id, alice.device_id, b"")
        first, _ = to_device.parts(tx, me.user_id, TYPE, message)
    with app.homeserver.database.write() as writing:
        to_device.send(writing, me, TYPE, "cut", first, is_last=False)

    send(alice, message, "cut")

    assert sorted(pings(phone.sync()) + pings(desk.sync())) == [1, 1, 1]


def test_a_token_acknowledges_so_many_messages_in_one_write(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "DROPPED_AT_ONCE", 2)
    alice, bob = login("alice"), login("bob")
    for number in range(5):
        ping(alice, bob, number)
    since = alice.sync()["next_batch"]  # acknowledges what bob has never asked for

    left = []
    for _ in range(3):
        assert pings(bob.sync(since)) == []
        left.append(waiting(app))

    assert left == [3, 1, 0]


def test_of_too_many_that_wait_the_oldest_go(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_WAITING", 3)
    alice, bob = login("alice"), login("bob")

    for number in range(5):
        ping(alice, bob, number)

    assert waiting(app) == 3
    assert pings(bob.sync()) == [2, 3, 4]


def test_a_flood_pushes_out_nothing_but_itself(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_FROM_ONE", 3)
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    ping(alice, bob, 1)

    for number in range(10, 20):
        ping(mallory, bob, number)
    ping(alice, bob, 2)

    assert pings(bob.sync()) == [1, 17, 18, 19, 2]


def test_guests_have_one_share_of_an_inbox_together(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_FROM_ONE", 3)
    alice, bob = login("alice"), login("bob")
    ping(alice, bob, 1)

    for number in range(10, 15):
        session = app.test_client().post(f"{V3}register?kind=guest", json={}).get_json()
        names = ("user_id", "access_token", "device_id")
        guest = Person(app.test_client(), *(session[name] for name in names))
        ping(guest, bob, number)
    ping(alice, bob, 2)

    assert pings(bob.sync()) == [1, 12, 13, 14, 2]


def test_large_messages_have_a_smaller_share(login: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_device, "MAX_LARGE_FROM_ONE", 2)
    alice, bob = login("alice"), login("bob")
    large = {"pad": "x" * to_device.LARGE_BYTES}
    ping(alice, bob, 1)

    for number in range(10, 15):
        send(alice, {bob.user_id: {bob.device_id: {"n": number, **large}}})
    ping(alice, bob, 2)

    assert pings(bob.sync()) == [1, 13, 14, 2]


def test_a_request_has_only_so_many_bytes_for_all_devices_together(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_TOTAL_BYTES", 3000)
    alice, bob, _ = login("alice"), login("bob"), login("bob")
    messages = {bob.user_id: {"*": {"pad": "x" * 2000}}}

    with unchanged(app):
        answer = alice.put(f"sendToDevice/{TYPE}/large", json={"messages": messages})

    assert refusal(answer) == (413, "M_TOO_LARGE")


def test_of_a_full_inbox_the_largest_sender_loses_the_oldest(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_WAITING", 5)
    monkeypatch.setattr(to_device, "MAX_FROM_ONE", 4)
    alice, bob = login("alice"), login("bob")
    ping(alice, bob, 1)
    ping(login("mallory"), bob, 10)

    for number in range(20, 24):
        ping(login("eve"), bob, number)

    assert pings(bob.sync()) == [1, 10, 21, 22, 23]
    assert waiting(app) == 5


def test_messages_survive_a_restart(login: Login, app: Application) -> None:
    alice, bob = login("alice"), login("bob")
    since = bob.sync()["next_batch"]
    ping(alice, bob, 1)
    app.homeserver.database.caches.clear(app.homeserver.database.writer.last_position)

    assert pings(bob.sync(since)) == [1]


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"messages": []}, 400, "M_BAD_JSON"),
        ({"messages": {"@b:localhost": {"*": "text"}}}, 400, "M_BAD_JSON"),
        ({"messages": {"bob": {"*": {}}}}, 400, "M_INVALID_PARAM"),
        ({"messages": {"@b:localhost": {"*": {"x": "y" * 65536}}}}, 413, "M_TOO_LARGE"),
    ],
)
def test_what_is_no_message_is_refused(
    app: Application, login: Login, body: Any, status: int, errcode: str
) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(f"sendToDevice/{TYPE}/t", json=body)

    assert refusal(answer) == (status, errcode)


@pytest.mark.parametrize("path", [f"{TYPE}/{'t' * 256}", f"{'t' * 256}/t"])
def test_long_names_are_refused(app: Application, login: Login, path: str) -> None:
    alice = login("alice")

    with unchanged(app):
        answer = alice.put(f"sendToDevice/{path}", json={"messages": {}})

    assert refusal(answer) == (400, "M_INVALID_PARAM")


def test_too_many_users_in_one_request_are_refused(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each is looked for while nobody else can write, whether there is a message or not
    monkeypatch.setattr(to_device, "MAX_MESSAGES", 2)
    bob = login("bob")
    messages: Json = {f"@user{number}:localhost": {} for number in range(3)}

    with unchanged(app):
        answer = bob.put(f"sendToDevice/{TYPE}/t", json={"messages": messages})

    assert refusal(answer) == (413, "M_TOO_LARGE")


@pytest.mark.parametrize("named", [("A", "B", "C"), ("*",)])
def test_too_many_messages_in_one_request_are_refused(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setattr(to_device, "MAX_MESSAGES", 2)
    bob, _, _ = login("bob"), login("bob"), login("bob")
    messages = {bob.user_id: {name: {"n": 1} for name in named}}

    with unchanged(app):
        answer = bob.put(f"sendToDevice/{TYPE}/t", json={"messages": messages})

    assert refusal(answer) == (413, "M_TOO_LARGE")
