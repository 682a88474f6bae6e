"""The keys for the events of a join: asked of notaries, the servers, and the resident server."""

from __future__ import annotations

import copy
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from homebody.core.federation import join_keys, keys
from homebody.core.federation.keys import KnownKey, ServerKeys
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.core.federation.test_keys import (
    DAY_MS,
    KEY_PATH,
    NOTARY_PATH,
    changed,
    known,
    now_ms,
)
from tests.helpers import certificates, rooms
from tests.helpers.remote import Remote, Remotes
from tests.helpers.scripted_server import Request, Response, ScriptedServer

SERVERS = 300
MOST_SECONDS = 8.0
"""Servers that hang get three; in a process without gevent each has a thread, which costs more."""


@pytest.fixture
def b(remote: Remotes) -> Remote:
    return remote("b.test")


@pytest.fixture
def c(remote: Remotes) -> Remote:
    """The server that has sent the events."""
    return remote("c.test")


@pytest.fixture
def server_keys(app: Application) -> ServerKeys:
    return app.homeserver.server_keys


def find(server_keys: ServerKeys, b: Remote, at_ts: int = 0) -> KnownKey | None:
    """What is found for an event of b.test that c.test has sent."""
    name = (b.name, b.key.key_id)
    return join_keys.find(server_keys, {name: at_ts}, "c.test").get(name)


def test_the_servers_are_asked_and_the_resident_server_is_not(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    c.notary_for["b.test"] = b.published_keys()

    found = [find(server_keys, b) for _ in range(2)]

    assert [it and it.key for it in found] == [b.key.verify_key] * 2
    assert len(b.received(KEY_PATH)) == 1
    assert c.received(NOTARY_PATH) == []


def test_the_resident_server_is_asked_about_those_that_do_not_answer(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    b.rotate_key()
    b.fail(KEY_PATH)
    c.notary_for["b.test"] = b.published_keys()  # with a key that nobody needs

    found = find(server_keys, b, now_ms())

    assert found is not None
    assert found.key == b.key.verify_key
    assert len(c.received(NOTARY_PATH)) == 1


def test_what_the_resident_server_says_counts_for_its_events_only(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    b.fail(KEY_PATH)
    c.notary_for["b.test"] = b.published_keys()

    assert find(server_keys, b) is not None
    assert not known(server_keys, b)


def test_the_resident_server_cannot_make_up_keys_of_a_server_that_answers(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    true = copy.deepcopy(b.published_keys())
    made_up = b.rotate_key(), b.key
    c.notary_for["b.test"] = b.published_keys()
    b.answer(KEY_PATH, Response(200, true))

    found = join_keys.find(server_keys, {("b.test", it.key_id): 0 for it in made_up}, "c.test")

    assert {key_id for _, key_id in found} == {made_up[0].key_id}


def test_the_resident_server_cannot_make_up_keys_of_a_server_that_answers_after_it(
    server_keys: ServerKeys, b: Remote, c: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_keys, "SERVERS_FIRST_SECONDS", 0.05)
    true = copy.deepcopy(b.published_keys())
    b.rotate_key()
    c.notary_for["b.test"] = b.published_keys()

    def answer_late(_request: Request) -> Response:
        time.sleep(0.5)
        return Response(200, true)

    b.answer(KEY_PATH, answer_late)

    found = find(server_keys, b)

    assert found is None
    assert len(c.received(NOTARY_PATH)) == 1


def test_the_resident_server_cannot_replace_a_key_that_is_known(
    server_keys: ServerKeys, b: Remote, c: Remote, remote: Remotes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "MIN_INTERVAL_S", 0.0)
    assert known(server_keys, b)
    d = remote("d.test")  # whose key has the same id
    d.key_valid_for_ms = 5 * DAY_MS
    monkeypatch.setattr(d, "name", "b.test")
    c.notary_for["b.test"] = d.published_keys()
    b.fail(KEY_PATH)

    found = find(server_keys, b, now_ms() + 2 * DAY_MS)

    assert found is not None
    assert found.key == b.key.verify_key


def test_the_resident_server_cannot_extend_a_key_for_more_than_a_week(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    b.fail(KEY_PATH)
    c.notary_for["b.test"] = changed(b, valid_until_ts=now_ms() + 365 * DAY_MS)

    assert find(server_keys, b, now_ms() + 6 * DAY_MS) is not None
    assert find(server_keys, b, now_ms() + 8 * DAY_MS) is None


@pytest.mark.parametrize("answer", [Response(500), Response(200, []), Response(200, b"{")])
def test_a_resident_server_that_is_no_notary_leaves_keys_out(
    server_keys: ServerKeys, b: Remote, c: Remote, answer: Response
) -> None:
    b.fail(KEY_PATH)
    c.answer(NOTARY_PATH, answer)

    assert find(server_keys, b) is None


def test_without_a_resident_server_keys_are_left_out(
    server_keys: ServerKeys, b: Remote, c: Remote
) -> None:
    b.fail(KEY_PATH)
    c.notary_for["b.test"] = b.published_keys()

    assert join_keys.find(server_keys, {("b.test", b.key.key_id): 0}, None) == {}
    assert c.received(NOTARY_PATH) == []


def test_trusted_notaries_are_asked_first(make_app: MakeApp, remote: Remotes, b: Remote) -> None:
    d = remote("d.test")
    d.notary_for["b.test"] = b.published_keys()
    app = make_app(**remote.settings, trusted_key_servers="d.test")

    found = find(app.homeserver.server_keys, b)

    assert found is not None
    assert found.key == b.key.verify_key
    assert b.received(KEY_PATH) == []
    assert len(d.received(NOTARY_PATH)) == 1
    assert known(app.homeserver.server_keys, b)


def test_trusted_notaries_are_asked_once(make_app: MakeApp, remote: Remotes, b: Remote) -> None:
    d = remote("d.test")
    b.fail(KEY_PATH)
    app = make_app(**remote.settings, trusted_key_servers="d.test")

    assert find(app.homeserver.server_keys, b) is None
    assert len(d.received(NOTARY_PATH)) == 1


def test_the_servers_are_asked_while_a_trusted_notary_hangs(
    make_app: MakeApp, remote: Remotes, b: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join_keys, "NOTARIES_FIRST_SECONDS", 0.1)
    monkeypatch.setattr(join_keys, "NOTARY_SECONDS", 0.5)
    remote("d.test").hang(NOTARY_PATH)
    app = make_app(**remote.settings, trusted_key_servers="d.test")

    assert find(app.homeserver.server_keys, b) is not None


def person(app: Application) -> Person:
    """Register Alice."""
    client = app.test_client()
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    session = client.post(V3 + "register", json=body).get_json()
    return Person(client, session["user_id"], session["access_token"], session["device_id"])


@pytest.mark.parametrize(("is_told", "status"), [(True, 200), (False, 502)])
def test_a_room_whose_creator_is_gone_is_joined_if_the_resident_server_has_the_key(
    login: Login, b: Remote, c: Remote, is_told: bool, status: int
) -> None:
    room = c.room("11")
    room.member("@dave:b.test", "join", by=b)
    b.rooms[room.id] = room
    c.fail("/")
    if is_told:
        b.notary_for["c.test"] = c.published_keys()

    response = login("alice").post(f"join/{quote(room.id)}?via=b.test")

    assert response.status_code == status


def test_where_key_servers_are_trusted_the_resident_server_is_not(
    make_app: MakeApp, remote: Remotes, b: Remote, c: Remote
) -> None:
    room = c.room("11")
    room.member("@dave:b.test", "join", by=b)
    b.rooms[room.id] = room
    c.fail("/")
    b.notary_for["c.test"] = c.published_keys()
    remote("d.test")
    app = make_app(**remote.settings, trusted_key_servers="d.test")
    remote.talk_to(app)

    response = person(app).post(f"join/{quote(room.id)}?via=b.test")

    assert response.status_code == 502


class Crowd:
    """Servers by the name of which others have signed; those that are alive answer."""

    def __init__(self, alive: ScriptedServer, dead_port: int, names: list[str]) -> None:
        half = len(names) // 2
        self.alive = [Remote(alive, name) for name in names[:half]]
        self.dead = [Remote(alive, name) for name in names[half:]]
        ports = dict.fromkeys(names[:half], alive.port) | dict.fromkeys(names[half:], dead_port)
        self.hosts = ", ".join(f'"{it}" = "127.0.0.1:{port}"' for it, port in ports.items())


@contextmanager
def crowd() -> Iterator[Crowd]:
    """Have hundreds of servers, half of which accept connections and never say anything."""
    names = [f"s{number}.test" for number in range(SERVERS)]

    def respond(request: Request) -> Response:
        return Response(200, by_name[request.headers["Host"]].published_keys())

    alive = ScriptedServer(respond, certificates.server_context(*names))
    with socket.create_server(("127.0.0.1", 0), backlog=SERVERS) as dead:
        found = Crowd(alive, dead.getsockname()[1], names)
        by_name = {it.name: it for it in found.alive}
        try:
            yield found
        finally:
            alive.close()


def test_a_room_of_hundreds_of_servers_half_of_them_dead_is_joined_within_seconds(
    make_app: MakeApp, remote: Remotes, b: Remote
) -> None:
    with crowd() as others:
        hosts = remote.settings["federation_hosts"].rstrip("}") + f", {others.hosts}}}"
        app = make_app(**remote.settings | {"federation_hosts": hosts})
        remote.talk_to(app)
        room = b.room("11")
        for it in [*others.alive, *others.dead]:
            room.member(f"@user:{it.name}", "join", by=it)
        told = others.dead[: SERVERS // 4]
        b.notary_for |= {it.name: it.published_keys() for it in told}
        alice = person(app)
        began = time.monotonic()

        response = alice.post(f"join/{quote(room.id)}?via=b.test")

        assert response.status_code == 200
        assert time.monotonic() - began < MOST_SECONDS
        joined: Any = rooms.state_of(alice, room.id)
        members = {key[1].partition(":")[2] for key in joined if key[0] == "m.room.member"}
        expected = {it.name for it in [*others.alive, *told]} | {"b.test", "localhost"}
        assert members == expected
        assert len(b.received(NOTARY_PATH)) == 1
