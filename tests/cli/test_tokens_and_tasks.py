"""`homebody token show` and `set`, and `homebody tasks`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from homebody.core import audit, tasks
from homebody.core.sessions import registration_tokens
from homebody.web import Application

Run = Callable[..., Result]


def test_the_limits_of_a_token_change(app: Application, command: Run) -> None:
    command("token", "add", "--token", "family", "--uses", "1", "--lifetime", "7 d")

    more = json.loads(command("token", "set", "family", "--uses", "5", "--json").stdout)
    shown = json.loads(command("token", "show", "family", "--json").stdout)
    free = command("token", "set", "family", "--any-uses", "--no-end").stdout
    short = json.loads(command("token", "set", "family", "--lifetime", "1 h", "--json").stdout)

    assert more == shown
    assert (shown["uses_allowed"], shown["uses"], shown["pending"]) == (5, 0, 0)
    assert shown["expires_ts"] > shown["created_ts"]
    assert free == "family  used 0 of any number\n"
    assert short["expires_ts"] < shown["expires_ts"]
    with app.homeserver.database.read() as tx:
        found = audit.latest(tx, 10, subject="f…")
    assert [(it["actor"], it["action"]) for it in found] == [
        *[("command line", "token.change")] * 3,
        ("command line", "token.add"),
    ]


def test_tokens_are_listed_by_validity(command: Run) -> None:
    command("token", "add", "--token", "good")
    command("token", "add", "--token", "spent")
    command("token", "set", "spent", "--uses", "0")

    def listed(*options: str) -> list[str]:
        return [
            it["token"] for it in json.loads(command("token", "list", "--json", *options).stdout)
        ]

    assert listed() == ["good", "spent"]
    assert listed("--valid") == ["good"]
    assert listed("--invalid") == ["spent"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("show", "unknown"), 1, "There is no such registration token"),
        (("set", "unknown", "--uses", "1"), 1, "There is no such registration token"),
        (("set", "family"), 2, "Give --uses"),
        (("set", "family", "--uses", "-1"), 2, "Invalid value"),
        (("set", "family", "--lifetime", "7"), 2, "needs a unit"),
    ],
)
def test_wrong_limits_change_nothing(
    command: Run, words: tuple[str, ...], code: int, message: str
) -> None:
    command("token", "add", "--token", "family")
    before = command("token", "show", "family", "--json").stdout

    done = command("token", *words)

    assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
    assert command("token", "show", "family", "--json").stdout == before


def test_tasks_are_listed_with_what_came_of_them(app: Application, command: Run) -> None:
    with app.homeserver.database.write() as tx:
        waiting = tasks.add(tx, "room.delete", {}, "!a:b")
        failed = tasks.add(tx, "user.redact", {})
        tasks.record(tx, failed, tasks.FAILED, error="it broke")

    def listed(*options: str) -> list[str]:
        return [it["id"] for it in json.loads(command("tasks", "--json", *options).stdout)]

    lines = command("tasks").stdout.splitlines()
    assert sorted(line[21:] for line in lines) == [
        f"room.delete  !a:b  scheduled  {waiting}",
        f"user.redact  failed: it broke  {failed}",
    ]
    assert {*listed()} == {waiting, failed}
    assert listed("--status", "failed") == listed("--action", "user.redact") == [failed]
    assert listed("--subject", "!a:b") == [waiting]
    assert command("tasks", "--status", "done").exit_code == 2


def test_a_task_is_cancelled(app: Application, command: Run) -> None:
    with app.homeserver.database.write() as tx:
        waiting, other = (tasks.add(tx, "room.delete", {}, f"!{name}:b") for name in "ac")

    done = command("tasks", "cancel", waiting)
    again = command("tasks", "cancel", waiting)
    shown = json.loads(command("tasks", "cancel", other, "--json").stdout)

    assert (done.exit_code, done.stdout) == (0, "Cancelled: room.delete !a:b\n")
    assert again.exit_code == 1
    assert "The task has ended: it is cancelled" in again.stderr
    assert (shown["id"], shown["status"]) == (other, "cancelled")
    assert len(json.loads(command("tasks", "--status", "cancelled", "--json").stdout)) == 2
    assert command("tasks", "cancel", "unknown").exit_code == 1
    with app.homeserver.database.read() as tx:
        entries = audit.latest(tx, 10)
    assert [(it["actor"], it["action"]) for it in entries] == [("command line", "task.cancel")] * 2


def test_a_token_that_expires_when_no_calendar_goes_is_listed(
    app: Application, command: Run
) -> None:
    with app.homeserver.database.write() as tx:
        registration_tokens.add(tx, "test", token="late", expires_ts=2**53 - 1)

    listed = command("token", "list")

    assert (listed.exit_code, "an impossible time" in listed.stdout) == (0, True)
