"""`homebody invite …` and `homebody user reset-link`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask.testing import FlaskClient

from homebody.core import audit
from homebody.web import Application
from tests.cli import test_users as of_users
from tests.cli.test_users import Run
from tests.conftest import Login
from tests.helpers.pages import send

run, result = of_users.run, of_users.result
Result = Callable[..., Any]
DAY = 24 * 3_600_000
NEW = {"password": "another long password", "again": "another long password"}


def path_of(link: str) -> str:
    assert link.startswith("http://localhost:8008/_homebody/")
    return urlsplit(link).path


def test_a_link_is_printed_with_its_code(app: Application, run: Run) -> None:
    done = run("invite")

    link, *code, until = done.stdout.splitlines()
    assert done.returncode == 0
    assert urlsplit(link).path.startswith("/_homebody/invite/")
    assert len(code) > 15
    assert set("".join(code)) <= set(" ▀▄█")
    assert len({len(line) for line in code}) == 1
    assert until.startswith("Valid once, until 20")


def test_the_code_can_be_left_out(app: Application, run: Run) -> None:
    assert len(run("invite", "--no-qr").stdout.splitlines()) == 2


def test_a_person_registers_by_the_printed_link(
    app: Application, result: Result, client: FlaskClient
) -> None:
    made = result("invite", "bob", "--expires", "2 h")

    answer = send(client, path_of(made["link"]), **NEW)

    assert answer.status_code == 303
    assert made["name"] == "bob"
    assert abs(made["expires_ts"] - time.time() * 1000 - DAY / 12) < 60_000
    (listed,) = result("invite", "list")
    assert listed["user_id"] == "@bob:localhost"
    assert listed["used_ts"] is not None
    assert result("user", "list")[0]["user_id"] == "@bob:localhost"


def test_rooms_of_a_link_are_joined(
    app: Application, result: Result, login: Login, client: FlaskClient
) -> None:
    alice = login("alice")
    rooms = [alice.create_room(preset="public_chat", room_alias_name=it) for it in ("tea", "cats")]

    made = result("invite", "bob", "--room", "#tea:localhost", "--room", rooms[1])
    send(client, path_of(made["link"]), **NEW)

    for room_id in rooms:
        joined = alice.get(f"rooms/{room_id}/joined_members").get_json()["joined"]
        assert "@bob:localhost" in joined


@pytest.mark.parametrize("by", ["id", "link"])
def test_a_revoked_link_lets_nobody_in(
    app: Application, result: Result, client: FlaskClient, by: str
) -> None:
    revoked = result("invite", "bob")["link"]
    other = result("invite", "carol")["link"]
    (its_id,) = (it["id"] for it in result("invite", "list") if it["user_id"] == "@bob:localhost")

    result("invite", "revoke", its_id if by == "id" else revoked)

    assert client.get(path_of(revoked)).status_code == 403
    assert client.get(path_of(other)).status_code == 200
    assert [it["user_id"] for it in result("invite", "list")] == ["@carol:localhost"]


def test_nothing_that_is_listed_lets_anybody_in(app: Application, run: Run) -> None:
    link = run("invite", "--no-qr").stdout.split()[0]
    token = link.rpartition("/")[2]

    for output in (run("invite", "list").stdout, run("invite", "list", "--json").stdout):
        assert token not in output
    assert token not in run("audit", "--json").stdout


def test_a_link_for_a_new_password(
    app: Application, result: Result, login: Login, client: FlaskClient
) -> None:
    alice = login("alice")

    made = result("user", "reset-link", "alice")
    answer = send(client, path_of(made["link"]), **NEW)

    assert answer.status_code == 200
    assert made["user_id"] == alice.user_id
    assert abs(made["expires_ts"] - time.time() * 1000 - DAY) < 60_000
    assert alice.get("account/whoami").status_code == 401


def test_the_audit_log_has_what_was_done(app: Application, result: Result, login: Login) -> None:
    login("alice")
    result("invite", "bob")
    result("user", "reset-link", "alice")
    result("invite", "revoke", result("invite", "list")[0]["id"])

    with app.homeserver.database.read() as tx:
        entries = [(it["actor"], it["action"]) for it in audit.latest(tx, 3)]

    assert {actor for actor, _ in entries} == {audit.COMMAND_LINE}
    assert [action for _, action in reversed(entries)] == [
        "invitation.register",
        "invitation.password",
        "invitation.revoke",
    ]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["invite", "--expires", "7"], 2, '--expires needs a unit, such as "7 d"'),
        (["invite", "--expires", "soon"], 2, "--expires must be"),
        (["invite", "--expires", "2000 d"], 1, "up to a year"),
        (["invite", "ma ria"], 1, "A user name consists of"),
        (["invite", "alice"], 1, "This user name is taken"),
        (["invite", "@bob:elsewhere.test"], 1, "is not of this server"),
        (["invite", "--room", "#tea:localhost"], 1, "M_NOT_FOUND"),
        (["invite", "--room", "!tea:localhost"], 1, "M_NOT_FOUND"),
        (["invite", "revoke", "0123456789ab"], 1, "There is no such invitation"),
        (["user", "reset-link", "nobody"], 1, "There is no user nobody"),
    ],
)
def test_what_is_wrong_is_refused(
    app: Application, run: Run, login: Login, words: list[str], code: int, sentence: str
) -> None:
    login("alice")

    done = run(*words, "--json")

    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in done.stderr.replace('\\"', '"')
    assert run("invite", "list").stdout == ""
