"""What a connection of sliding sync was told is remembered by its pos, and bounded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from app.core.sync.sliding_order import Order, OwnRoom
from app.core.sync.sliding_told import NOTHING, Connections, Told
from app.errors import MatrixError
from tests.conftest import Login
from tests.sliding import ask, bodies, request, window

MakeRoom = Callable[..., str]
KEY = ("@alice:localhost", "PHONE", "")


class Seconds:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def knows(connections: Connections, key: tuple[str, str, str], pos: str) -> bool:
    """Whether the connection has this pos."""
    with contextlib.suppress(MatrixError):
        return bool(connections.get(key, pos).ephemeral == 0)
    return False


def large(position: int, rooms: int) -> Told:
    """What somebody was told who is in many rooms."""
    own = {f"!{number}:localhost": OwnRoom("join", 1) for number in range(rooms)}
    return Told(position=position, order=Order(own, [*own], own.keys()))


def test_a_repeated_pos_gives_the_same_and_its_answer_ends_the_older_ones() -> None:
    connections = Connections()
    first = connections.add(KEY, Told(position=1), after=None)
    lost = connections.add(KEY, Told(position=2), after=first)

    repeated = connections.get(KEY, first)
    again = connections.add(KEY, Told(position=3), after=first)

    assert repeated.position == 1
    assert connections.get(KEY, again).position == 3
    assert not knows(connections, KEY, first)
    assert not knows(connections, KEY, lost)


def test_however_often_a_request_is_repeated_its_pos_stays_known() -> None:
    connections = Connections()
    pos = connections.add(KEY, Told(position=1), after=None)
    for number in range(10):
        connections.add(KEY, Told(position=number), after=pos)

    assert knows(connections, KEY, pos)


def test_a_connection_that_begins_anew_ends_what_was_there() -> None:
    connections = Connections()
    old = connections.add(KEY, NOTHING, after=None)
    new = connections.add(KEY, NOTHING, after=None)

    assert not knows(connections, KEY, old)
    assert knows(connections, KEY, new)


def test_a_pos_is_good_for_its_own_connection_alone() -> None:
    connections = Connections()
    pos = connections.add(KEY, NOTHING, after=None)

    assert not knows(connections, (KEY[0], KEY[1], "other"), pos)
    assert not knows(connections, (KEY[0], "LAPTOP", ""), pos)
    assert not knows(connections, ("@bob:localhost", KEY[1], ""), pos)


def test_a_device_has_few_connections_and_others_keep_theirs() -> None:
    connections = Connections()
    other = connections.add(("@bob:localhost", "PHONE", ""), NOTHING, after=None)
    kept = [
        connections.add((*KEY[:2], str(number)), NOTHING, after=None)
        for number in range(Connections.MAX_OF_DEVICE + 1)
    ]

    assert not knows(connections, (*KEY[:2], "0"), kept[0])
    assert knows(connections, (*KEY[:2], "1"), kept[1])
    assert knows(connections, ("@bob:localhost", "PHONE", ""), other)


def test_the_bytes_of_all_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES", 1_000_000)
    connections = Connections()
    keys = [(f"@user{number}:localhost", "PHONE", "") for number in range(20)]
    kept = {key: connections.add(key, large(1, 1000), after=None) for key in keys}

    known = [key for key in keys if knows(connections, key, kept[key])]

    assert 1 <= len(known) < 5
    assert keys[-1] in known
    assert len(connections) == len(known)


def test_positions_that_share_what_they_know_count_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES", 400_000)
    connections = Connections()
    told = large(1, 1000)
    other = connections.add(("@bob:localhost", "PHONE", ""), NOTHING, after=None)
    pos = connections.add(KEY, told, after=None)
    for number in range(3):
        same = Told(position=number, order=told.order)
        pos = connections.add(KEY, same, after=pos)

    assert knows(connections, ("@bob:localhost", "PHONE", ""), other)


def test_a_connection_that_nobody_uses_ends() -> None:
    seconds = Seconds()
    connections = Connections(seconds)
    idle = connections.add(KEY, NOTHING, after=None)
    seconds.now = Connections.IDLE_SECONDS / 2
    busy = connections.add((*KEY[:2], "busy"), NOTHING, after=None)
    seconds.now = Connections.IDLE_SECONDS + 1

    assert not knows(connections, KEY, idle)
    assert knows(connections, (*KEY[:2], "busy"), busy)
    assert len(connections) == 1


def test_over_http_a_lost_answer_comes_again_with_what_has_happened_since(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    alice.send(room_id, "one")
    lost = ask(bob, pos)
    alice.send(room_id, "two")

    again = ask(bob, pos)
    then = ask(bob, again["pos"])

    assert bodies(lost, room_id) == ["one"]
    assert bodies(again, room_id) == ["one", "two"]
    assert again["rooms"][room_id]["num_live"] == 2
    assert then["rooms"] == {}
    assert request(bob, lost["pos"]).get_json()["errcode"] == "M_UNKNOWN_POS"


def test_a_repeated_request_may_ask_for_something_else(login: Login) -> None:
    alice = login("alice")
    old, new = alice.create_room(), alice.create_room()
    pos = ask(alice, lists=window(0))["pos"]
    ask(alice, pos, lists=window(1))

    again = ask(alice, pos, lists=window(1, limit=1))

    assert list(again["rooms"]) == [old]
    assert new not in again["rooms"]


def test_two_connections_of_a_device_know_nothing_of_each_other(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    first = ask(alice, conn_id="list")
    other = ask(alice, conn_id="encryption")
    alice.send(room_id, "news")

    assert bodies(ask(alice, first["pos"], conn_id="list"), room_id) == ["news"]
    assert bodies(ask(alice, other["pos"], conn_id="encryption"), room_id) == ["news"]
    assert request(alice, other["pos"], conn_id="list").status_code == 400


def test_lists_may_be_asked_for_on_a_connection_that_began_without_any(login: Login) -> None:
    alice = login("alice")
    room_id = alice.create_room()
    bare = ask(alice, lists={})

    found = ask(alice, bare["pos"])

    assert bare["rooms"] == {}
    assert found["rooms"][room_id]["initial"] is True
