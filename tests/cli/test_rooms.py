"""The commands `homebody rooms …` and `homebody user redact`, beside a server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import Result

from homebody.core import audit
from homebody.core.rooms import purge
from homebody.web import Application
from tests.cli.test_cli import HOMEBODY
from tests.conftest import Login, Person
from tests.helpers.rooms import Json, act, ids, membership, refusal, state_of, unchanged

MakeRoom = Callable[..., str]
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove rooms without the time for devices to be notified."""
    monkeypatch.setattr(purge, "wait_for_clients", lambda: None)


@pytest.fixture
def alice(login: Login) -> Person:
    return login("alice")


@pytest.fixture
def bob(alice: Person, login: Login) -> Person:
    return login("bob")


def said(result: Result) -> Any:
    """Return the JSON that a command has printed."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def audited(app: Application) -> list[tuple[str, str, str]]:
    """Return (actor, action, subject) of the audit log, newest first."""
    with app.homeserver.database.read() as tx:
        return [(it["actor"], it["action"], it["subject"]) for it in audit.latest(tx, 20)]


def test_a_room_is_shown_by_its_alias(
    command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob, name="Tea", room_alias_name="tea")
    command("rooms", "block", room_id)

    shown = said(command("rooms", "show", "#tea:localhost", "--json"))
    text = command("rooms", "show", room_id).stdout

    assert (shown["room_id"], shown["name"]) == (room_id, "Tea")
    assert shown["members"] == [alice.user_id, bob.user_id]
    assert shown["blocked_by"] == audit.COMMAND_LINE
    assert len(shown["forward_extremities"]) == 1
    assert f"members: {alice.user_id} {bob.user_id}" in text
    assert "forward_extremities: 1" in text
    missing = command("rooms", "show", "!no:localhost", "--json")
    assert (missing.exit_code, json.loads(missing.stderr)["errcode"]) == (1, "M_NOT_FOUND")


def test_rooms_are_blocked_and_unblocked(
    app: Application, command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice)

    assert said(command("rooms", "block", room_id, "--json")) == {"room_id": room_id, "block": True}
    assert refusal(act(bob, room_id, "join")) == (403, "M_FORBIDDEN")
    (blocked,) = said(command("rooms", "blocked", "--json"))
    assert (blocked["room_id"], blocked["user_id"]) == (room_id, audit.COMMAND_LINE)
    assert room_id in command("rooms", "blocked").stdout
    assert command("rooms", "unblock", room_id).stdout == f"Unblocked {room_id}\n"
    assert act(bob, room_id, "join").status_code == 200
    assert audited(app)[:2] == [
        (audit.COMMAND_LINE, "room.unblock", room_id),
        (audit.COMMAND_LINE, "room.block", room_id),
    ]


def test_a_room_is_deleted_and_its_users_are_moved(
    app: Application, command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob, room_alias_name="tea")
    words = ("rooms", "delete", "#tea:localhost", "--new-room-by", "bob", "--message", "why")
    with unchanged(app):
        assert command(*words, input="n\n").exit_code == 1

    done = said(command(*words, "--block", "--new-room-name", "Gone", "--yes", "--json"))

    assert done["room_id"] == room_id
    assert done["kicked_users"] == [alice.user_id, bob.user_id]
    assert state_of(alice, done["new_room_id"])["m.room.name", ""] == {"name": "Gone"}
    assert command("rooms", "show", room_id).exit_code == 1
    assert "room.delete" in [action for _, action, _ in audited(app)]


def test_an_unknown_room_is_only_blocked(app: Application, command: Run, alice: Person) -> None:
    with unchanged(app):
        done = command("rooms", "delete", "!typo:localhost", "--yes", "--json")
    assert (done.exit_code, json.loads(done.stderr)["errcode"]) == (1, "M_NOT_FOUND")

    command("rooms", "delete", "!bad:elsewhere.example", "--block", "--yes")

    assert said(command("rooms", "blocked", "--json"))[0]["room_id"] == "!bad:elsewhere.example"


def test_users_can_be_made_to_leave_without_a_purge(
    command: Run, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)

    result = command("rooms", "delete", room_id, "--keep-events", "--yes")

    assert result.stdout == f"Deleted {room_id}: 1 users have left\n"
    assert said(command("rooms", "show", room_id, "--json"))["joined_members"] == 0


def test_a_user_becomes_administrator_of_a_room_and_another_is_joined(
    app: Application, command: Run, alice: Person, bob: Person, login: Login
) -> None:
    carol = login("carol")
    room_id = alice.create_room(preset="private_chat", room_version="10")

    assert command("rooms", "make-admin", room_id, "bob").exit_code == 0
    joined = command("rooms", "join", room_id, "carol")
    nobody = command("rooms", "join", room_id, "nobody")

    assert joined.stdout == f"{carol.user_id} has joined {room_id}\n"
    assert nobody.exit_code == 1
    assert act(bob, room_id, "join").status_code == 200
    assert state_of(bob, room_id)["m.room.power_levels", ""]["users"][bob.user_id] == 100
    assert membership(bob, room_id, carol.user_id)["membership"] == "join"
    assert [action for _, action, _ in audited(app)][:2] == ["room.join", "room.make_admin"]


def test_extremities_are_trimmed(command: Run, alice: Person, room: MakeRoom) -> None:
    room_id = room(alice)

    done = said(command("rooms", "trim-extremities", room_id, "--json"))

    assert done == {"room_id": room_id, "deleted": 0}


def test_the_history_of_a_room_is_purged(
    app: Application, command: Run, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, f"{number}") for number in range(4)]
    words = ("rooms", "purge-history", room_id, "--delete-local-events")
    with unchanged(app):
        assert command(*words).exit_code == 2
        both = command(*words, "--before-event", sent[2], "--older-than", "3 d", "--yes")
        assert both.exit_code == 2
        assert command(*words, "--before-event", sent[2], input="n\n").exit_code == 1
        assert command(*words, "--older-than", "1 d", "--yes").exit_code == 1  # nothing is that old

    done = said(command(*words, "--before-event", sent[2], "--yes", "--json"))

    assert done == {"room_id": room_id, "events": 2}
    page = alice.get(f"rooms/{quote(room_id)}/messages?dir=b").get_json()
    assert ids(page) == [sent[3], sent[2]]
    assert audited(app)[0] == (audit.COMMAND_LINE, "room.purge_history", room_id)


def test_a_purge_says_that_messages_of_own_users_are_only_hidden(
    command: Run, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, f"{number}") for number in range(3)]

    done = command("rooms", "purge-history", room_id, "--before-event", sent[2], "--yes")

    assert done.output.startswith("Deleted 0 of ")
    assert "(see --delete-local-events)" in done.output


def test_a_purge_that_is_interrupted_is_in_the_audit_log(
    app: Application, command: Run, alice: Person, room: MakeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_given: object) -> int:
        raise KeyboardInterrupt

    room_id = room(alice)
    monkeypatch.setattr(purge, "_remove_rest", stop)

    done = command("rooms", "purge", room_id, "--force", "--yes")

    assert done.exit_code == 1
    assert audited(app)[0] == (audit.COMMAND_LINE, "room.purge", room_id)


def test_a_purge_shows_its_progress_on_a_terminal_only(
    app: Application, alice: Person, room: MakeRoom
) -> None:
    room_id = room(alice)
    sent = [alice.send(room_id, f"{number}") for number in range(3)]
    folder = str(app.homeserver.database.server.config.data_dir)
    environ = {"PATH": os.environ["PATH"], "HOMEBODY_DATA_DIR": folder, "TERM": "xterm"}
    words = [HOMEBODY, "rooms", "purge-history", room_id, "--delete-local-events", "--yes"]

    def shown(event_id: str, stderr: int) -> None:
        done = subprocess.run(
            [*words, "--before-event", event_id],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=stderr,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith(b"Deleted 1 of ")

    main_end, other_end = pty.openpty()
    shown(sent[1], other_end)
    assert b"Purging" in os.read(main_end, 4096)
    os.close(other_end)
    os.close(main_end)
    reading, writing = os.pipe()
    shown(sent[2], writing)
    os.close(writing)
    assert os.read(reading, 4096) == b""
    os.close(reading)


def test_all_that_a_user_has_sent_is_redacted(
    app: Application, command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    rooms = [room(alice, bob), room(alice, bob)]
    sent = [bob.send(room_id) for room_id in rooms]
    act(bob, rooms[1], "leave")
    with unchanged(app):
        assert command("user", "redact", "bob", input="n\n").exit_code == 1
        assert command("user", "redact", "nobody", "--yes").exit_code == 1

    first = said(command("user", "redact", "bob", "--reason", "spam", "--yes", "--json"))
    text = command("user", "redact", bob.user_id, "--yes").stdout
    second = said(command("user", "redact", "bob", "--by", "alice", "--yes", "--json"))

    assert sent[1] in first["failed_redactions"]
    assert "could not be redacted: " in text
    assert second["failed_redactions"] == {}
    for room_id, event_id in zip(rooms, sent, strict=True):
        event: Json = alice.get(f"rooms/{quote(room_id)}/event/{quote(event_id)}").get_json()
        assert event["content"] == {}
    assert (audit.COMMAND_LINE, "user.redact", bob.user_id) in audited(app)


def test_what_a_deactivated_user_has_sent_is_redacted_by_another_one(
    command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    room_id = room(alice, bob)
    bob.send(room_id)
    command("user", "deactivate", "bob", "--yes")

    done = said(command("user", "redact", "bob", "--by", "alice", "--yes", "--json"))

    assert (done["redacted"] > 0, done["failed_redactions"]) == (True, {})


def test_only_the_rooms_that_are_named_are_redacted(
    command: Run, alice: Person, bob: Person, room: MakeRoom
) -> None:
    rooms = [room(alice, bob), room(alice, bob, room_alias_name="tea")]
    sent = [bob.send(room_id) for room_id in rooms]

    done = said(command("user", "redact", "bob", "--room", "#tea:localhost", "--yes", "--json"))

    assert done["rooms"] == 1
    event = alice.get(f"rooms/{quote(rooms[0])}/event/{quote(sent[0])}").get_json()
    assert event["content"] != {}
