"""Reports: who may make them, and how the owner reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from homebody.cli import main
from homebody.web import Application
from tests.conftest import Login, MakeApp, Person
from tests.helpers.rooms import act, refusal

Room = Callable[..., str]


@pytest.fixture
def command(app: Application, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`command("list")`: `homebody reports list` on the server of the test."""
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["reports", *arguments], catch_exceptions=False)

    return run


def listed(command: Callable[..., Result]) -> list[dict[str, Any]]:
    result = command("list", "--json")
    assert result.exit_code == 0, result.output
    reports: list[dict[str, Any]] = json.loads(result.output)
    return reports


def report(person: Person, room_id: str, event_id: str | None = None, **body: Any) -> Any:
    path = f"rooms/{quote(room_id)}/report"
    return person.post(path + (f"/{quote(event_id)}" if event_id else ""), json=body)


def test_the_owner_reads_what_was_reported(
    login: Login, room: Room, command: Callable[..., Result]
) -> None:
    alice, bob = login("alice"), login("bob")
    room_id = room(alice, bob)
    event_id = alice.send(room_id, "buy my pills")

    answers = [
        report(bob, room_id, event_id, reason="spam", score=-100),
        report(bob, room_id, reason=""),
        bob.post(f"users/{alice.user_id}/report", json={"reason": "sells pills"}),
    ]

    assert [(answer.status_code, answer.get_json()) for answer in answers] == [(200, {})] * 3
    event, about_room, about_user = listed(command)
    assert event.pop("created_ts") > 0
    assert event == {
        "id": 1,
        "reporter": bob.user_id,
        "reason": "spam",
        "score": -100,
        "room_id": room_id,
        "event_id": event_id,
        "user_id": alice.user_id,
        "event": {
            "type": "m.room.message",
            "content": {"msgtype": "m.text", "body": "buy my pills"},
        },
    }
    assert (about_room["room_id"], about_room["reason"]) == (room_id, "")
    assert (about_user["user_id"], about_user["reason"]) == (alice.user_id, "sells pills")
    lines = command("list").output.splitlines()
    assert lines[0].endswith(f"{event_id} {room_id}, who wrote 'buy my pills': spam")
    assert lines[2] == f"3  {bob.user_id} about {alice.user_id}: sells pills"


def test_a_report_that_was_dealt_with_can_go(
    login: Login, room: Room, command: Callable[..., Result]
) -> None:
    alice = login("alice")
    room_id = room(alice)
    report(alice, room_id, reason="a")
    report(alice, room_id, reason="b")

    gone, again = command("remove", "1"), command("remove", "1")

    assert (gone.exit_code, again.exit_code) == (0, 1)
    assert [one["reason"] for one in listed(command)] == ["b"]


def test_events_are_reported_by_who_is_in_the_room_and_rooms_by_anybody(
    login: Login, room: Room
) -> None:
    alice, bob, mallory = login("alice"), login("bob"), login("mallory")
    room_id = room(alice, bob)
    event_id = alice.send(room_id)
    act(bob, room_id, "leave")

    answers = [report(who, room_id, event_id, reason="x") for who in (bob, mallory)]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 2
    assert report(mallory, room_id, reason="x").status_code == 200


def test_what_is_not_there_is_not_found(login: Login, room: Room) -> None:
    alice = login("alice")
    room_id, other = room(alice), room(alice)
    elsewhere = alice.send(other)

    answers = [
        report(alice, room_id, "$nope", reason="x"),
        report(alice, room_id, elsewhere, reason="x"),
        report(alice, "!nope:localhost", reason="x"),
        alice.post("users/@nobody:localhost/report", json={"reason": "x"}),
    ]

    assert [refusal(answer) for answer in answers] == [(404, "M_NOT_FOUND")] * 4


def test_what_is_hidden_from_the_reporter_is_not_found(login: Login, room: Room) -> None:
    alice, bob = login("alice"), login("bob")
    hidden = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room_id = room(alice, initial_state=[hidden])
    event_id = alice.send(room_id)
    act(bob, room_id, "join")

    assert refusal(report(bob, room_id, event_id)) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"reason": 1}, "M_BAD_JSON"),
        ({"reason": "x" * 5001}, "M_INVALID_PARAM"),
    ],
)
def test_a_bad_reason_is_refused(
    login: Login, room: Room, body: dict[str, Any], errcode: str
) -> None:
    alice = login("alice")

    assert refusal(report(alice, room(alice), **body)) == (400, errcode)


def test_reports_are_limited(make_app: MakeApp) -> None:
    client = make_app(**{"rate_limits": "true", "rc_reports.burst_count": "1"}).test_client()
    auth = {"type": "m.login.dummy"}
    session = client.post(
        "/_matrix/client/v3/register", json={"username": "a", "password": "b" * 12, "auth": auth}
    ).get_json()
    alice = Person(client, session["user_id"], session["access_token"], session["device_id"])
    path = f"users/{alice.user_id}/report"

    answers = [alice.post(path, json={"reason": ""}) for _ in range(2)]

    assert answers[0].status_code == 200
    assert refusal(answers[1]) == (429, "M_LIMIT_EXCEEDED")
