"""The states of sliding sync connections are kept by pos, within limits."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable

import pytest

from homebody.core.sliding_sync.connections import Connections
from homebody.core.sliding_sync.filters import RoomProperties
from homebody.core.sliding_sync.order import OwnMembership, RoomOrder
from homebody.core.sliding_sync.requests import MAX_DIFFERENT_PATTERNS, RoomConfig
from homebody.core.sliding_sync.states import NOTHING, ConnectionState, SentRoom
from homebody.errors import MatrixError
from tests.conftest import Login
from tests.helpers.sliding import ask, bodies, request, window

MakeRoom = Callable[..., str]
KEY = ("@alice:localhost", "PHONE", "")


class Seconds:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def knows(connections: Connections, key: tuple[str, str, str], pos: str) -> bool:
    """Return whether the connection has this pos."""
    with contextlib.suppress(MatrixError):
        return bool(connections.get(key, pos).ephemeral == 0)
    return False


def large(position: int, rooms: int) -> ConnectionState:
    """Return the state of a connection with many rooms."""
    own = {f"!{number}:localhost": OwnMembership("join", 1) for number in range(rooms)}
    return ConnectionState(position=position, order=RoomOrder(own, [*own], own.keys()))


def test_a_repeated_pos_gives_the_same_and_ends_only_what_is_older() -> None:
    connections = Connections()
    oldest = connections.add(KEY, ConnectionState(position=1), after=None)
    first = connections.add(KEY, ConnectionState(position=2), after=oldest)
    lost = connections.add(KEY, ConnectionState(position=3), after=first)

    repeated = connections.get(KEY, first)
    again = connections.add(KEY, ConnectionState(position=4), after=first)

    assert repeated.position == 2
    assert not knows(connections, KEY, oldest)
    assert [connections.get(KEY, pos).position for pos in (first, lost, again)] == [2, 3, 4]
    assert not knows(connections, KEY, first)


def test_however_often_a_request_is_repeated_its_pos_and_the_newest_stay_known() -> None:
    connections = Connections()
    shown = connections.add(KEY, ConnectionState(position=1), after=None)
    newer = [
        connections.add(KEY, ConnectionState(position=number), after=shown)
        for number in range(Connections.KEPT + 10)
    ]

    assert knows(connections, KEY, shown)
    assert not knows(connections, KEY, newer[0])
    assert knows(connections, KEY, newer[20])
    assert knows(connections, KEY, newer[-1])


def test_a_connection_that_begins_anew_ends_the_old_when_it_goes_on() -> None:
    connections = Connections()
    old = connections.add(KEY, NOTHING, after=None)
    new = connections.add(KEY, NOTHING, after=None)
    late = connections.add(KEY, NOTHING, after=None)

    assert knows(connections, KEY, old)
    assert knows(connections, KEY, new)
    assert not knows(connections, KEY, old)
    assert knows(connections, KEY, late)


def test_a_client_that_begins_again_and_again_keeps_few_positions() -> None:
    connections = Connections()
    kept = [
        connections.add(KEY, ConnectionState(position=number), after=None) for number in range(20)
    ]

    known = [number for number, pos in enumerate(kept) if knows(connections, KEY, pos)]

    assert known == [16, 17, 18, 19]


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
    monkeypatch.setattr(Connections, "MAX_BYTES", 2_000_000)
    connections = Connections()
    keys = [(f"@user{number}:localhost", "PHONE", "") for number in range(20)]
    kept = {key: connections.add(key, large(1, 1000), after=None) for key in keys}

    known = [key for key in keys if knows(connections, key, kept[key])]

    assert 1 <= len(known) <= 5
    assert keys[-1] in known
    assert len(connections) == len(known)
    assert connections.size_bytes <= 2_000_000


def test_a_user_pushes_out_nobody_elses_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES_OF_USER", 2_000_000)
    connections = Connections()
    other = connections.add(("@bob:localhost", "PHONE", ""), large(1, 1000), after=None)
    kept = {
        device: connections.add((KEY[0], device, ""), large(1, 1000), after=None)
        for device in "abcdefghijkl"
    }

    known = [
        device for device, pos in kept.items() if knows(connections, (KEY[0], device, ""), pos)
    ]

    assert 1 <= len(known) <= 5
    assert known[-1] == "l"
    assert knows(connections, ("@bob:localhost", "PHONE", ""), other)


def test_where_memory_is_short_those_who_have_most_lose_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES", 2_000_000)
    connections = Connections()
    small = connections.add(("@bob:localhost", "PHONE", ""), large(1, 10), after=None)
    for device in "abcdefghijkl":
        connections.add((KEY[0], device, ""), large(1, 1000), after=None)
    last = connections.add(("@carol:localhost", "PHONE", ""), large(1, 10), after=None)

    assert knows(connections, ("@bob:localhost", "PHONE", ""), small)
    assert knows(connections, ("@carol:localhost", "PHONE", ""), last)


def test_where_memory_is_short_idle_connections_go_before_those_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES", 2_000_000)
    seconds = Seconds()
    connections = Connections(seconds)
    idle = connections.add(("@bob:localhost", "PHONE", ""), large(1, 1000), after=None)
    seconds.now = Connections.WAITED_ON_SECONDS
    large_one = connections.add(KEY, large(1, 4500), after=None)
    connections.add(("@carol:localhost", "PHONE", ""), large(1, 1000), after=None)

    assert not knows(connections, ("@bob:localhost", "PHONE", ""), idle)
    assert knows(connections, KEY, large_one)


def test_a_single_position_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connections, "MAX_BYTES_OF_USER", 100_000)
    connections = Connections()

    pos = connections.add(KEY, large(1, 1000), after=None)

    assert not knows(connections, KEY, pos)
    assert (len(connections), connections.size_bytes) == (0, 0)


def test_the_bytes_reckoned_are_those_taken() -> None:
    def told(number: int) -> ConnectionState:
        patterns = frozenset((f"org.example.type{n}.{number}", "x" * 200) for n in range(100))
        config = RoomConfig(20, patterns)
        own = {f"!room{n}at{number}:localhost": OwnMembership("join", n + 1000) for n in range(300)}
        rooms = {
            room_id: SentRoom(
                config,
                "join",
                2000 + at,
                members=frozenset(f"@u{at}-{n}:localhost" for n in range(20)),
            )
            for at, room_id in enumerate(own)
        }
        return ConnectionState(
            position=number,
            order=RoomOrder(own, [*own], own.keys()),
            rooms=rooms,
            direct=frozenset(f"!direct{n}at{number}:localhost" for n in range(100)),
            properties={room_id: RoomProperties(name="n" * 250 + room_id) for room_id in own},
            lists={f"list {n} {number}": {"count": 1000 + n} for n in range(100)},
            extension_rooms={"typing": frozenset(own)},
        )

    connections = Connections()
    gc.collect()
    tracemalloc.start()
    for number in range(4):
        connections.add((*KEY[:2], str(number)), told(number), after=None)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(connections) == 4
    assert taken < connections.size_bytes < 3 * taken


def test_positions_that_share_what_they_know_count_it_once() -> None:
    connections = Connections()
    told = large(1, 1000)
    first = connections.add(KEY, told, after=None)
    alone = connections.size_bytes

    for number in range(3):
        connections.add(KEY, ConnectionState(position=number, order=told.order), after=first)

    assert connections.size_bytes < alone + 10_000


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


def test_over_http_a_request_repeated_while_its_answer_is_under_way_forgets_no_pos(
    login: Login, room: MakeRoom
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    pos = ask(bob)["pos"]
    alice.send(room_id, "one")
    opened = {room_id: {"timeline_limit": 10, "required_state": []}}

    cancelled = ask(bob, pos)
    repeated = ask(bob, pos, room_subscriptions=opened)
    alice.send(room_id, "two")
    after_the_cancelled = ask(bob, cancelled["pos"], room_subscriptions=opened)
    after_the_repeated = ask(bob, repeated["pos"], room_subscriptions=opened)

    assert "two" in bodies(after_the_cancelled, room_id)
    assert bodies(after_the_repeated, room_id) == ["two"]


def test_a_first_request_repeated_forgets_no_pos(login: Login) -> None:
    alice = login("alice")

    first, second = ask(alice), ask(alice)

    assert request(alice, first["pos"]).status_code == 200
    assert request(alice, second["pos"]).status_code == 200


def test_what_a_client_asks_for_is_not_kept(login: Login) -> None:
    alice = login("alice")
    gc.collect()
    tracemalloc.start()
    for number in range(20):
        lists = window(0, filters={"tags": [f"{number}" + "x" * 500_000]})
        ask(alice, conn_id=str(number % 10), lists=lists)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert taken < 2_000_000


def test_the_required_state_of_one_request_is_bounded(login: Login) -> None:
    alice = login("alice")
    each = 150
    lists = {
        str(number): {"required_state": [[f"t{number}.{n}", ""] for n in range(each)]}
        for number in range(1 + MAX_DIFFERENT_PATTERNS // each)
    }

    refused = request(alice, lists=lists)
    same = request(alice, lists=dict.fromkeys(lists, lists["0"]))

    assert (refused.status_code, refused.get_json()["errcode"]) == (400, "M_INVALID_PARAM")
    assert same.status_code == 200
