"""Memory: the caches keep to their setting, and nothing else grows with what has been."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.ephemeral import presence
from homebody.core.sync.state_sections import LazyMembers
from homebody.spec import property_paths
from homebody.storage import database as db
from homebody.storage.caches import Caches, Requester
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person

LAZY = '{"room":{"state":{"lazy_load_members":true}}}'
CONTAINERS = (dict, list, set, deque, OrderedDict)


def bounded(app: Application) -> tuple[Caches, int]:
    database = app.homeserver.database
    return database.caches, database.server.config.cache_bytes


def test_the_caches_together_keep_to_their_setting(make_app: MakeApp) -> None:
    app = make_app(cache_bytes="1 MiB")
    caches, most = bounded(app)
    client = app.test_client()
    answer = client.post(
        "/_matrix/client/v3/register",
        json={"username": "alice", "password": "long enough", "auth": {"type": "m.login.dummy"}},
    ).get_json()
    alice = Person(client, answer["user_id"], answer["access_token"], answer["device_id"])
    dropped_from = set()

    for _ in range(40):
        room_id = alice.create_room(topic="t" * 8000)
        for _ in range(6):
            alice.send(room_id, "m" * 8000)
        alice.sync()
        assert sum(cache.used_bytes for cache in caches.all()) <= most
        dropped_from |= {cache.name for cache in caches.all() if len(cache) and is_full(cache)}

    assert {"state", "client_events"} <= dropped_from  # there was more to keep than could be
    joined = alice.get("joined_rooms").get_json()["joined_rooms"]
    assert alice.sync()["rooms"]["join"].keys() == set(joined)


def is_full(cache: Any) -> bool:
    return bool(cache.used_bytes > 0.8 * cache.max_bytes)


def sizes(app: Application) -> dict[str, int]:
    """How much every container holds that the running server keeps, the caches' own apart."""
    return dict(_sizes("", app.homeserver, set()))


def _sizes(path: str, value: Any, seen: set[int]) -> Iterator[tuple[str, int]]:
    if id(value) in seen or isinstance(value, (Caches, type)):
        return
    seen.add(id(value))
    if isinstance(value, CONTAINERS):
        yield path, len(value)
        inner = value.items() if isinstance(value, dict) else enumerate(list(value))
        for key, part in list(inner):
            yield from _sizes(f"{path}[{key}]", part, seen)
    elif type(value).__module__.startswith("homebody."):
        names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
        for name in names:
            yield from _sizes(f"{path}.{name}", getattr(value, name, None), seen)


def live_a_little(alice: Person, bob: Person, room_id: str) -> None:
    """What users do all day."""
    since = alice.sync()["next_batch"]
    room = quote(room_id)
    event_id = bob.send(room_id)
    bob.put(f"rooms/{room}/typing/{bob.user_id}", json={"typing": True, "timeout": 1000})
    alice.sync(since, filter=LAZY)
    bob.put(f"rooms/{room}/typing/{bob.user_id}", json={"typing": False})
    alice.post(f"rooms/{room}/receipt/m.read/{quote(event_id)}")
    alice.put(f"presence/{alice.user_id}/status", json={"presence": "unavailable"})
    alice.put(f"presence/{alice.user_id}/status", json={"presence": "online"})
    alice.sync(filter=LAZY, full_state="true")
    alice.post("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync")
    alice.get("account/whoami")
    alice.post("search", json={"search_categories": {"room_events": {"search_term": "hello"}}})
    alice.get("nowhere")


def test_what_people_do_all_day_leaves_nothing_behind(app: Application, login: Login) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = alice.create_room(preset="public_chat")
    bob.post(f"rooms/{quote(room_id)}/join")
    for _ in range(6):
        live_a_little(alice, bob, room_id)
    before = sizes(app)

    for _ in range(12):
        live_a_little(alice, bob, room_id)

    after = sizes(app)
    grown = {path: size for path, size in after.items() if size > before.get(path, 0)}
    assert len(before) > 20
    # a timer that is due in half a minute goes then
    assert {path: size for path, size in grown.items() if "timers._calls" not in path} == {}


def test_who_goes_offline_is_forgotten_when_there_are_too_many(
    app: Application, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "MAX_USERS", 3)
    ephemeral = app.homeserver.ephemeral
    alice = login("alice")
    alice.sync()

    for name in ("a", "b", "c", "d", "e"):
        person = login(name)
        person.put(f"presence/{person.user_id}/status", json={"presence": "offline"})

    assert len(ephemeral.presences) == 3
    assert alice.user_id in ephemeral.presences


def test_the_connections_of_a_rush_are_closed(app: Application) -> None:
    database = app.homeserver.database

    with ExitStack() as rush:
        for _ in range(3 * db.MAX_IDLE_READERS):
            rush.enter_context(database.read())

    assert sizes(app)[".database._idle_readers"] == db.MAX_IDLE_READERS


@pytest.mark.parametrize(("length", "is_kept"), [(250, True), (60_000, False)])
def test_only_short_paths_are_cached(length: int, is_kept: bool) -> None:
    path = "x." * (length // 2)

    first, second = property_paths.parse(path), property_paths.parse(path)

    assert first == second == ("x",) * (length // 2) + ("",)
    assert (first is second) == is_kept


def test_lazy_members_are_bounded_for_all_devices_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LazyMembers, "MAX_IN_ALL", 100)
    members = LazyMembers()
    people = [f"@{number}:localhost" for number in range(60)]
    devices = [Requester("@alice:localhost", name, b"") for name in "ABC"]

    for device in devices:
        members.add(device, 5, "!room", people)

    unknown = [len(members.unsent(device, "!room", people)) for device in devices]
    assert unknown == [60, 60, 0]
