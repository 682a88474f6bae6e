"""Simplified sliding sync over HTTP: windows onto the rooms, and subscriptions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from homebody.client_server import sync
from homebody.storage.database import Database
from homebody.storage.statements import Sql
from homebody.web import Application
from tests.conftest import Login, Person
from tests.helpers.sliding import Json, ask, bodies, request, window

MakeRoom = Callable[..., str]


def waits(person: Person, pos: str, **body: Any) -> tuple[threading.Thread, list[Json]]:
    """Start a waiting request; return its thread and the list for its response."""
    answers: list[Json] = []
    thread = threading.Thread(target=lambda: answers.append(ask(person, pos, 20_000, **body)))
    thread.start()
    time.sleep(0.3)
    return thread, answers


def test_the_first_answer_has_the_newest_rooms_and_a_wider_range_the_others(login: Login) -> None:
    alice = login("alice")
    old, new = alice.create_room(name="Old"), alice.create_room(name="New")
    alice.send(new, "hello")

    first = ask(alice, lists=window(0))
    wider = ask(alice, first["pos"], lists=window(9))

    assert first["lists"]["all"]["count"] == 2
    assert list(first["rooms"]) == [new]
    assert (first["rooms"][new]["name"], first["rooms"][new]["initial"]) == ("New", True)
    assert bodies(first, new) == ["hello"]
    assert list(wider["rooms"]) == [old]


def test_a_list_without_ranges_shows_all_rooms_the_most_active_first(login: Login) -> None:
    alice = login("alice")
    rooms = [alice.create_room() for _ in range(3)]
    alice.send(rooms[0])

    found = ask(alice, lists={"all": {"timeline_limit": 1, "required_state": []}})

    assert list(found["rooms"]) == [rooms[0], rooms[2], rooms[1]]


def test_a_room_in_which_something_happens_comes_into_the_window(login: Login) -> None:
    alice = login("alice")
    old, new = alice.create_room(), alice.create_room()
    first = ask(alice, lists=window(0, limit=1))
    alice.send(old, "up")

    then = ask(alice, first["pos"], lists=window(0, limit=1))
    alice.send(new, "not in sight")
    alice.send(new, "still not")
    alice.send(old, "up again")
    later = ask(alice, then["pos"], lists=window(0, limit=1))
    wider = ask(alice, later["pos"], lists=window(1, limit=1))

    assert list(first["rooms"]) == [new]
    assert list(then["rooms"]) == [old]
    assert then["rooms"][old]["initial"] is True
    assert then["rooms"][old]["num_live"] == 1
    assert (list(later["rooms"]), bodies(later, old)) == ([old], ["up again"])
    assert "initial" not in later["rooms"][old]
    assert (list(wider["rooms"]), bodies(wider, new)) == ([new], ["still not"])
    assert wider["rooms"][new]["limited"] is True
    assert "initial" not in wider["rooms"][new]


def test_a_message_wakes_and_a_repeated_pos_gets_it_again(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    thread, answers = waits(bob, pos)
    alice.send(room_id, "wake up")
    thread.join(10)

    again = ask(bob, pos)

    assert bodies(answers[0], room_id) == bodies(again, room_id) == ["wake up"]
    assert answers[0]["rooms"][room_id]["num_live"] == 1
    assert ask(bob, again["pos"])["rooms"] == {}


def test_who_waits_is_not_answered_for_what_is_none_of_theirs(login: Login, room: MakeRoom) -> None:
    alice, bob, carol = login("alice"), login("bob"), login("carol")
    room_id, other = room(alice, bob), room(alice, carol)
    pos = ask(bob)["pos"]
    thread, answers = waits(bob, pos)
    alice.send(other, "not for Bob")
    carol.put(f"user/{carol.user_id}/account_data/org.example.colour", json={"colour": "red"})
    time.sleep(0.3)
    alice.send(room_id, "for Bob")
    thread.join(10)

    assert list(answers[0]["rooms"]) == [room_id]
    assert bodies(answers[0], room_id) == ["for Bob"]


def test_who_is_woken_for_nothing_waits_on_and_misses_nothing(login: Login, room: MakeRoom) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room_id = room(alice, bob, mallory)
    ignored: Json = {"ignored_users": {mallory.user_id: {}}}
    bob.put(f"user/{bob.user_id}/account_data/m.ignored_user_list", json=ignored)
    pos = ask(bob)["pos"]
    thread, answers = waits(bob, pos)
    for _ in range(3):
        mallory.send(room_id, "spam")
    time.sleep(0.3)
    assert thread.is_alive()
    alice.set_state(room_id, "m.room.topic", {"topic": "Tea"})
    thread.join(10)

    entry = answers[0]["rooms"][room_id]
    assert [event["type"] for event in entry["timeline"]] == ["m.room.topic"]
    assert (entry["num_live"], entry["limited"]) == (1, False)


def test_a_subscription_shows_a_room_that_no_list_has(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()

    found = ask(alice, lists={}, room_subscriptions={room_id: {"timeline_limit": 2}})

    assert len(found["rooms"][room_id]["timeline"]) == 2
    assert found["rooms"][room_id]["required_state"] == []
    assert found["rooms"][room_id]["limited"] is True


def test_a_subscription_to_a_room_of_others_shows_nothing(login: Login, room: MakeRoom) -> None:
    alice, mallory = login("alice"), login("mallory")
    room_id = room(alice)

    wanted = {room_id: {"timeline_limit": 9, "required_state": [["*", "*"]]}}
    found = ask(mallory, lists={}, room_subscriptions=wanted | {"!nowhere:localhost": {}})

    assert found["rooms"] == {}


def test_list_and_subscription_together_ask_for_the_sum(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room(name="Both")
    wanted = {"timeline_limit": 3, "required_state": [["m.room.name", ""]]}

    found = ask(alice, lists=window(9, limit=1), room_subscriptions={room_id: wanted})

    assert len(found["rooms"][room_id]["timeline"]) == 3
    kinds = {event["type"] for event in found["rooms"][room_id]["required_state"]}
    assert kinds == {"m.room.create", "m.room.member", "m.room.name"}


@pytest.mark.parametrize(
    "body",
    [
        {"lists": {"all": {"ranges": [[-1, 5]]}}},
        {"lists": {"all": {"ranges": [["a", 5]]}}},
        {"lists": {"all": {"ranges": [[0, 5]] * 21}}},
        {"lists": {"all": {"timeline_limit": -1}}},
        {"lists": {f"l{number}": {} for number in range(101)}},
        {"lists": {"all": {"required_state": [["m.room.create", ""]] * 201}}},
        {"lists": {}, "room_subscriptions": {f"!r{n}:localhost": {} for n in range(1001)}},
        {"lists": {}, "conn_id": "c" * 256},
        {"lists": []},
    ],
)
def test_a_body_beyond_the_schema_or_the_limits_is_refused(login: Login, body: Json) -> None:
    answer = request(login("alice"), **body)

    assert answer.status_code == 400
    assert answer.get_json()["errcode"] in {"M_BAD_JSON", "M_INVALID_PARAM"}


def test_subscriptions_are_not_remembered_and_no_transaction_id_says_so(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    wanted = {room_id: {"timeline_limit": 1}}
    first = ask(alice, lists={}, room_subscriptions=wanted, txn_id="t7")
    alice.send(room_id, "out of sight")
    then = ask(alice, first["pos"], lists={}, txn_id="t8")
    back = ask(alice, then["pos"], lists={}, room_subscriptions=wanted, txn_id="t9")

    assert "txn_id" not in first
    assert (list(first["rooms"]), then["rooms"]) == ([room_id], {})
    assert bodies(back, room_id) == ["out of sight"]


def statements_of_a_look(
    app: Application, monkeypatch: pytest.MonkeyPatch, person: Person, pos: str
) -> int:
    """Return how many statements a request without changes takes."""
    asked: list[object] = []
    execute = Sql.execute

    def counted(self: Sql, statement: Any, values: Any = None) -> Any:
        asked.append(statement)
        return execute(self, statement, values)

    everything = {"enabled": True}
    names = ("to_device", "e2ee", "account_data", "receipts", "typing")
    extensions = dict.fromkeys(names, everything)
    again = ask(person, pos, extensions=extensions)["pos"]
    database: Database = app.homeserver.database
    with database.write() as tx:  # the clock goes on, for something that is not theirs
        tx.next_position()
    with monkeypatch.context() as patch:
        patch.setattr(Sql, "execute", counted)
        found = ask(person, again, extensions=extensions)
    assert found["rooms"] == {}
    return len(asked)


def test_a_look_with_nothing_new_costs_the_same_for_any_number_of_rooms(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = login("alice"), login("bob")
    alice.create_room()
    for _ in range(12):
        bob.create_room()

    statements_of_a_look(app, monkeypatch, alice, ask(alice)["pos"])  # fills caches of all
    few = statements_of_a_look(app, monkeypatch, alice, ask(alice)["pos"])
    many = statements_of_a_look(app, monkeypatch, bob, ask(bob, lists=window(20))["pos"])

    assert few == many <= 10


def test_after_a_long_time_only_rooms_with_news_are_told(
    app: Application, login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    room(alice, bob)
    pos = ask(bob)["pos"]
    database: Database = app.homeserver.database
    with database.write() as tx:
        for _ in range(2000):
            tx.next_position()
    alice.send(room_id, "at last")

    found = ask(bob, pos)

    assert list(found["rooms"]) == [room_id]
    assert bodies(found, room_id) == ["at last"]


def test_an_unknown_pos_tells_the_client_to_start_anew(login: Login) -> None:
    answer = request(login("alice"), "never")

    assert (answer.status_code, answer.get_json()["errcode"]) == (400, "M_UNKNOWN_POS")


def test_who_leaves_by_themselves_hears_of_it_once(login: Login, room: MakeRoom) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    alice.send(room_id, "do not go")
    bob.post(f"rooms/{quote(room_id)}/leave")
    alice.send(room_id, "he is gone")

    found = ask(bob, pos)
    later = ask(bob, found["pos"])

    assert found["rooms"][room_id]["membership"] == "leave"
    assert bodies(found, room_id) == ["do not go"]
    assert found["lists"]["all"]["count"] == 0
    assert later["rooms"] == ask(bob)["rooms"] == {}


def test_two_connections_of_a_device_wait_at_once_and_only_one_gets_messages(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    encryption: Json = {"conn_id": "encryption", "lists": {}, "extensions": {}}
    encryption["extensions"] = {"to_device": {"enabled": True}, "e2ee": {"enabled": True}}
    list_pos = ask(bob, ask(bob, conn_id="rooms")["pos"], conn_id="rooms")["pos"]
    own_pos = ask(bob, ask(bob, **encryption)["pos"], **encryption)["pos"]
    of_list, list_answers = waits(bob, list_pos, conn_id="rooms")
    of_device, device_answers = waits(bob, own_pos, **encryption)

    content: Json = {"messages": {bob.user_id: {bob.device_id: {"is": "secret"}}}}
    alice.put("sendToDevice/m.secret/1", json=content)
    of_device.join(10)
    waited = of_list.is_alive()
    alice.send(room_id, "hello")
    of_list.join(10)

    assert (len(device_answers), waited) == (1, True)
    section = device_answers[0]["extensions"]["to_device"]
    assert [event["content"] for event in section["events"]] == [{"is": "secret"}]
    assert device_answers[0]["rooms"] == {}
    assert bodies(list_answers[0], room_id) == ["hello"]
    assert list_answers[0]["extensions"] == {}
    encryption["extensions"]["to_device"]["since"] = section["next_batch"]
    later = ask(bob, device_answers[0]["pos"], **encryption)
    assert later["extensions"]["to_device"]["events"] == []


@pytest.mark.parametrize(
    "lists",
    [window(100), {"all": {"timeline_limit": 1}}, window(0, ranges=[[0, 49], [50, 2**60]])],
    ids=["many rooms", "all rooms", "two ranges"],
)
def test_only_new_wide_windows_wait_for_other_large_responses(login: Login, lists: Json) -> None:
    alice = login("alice")
    known = ask(alice, lists=lists)["pos"]
    found: list[Json] = []
    thread = threading.Thread(target=lambda: found.append(ask(alice, lists=lists, conn_id="b")))

    with sync.LARGE_AT_ONCE, sync.LARGE_AT_ONCE:
        thread.start()
        narrow = ask(alice, lists=window(99), conn_id="c")
        same = ask(alice, known, lists=lists)
        thread.join(0.2)
        assert found == []
    thread.join(10)

    assert narrow["lists"] == same["lists"] == found[0]["lists"]
