"""The command `homebody notice`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from homebody.core import audit
from homebody.web import Application
from tests.conftest import Login, MakeApp

Command = Callable[..., Result]
Printed = Callable[..., Any]


@pytest.fixture
def app(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> Application:
    """A server that can send notices."""
    monkeypatch.setenv("HOMEBODY_SERVER_NOTICES_USER", "notices")
    return make_app(server_notices_user="notices")


def test_a_notice_reaches_all_users(
    app: Application, printed: Printed, command: Command, login: Login
) -> None:
    people = [login(name) for name in ("alice", "bob", "carol")]

    done = printed("notice", "--all", "The server is down on Sunday")
    text = command("notice", "--all", "It is back").stdout

    assert done == {"users": 3}
    assert text == "Sent a notice to 3 users\n"
    assert [len(person.sync()["rooms"]["invite"]) for person in people] == [1, 1, 1]
    with app.homeserver.database.read() as tx:
        (entry,) = audit.latest(tx, 1)
    assert (entry["actor"], entry["action"]) == (audit.COMMAND_LINE, "notice.send_to_all")


@pytest.mark.parametrize("words", [("text",), ("--all", "bob", "text"), ("bob", "a", "b")])
def test_the_words_must_be_a_user_and_a_text(command: Command, words: tuple[str, ...]) -> None:
    result = command("notice", *words)

    assert result.exit_code == 2
    assert "Either a user and a text are needed, or --all and a text" in result.stderr


def test_an_empty_notice_is_refused(command: Command, login: Login) -> None:
    login("alice")

    assert command("notice", "--all", " ").exit_code == 1
