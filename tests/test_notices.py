"""What the server itself tells its users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask

from app.cli import main
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.rooms import act, refusal

SENDER = "@server:localhost"
Notify = Callable[..., Result]


@pytest.fixture
def app(make_app: MakeApp) -> Flask:
    return make_app(server_notices_user="server")


@pytest.fixture
def notify(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Notify:
    """`notify("alice", "text")`: `homebody notice alice text` beside the server of the test."""
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.extensions["db"].server.config.data_dir))
    monkeypatch.setenv("HOMEBODY_SERVER_NOTICES_USER", "server")

    def run(name: str, text: str) -> Result:
        result = CliRunner().invoke(main, ["notice", name, text], catch_exceptions=False)
        app.extensions["db"].notice_other_writers()
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

    assert (result.exit_code, result.output) == (0, "@alice:localhost was told\n")
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
