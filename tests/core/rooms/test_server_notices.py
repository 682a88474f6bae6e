"""What the server itself tells its users."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homebody.cli import main
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers import live, server
from tests.helpers.gateway import Gateway, running
from tests.helpers.rooms import act, refusal

SENDER = "@server:localhost"
Notify = Callable[..., Result]


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(server_notices_user="server")


@pytest.fixture
def notify(app: Application, monkeypatch: pytest.MonkeyPatch) -> Notify:
    """`notify("alice", "text")`: `homebody notice alice text` beside the server of the test."""
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))
    monkeypatch.setenv("HOMEBODY_SERVER_NOTICES_USER", "server")

    def run(name: str, text: str) -> Result:
        result = CliRunner().invoke(main, ["notice", name, text], catch_exceptions=False)
        app.homeserver.database.notice_other_writers()
        return result

    return run


def invite_of(person: Person) -> str:
    """The one room to which the person is invited."""
    (room_id,) = person.sync()["rooms"]["invite"]
    return str(room_id)


def notices(person: Person, room_id: str) -> list[Any]:
    answer = person.get(f"rooms/{room_id}/messages", query_string={"dir": "f", "limit": 100})
    found = answer.get_json()["chunk"]
    return [event for event in found if event["type"] == "m.room.message"]


def test_a_user_is_invited_and_finds_the_notice(login: Login, notify: Notify) -> None:
    alice = login("alice")
    since = alice.sync()["next_batch"]
    result = notify("alice", "We move house on Sunday.")
    room_id = invite_of(alice)
    since = alice.sync(since)["next_batch"]
    act(alice, room_id, "join")

    joined = alice.sync(since)["rooms"]["join"][room_id]

    assert (result.exit_code, result.output) == (0, "Sent a notice to @alice:localhost\n")
    assert {"type": "m.tag", "content": {"tags": {"m.server_notice": {}}}} in joined[
        "account_data"
    ]["events"]
    (event,) = notices(alice, room_id)
    assert event["sender"] == SENDER
    assert event["content"]["msgtype"] == "m.server_notice"
    assert event["content"]["body"] == "We move house on Sunday."
    assert event["content"]["server_notice_type"]


def test_all_notices_of_a_user_are_in_one_room(login: Login, notify: Notify) -> None:
    alice, bob = login("alice"), login("bob")
    notify("alice", "one")
    room_id = invite_of(alice)
    notify("@alice:localhost", "two")
    act(alice, room_id, "join")
    notify("alice", "three")
    notify("bob", "another")

    assert [event["content"]["body"] for event in notices(alice, room_id)] == [
        "one",
        "two",
        "three",
    ]
    assert invite_of(bob) != room_id


def test_the_invite_can_not_be_rejected_but_the_room_left(login: Login, notify: Notify) -> None:
    alice = login("alice")
    notify("alice", "one")
    room_id = invite_of(alice)
    path = f"rooms/{room_id}/state/m.room.member/{alice.user_id}"

    rejected = [
        act(alice, room_id, "leave"),
        alice.put(path, json={"membership": "leave"}),
    ]
    act(alice, room_id, "join")
    left = act(alice, room_id, "leave")
    notify("alice", "two")

    assert [refusal(answer) for answer in rejected] == [
        (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
    ] * 2
    assert left.status_code == 200
    assert invite_of(alice) == room_id


def test_other_invites_can_be_rejected(login: Login, notify: Notify) -> None:
    alice, bob = login("alice"), login("bob")
    notify("alice", "one")
    room_id = bob.create_room(invite=[alice.user_id])

    assert act(alice, room_id, "leave").status_code == 200


def test_nobody_answers_there(login: Login, notify: Notify) -> None:
    alice = login("alice")
    notify("alice", "one")
    room_id = invite_of(alice)
    act(alice, room_id, "join")

    answer = alice.put(f"rooms/{room_id}/send/m.room.message/t", json={"body": "why?"})

    assert refusal(answer) == (403, "M_FORBIDDEN")


def test_nobody_registers_or_logs_in_as_the_server(
    client: Any, login: Login, notify: Notify
) -> None:
    login("alice")
    body = {"username": "server", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    before = client.post(V3 + "register", json=body)
    notify("alice", "one")
    login_body = {"type": "m.login.password", "user": "server", "password": PASSWORD}

    assert refusal(before) == (400, "M_USER_IN_USE")
    assert refusal(client.post(V3 + "login", json=login_body)) == (403, "M_FORBIDDEN")


def test_whom_nobody_knows_is_told_nothing(login: Login, notify: Notify) -> None:
    login("alice")

    result = notify("bob", "one")

    assert result.exit_code == 1
    assert "no user bob" in result.output


def test_without_a_sender_the_command_says_what_to_do(
    login: Login, notify: Notify, monkeypatch: pytest.MonkeyPatch
) -> None:
    login("alice")
    monkeypatch.delenv("HOMEBODY_SERVER_NOTICES_USER")

    result = notify("alice", "one")

    assert result.exit_code == 1
    assert "server_notices_user" in result.output


@contextmanager
def busy(person: live.Person, clients: int = 4) -> Iterator[None]:
    """The person's devices write without a pause, so that there is always a COMMIT under way."""
    room_id = person.create_room()
    is_over = threading.Event()

    def write() -> None:
        device = person.again()
        while not is_over.is_set():
            device.send(room_id)
        device.close()

    threads = [threading.Thread(target=write) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(live.SECONDS)


def test_a_busy_server_passes_a_notice_on_at_once(tmp_path: Path) -> None:
    # Before, it came when a look by chance fell between two batches: after 8 to 12 s, or later.
    gateway = Gateway(server.free_port(), tmp_path / "told.jsonl")
    settings = {"server_notices_user": "server", "outside_allowed": "127.0.0.1"}
    its_server = server.start(tmp_path, **settings)
    alice, writer = live.Person(its_server, "alice"), live.Person(its_server, "writer")
    try:
        pusher = {"app_id": "a", "pushkey": "k", "kind": "http", "app_display_name": "A"}
        pusher |= {"device_display_name": "D", "lang": "en"}
        alice.ask("POST", "/pushers/set", {**pusher, "data": {"url": gateway.url}})
        since = alice.ask("GET", "/sync")["next_batch"]
        command = [str(Path(sys.executable).parent / "homebody"), "notice", "alice", "hello"]
        environ = {**os.environ, "HOMEBODY_DATA_DIR": str(tmp_path)}
        environ["HOMEBODY_SERVER_NOTICES_USER"] = "server"
        with running(gateway), busy(writer):
            alice.begin_to_ask("GET", f"/sync?since={since}&timeout=60000")
            subprocess.run(command, env=environ, cwd=server.ROOT, check=True)
            began = time.monotonic()
            status, answer = alice.answer()
            seconds_to_sync = time.monotonic() - began
            gateway.wait(bool)
            seconds_to_gateway = time.monotonic() - began
    finally:
        alice.close()
        writer.close()
        its_server.stop()

    assert status == 200
    assert b"invite_state" in answer
    assert seconds_to_sync < 5
    assert seconds_to_gateway < 6
