"""The command `homebody`.

Some run it as its owner does, in a process of its own; that takes most of a second to import what
the test has in memory already, so the rest call it.
"""

from __future__ import annotations

import json
import os
import pty
import select
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from homebody.cli import main
from homebody.core import outbox
from homebody.spec.events import Json
from homebody.storage import data_folder, migrations
from homebody.web import Application
from tests.client_server.test_appservices import BOT, Irc
from tests.conftest import PASSWORD, ROOT, V3, Login, MakeApp
from tests.helpers import bridge
from tests.helpers.bridge import AS_TOKEN

HOMEBODY = str(Path(sys.executable).parent / "homebody")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Where the commands find the same folder as the server of the fixture `app`."""
    return {"PATH": os.environ["PATH"], "HOMEBODY_DATA_DIR": str(tmp_path)} | {
        "HOMEBODY_PASSWORD_HASHING": "cheap"
    }


@pytest.fixture
def run(environ: dict[str, str]) -> Run:
    """`run("user", "list")`: what the command has said, as text, in the test's own process."""
    others = {key: None for key in os.environ if key.startswith("HOMEBODY_")}

    def call(*words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        given = {**others, **environ, **more}
        done = CliRunner().invoke(main, words, stdin, env=given, catch_exceptions=False)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return call


@pytest.fixture
def run_apart(environ: dict[str, str]) -> Run:
    """The same, in a process of its own."""

    def start(*words: str, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HOMEBODY, *words],
            input=stdin,
            env=environ | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return start


def said(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def log_in(client: FlaskClient, name: str, password: str) -> int:
    body = {"type": "m.login.password", "user": name, "password": password}
    return client.post(V3 + "login", json=body).status_code


def test_an_account_is_made_while_the_server_runs(app: Application, run_apart: Run) -> None:
    client = app.test_client()

    first = run_apart("user", "add", "alice", "--password-stdin", "--json", stdin=f"{PASSWORD}\n")
    second = run_apart("user", "add", "Bob", "--password-stdin", stdin=PASSWORD)

    made = said(first)
    assert (made["user_id"], made["is_admin"]) == ("@alice:localhost", True)
    assert second.stdout == "Created @bob:localhost\n"
    assert PASSWORD not in first.stdout + second.stdout + first.stderr + second.stderr
    assert log_in(client, "alice", PASSWORD) == 200
    assert log_in(client, "bob", PASSWORD) == 200
    assert client.get(V3 + "profile/@bob:localhost").get_json() == {"displayname": "bob"}


def test_a_new_server_is_made_when_that_is_asked_for(tmp_path: Path, run_apart: Run) -> None:
    folder = tmp_path / "new" / "data"

    made = run_apart("init", HOMEBODY_DATA_DIR=str(folder))
    again = run_apart("init", HOMEBODY_DATA_DIR=str(folder))
    done = run_apart("user", "add", "bot", "--no-password", HOMEBODY_DATA_DIR=str(folder))

    assert made.stdout == f"Created the server localhost in {folder}\n"
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == f"homebody: There is a server in {folder} already\n"
    assert done.stdout == "Created @bot:localhost, an administrator\n"
    assert folder.stat().st_mode & 0o077 == 0  # nobody else may look into it
    listed = said(run_apart("user", "list", "--json", HOMEBODY_DATA_DIR=str(folder)))
    assert [account["user_id"] for account in listed] == ["@bot:localhost"]


@pytest.mark.parametrize("is_there", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        ("user", "add", "bot", "--no-password"),
        ("user", "list"),
        ("token", "add"),
        ("reports", "list"),
        ("rooms", "list"),
        ("notice", "bot", "hello"),
        ("appservices", "list"),
        ("backup", "copy"),
    ],
)
def test_no_command_makes_a_server_where_it_finds_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    words: tuple[str, ...],
    *,
    is_there: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    if is_there:
        folder.mkdir()
        (folder / "homebody.db").touch()  # what `sqlite3 homebody.db` leaves behind
    before = sorted(tmp_path.rglob("*"))

    done = run(*words, HOMEBODY_DATA_DIR=str(folder))

    assert (done.returncode, done.stdout) == (1 if words[0] == "backup" else 2, "")
    assert done.stderr.startswith(f"homebody: There is no database {folder / 'homebody.db'}")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_may_have_any_name(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "odd ?x=%41#b=ü"
    url = f"sqlite:///{folder}/homebody.db"
    folder.mkdir()
    alembic = [sys.executable, "-m", "alembic", "-c", "alembic/alembic.ini", "-x", f"url={url}"]
    subprocess.run([*alembic, "upgrade", migrations.known()[-2]], cwd=ROOT, check=True)

    made = run("user", "add", "bot", "--no-password", HOMEBODY_DATA_DIR=str(folder))
    listed = run("user", "list", HOMEBODY_DATA_DIR=str(folder))

    assert made.stdout == "Created @bot:localhost, an administrator\n"
    assert listed.stdout.startswith("@bot:localhost ")
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    names = {path.name for path in folder.iterdir()}
    old = f"homebody.db.before-{migrations.known()[-2]}"
    assert names == {"homebody.db", "homebody.lock", "signing.key", old}


def test_a_command_migrates_the_database_of_the_folder_in_which_it_is_typed(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    url = f"sqlite:///{tmp_path}/data/homebody.db"
    steps = migrations.known()
    alembic = [sys.executable, "-m", "alembic", "-c", "alembic/alembic.ini", "-x", f"url={url}"]
    (tmp_path / "data").mkdir()
    subprocess.run([*alembic, "upgrade", steps[-2]], cwd=ROOT, env=environ, check=True)

    done = subprocess.run(
        [HOMEBODY, "user", "list"],
        cwd=tmp_path,
        env=environ | {"HOMEBODY_DATA_DIR": "data"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert migrations.current(url) == steps[-1]


def test_nobody_migrates_by_hand_under_a_running_server(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    lock = data_folder.lock_data_dir(tmp_path)  # as a server does that runs

    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", "alembic/alembic.ini", "upgrade", "head"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(lock)

    assert done.returncode == 1
    assert f"Another homebody is running on the data folder {tmp_path}" in done.stderr
    assert not (tmp_path / "homebody.db").exists()


@pytest.mark.usefixtures("app")
def test_a_password_is_asked_for_twice_and_never_shown(environ: dict[str, str]) -> None:
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        [HOMEBODY, "user", "add", "alice"],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        start_new_session=True,  # no controlling terminal: it has to take the one of stdin
    ) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        for question in (b"Password: ", b"Repeat for confirmation: "):
            asked = b""
            while not asked.endswith(question):
                letter = process.stderr.read(1)
                assert letter, asked
                asked += letter
            os.write(ours, PASSWORD.encode() + b"\n")
        shown = process.stdout.read() + process.stderr.read()
    if select.select([ours], [], [], 0)[0]:  # the terminal's echo: the ends of lines, or nothing
        shown += os.read(ours, 1000)
    os.close(ours)
    os.close(terminal)

    assert process.returncode == 0
    assert b"Created @alice:localhost" in shown
    assert PASSWORD.encode() not in shown


def test_a_new_password_counts_at_once_and_ends_all_sessions(
    app: Application, client: FlaskClient, login: Login, run: Run
) -> None:
    alice = login("alice")
    assert alice.get("account/whoami").status_code == 200

    done = run("user", "passwd", "alice", "--password-stdin", stdin="another one\n")
    app.homeserver.database.notice_other_writers()  # as the server does twice a second

    assert done.stdout == "Changed the password of @alice:localhost\n"
    assert alice.get("account/whoami").status_code == 401
    assert log_in(client, "alice", PASSWORD) == 403
    assert log_in(client, "alice", "another one") == 200


def test_sessions_may_outlive_the_password(app: Application, login: Login, run: Run) -> None:
    alice = login("alice")

    run("user", "passwd", "alice", "--keep-sessions", "--password-stdin", stdin="another one\n")
    app.homeserver.database.notice_other_writers()

    assert alice.get("account/whoami").status_code == 200


def test_a_deactivated_account_is_closed_and_says_so_in_the_list(
    app: Application, client: FlaskClient, login: Login, run: Run
) -> None:
    alice = login("alice")
    login("bob")

    unsure = run("user", "deactivate", "bob", stdin="n\n")
    done = run("user", "deactivate", "bob", "--yes")
    again = run("user", "deactivate", "bob", "--yes")
    listed = run("user", "list")

    app.homeserver.database.notice_other_writers()
    assert unsure.returncode == 1
    assert done.stdout == "Deactivated @bob:localhost\n"
    assert (again.returncode, again.stderr) == (1, "homebody: This account has been deactivated\n")
    assert log_in(client, "bob", PASSWORD) == 403
    assert alice.get("account/whoami").status_code == 200
    lines = [line.split() for line in listed.stdout.splitlines()]
    assert [(line[0], line[2:]) for line in lines] == [
        ("@alice:localhost", ["admin"]),
        ("@bob:localhost", ["deactivated"]),
    ]


def test_a_registration_token_is_made_listed_and_revoked(app: Application, run: Run) -> None:
    validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
    client = app.test_client()

    word = run("token", "add").stdout.strip()
    made = said(run("token", "add", "--token", "kin", "--uses", "5", "--lifetime", "7 d", "--json"))
    listed = run("token", "list").stdout
    was_valid = client.get(validity + word).get_json()["valid"]
    revoked = run("token", "revoke", word)

    assert made["uses_allowed"] == 5
    assert made["expires_ts"] - made["created_ts"] == 7 * 86_400_000
    assert f"{word}  used 0 of any number\n" in listed
    assert "kin  used 0 of 5, until 20" in listed
    assert was_valid is True
    assert revoked.returncode == 0
    assert client.get(validity + word).get_json()["valid"] is False
    assert [row["token"] for row in said(run("token", "list", "--json"))] == ["kin"]


def test_the_owner_sees_how_a_bridge_is_and_skips_what_it_refuses(
    make_app: MakeApp, tmp_path: Path, run: Run
) -> None:
    files = f'["{bridge.write(tmp_path, bridge.registration("http://127.0.0.1:9"))}"]'
    app = make_app(appservices=files)
    irc = Irc(app.test_client(), BOT, AS_TOKEN, "")
    room_id = irc.create_room()
    of_room = said(run("appservices", "list", "--json", HOMEBODY_APPSERVICES=files))[0]["waiting"]
    with app.homeserver.database.write() as tx:
        outbox.record_failure(
            tx, outbox.first(tx, "appservice", "irc", 50), 0, "irc answers with 400"
        )
    message = irc.send(room_id)

    listed = run("appservices", "list", HOMEBODY_APPSERVICES=files).stdout
    (described,) = said(run("appservices", "list", "--json", HOMEBODY_APPSERVICES=files))
    skipped = run("appservices", "skip", "irc", HOMEBODY_APPSERVICES=files)
    again = run("appservices", "skip", "irc", HOMEBODY_APPSERVICES=files)

    assert listed.startswith(
        f"irc  http://127.0.0.1:9  {of_room + 1} waiting, refused once since 2"
    )
    assert listed.endswith(": irc answers with 400\n")
    assert (described["waiting"], described["tries"]) == (of_room + 1, 1)
    assert described["problem"] == "irc answers with 400"
    first, *event_ids = skipped.stdout.splitlines()
    assert first == f"Skipped {of_room} events for irc; 1 are waiting"
    assert len(event_ids) == of_room
    assert message not in event_ids
    assert (again.returncode, again.stderr) == (1, "homebody: irc has not refused a transaction\n")
    (entry,) = said(run("audit", "--json"))
    assert (entry["action"], entry["subject"]) == ("appservice.skip", "irc")


@pytest.mark.usefixtures("app")
def test_without_bridges_there_is_nothing_to_list_or_to_skip(run: Run) -> None:
    listed = run("appservices", "list")
    skipped = run("appservices", "skip", "irc")

    assert (listed.returncode, listed.stdout) == (0, "")
    assert (skipped.returncode, skipped.stderr) == (
        1,
        "homebody: irc has not refused a transaction\n",
    )


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("user", "add", "Not A Name"), "homebody: A user name consists of a to z"),
        (("user", "add", "alice"), "homebody: stdin is not a terminal"),
        (("user", "add", "alice", "--password-stdin"), "homebody: The password is empty"),
        (("user", "passwd", "nobody"), "homebody: There is no user nobody"),
        (("token", "add", "--token", "two words"), "homebody: A registration token must have"),
        (("token", "revoke", "unknown"), "homebody: There is no such registration token"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, words: tuple[str, ...], line: str) -> None:
    done = run(*words)

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [("add", "bob"), ("passwd", "alice")])
def test_a_short_password_is_refused(app: Application, run: Run, words: tuple[str, ...]) -> None:
    run("user", "add", "alice", "--password-stdin", stdin=PASSWORD)

    done = run("user", *words, "--password-stdin", stdin="1234567\n")

    assert done.returncode == 1
    assert done.stderr == "homebody: The password has fewer than 8 characters\n"
    app.homeserver.database.notice_other_writers()
    assert log_in(app.test_client(), "alice", PASSWORD) == 200


def commands(
    group: click.Group, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command, with the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


def test_every_command_but_serve_can_speak_json() -> None:
    options = {words: {it.name for it in command.params} for words, command in commands(main)}

    assert len(options) > 15
    assert {words for words, names in options.items() if "is_json" not in names} == {("serve",)}


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("words", "exit_code", "error"),
    [
        (
            ("user", "passwd", "nobody", "--password-stdin"),
            1,
            {"errcode": "M_NOT_FOUND", "error": "There is no user nobody"},
        ),
        (
            ("token", "revoke", "unknown"),
            1,
            {"errcode": "M_NOT_FOUND", "error": "There is no such registration token"},
        ),
        (("user", "add", "alice"), 1, {"error": "stdin is not a terminal: use"}),
        (("backup", "{data}"), 1, {"error": "{data} is the data folder itself"}),
        (("restore", "{data}/no"), 1, {"error": "There is no backup in {data}/no"}),
        (("--config", "{data}/no", "user", "list"), 2, {"error": "{data}/no: cannot be read"}),
        (("user", "lst"), 2, {"error": "No such command 'lst'."}),
        (("user", "list", "--all"), 2, {"error": "No such option '--all'."}),
        (("--all", "user", "list"), 2, {"error": "No such option '--all'."}),
        (("token", "add", "--lifetime", "long"), 2, {"error": "--lifetime must be"}),
        (
            ("token", "add", "--lifetime", "7"),
            2,
            {"error": '--lifetime needs a unit, such as "7 d"'},
        ),
        (
            ("rooms", "purge-history", "!a:localhost", "--older-than", "7"),
            2,
            {"error": '--older-than needs a unit, such as "7 d"'},
        ),
        (("trace", "bob", "--for", "7"), 2, {"error": '--for needs a unit, such as "7 d"'}),
        (("backup", "/dev/null/x"), 1, {"error": "/dev/null: File exists"}),
        (("user", "deactivate", "bob"), 1, {"error": "Aborted"}),
    ],
)
def test_for_scripts_what_is_wrong_is_json_too(
    tmp_path: Path, login: Login, run: Run, words: tuple[str, ...], exit_code: int, error: Json
) -> None:
    login("bob")

    done = run(*(it.format(data=tmp_path) for it in words), "--json")

    assert (done.returncode, done.stdout) == (exit_code, "")
    found = json.loads(done.stderr.removeprefix("Deactivate @bob:localhost? [y/N]: "))
    assert found.keys() == error.keys()
    assert found.get("errcode") == error.get("errcode")
    assert found["error"].startswith(error["error"].format(data=tmp_path))


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("is_json", [False, True])
def test_what_the_database_refuses_is_said_in_one_line(
    tmp_path: Path, run_apart: Run, is_json: bool
) -> None:
    run_apart("user", "add", "alice", "--no-password")
    other = sqlite3.connect(tmp_path / "homebody.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    done = run_apart("user", "add", "bob", "--no-password", *(["--json"] if is_json else []))
    other.close()

    reason = "The server cannot write at the moment: database is locked"
    assert (done.returncode, done.stdout) == (1, "")
    if is_json:
        assert json.loads(done.stderr) == {"errcode": "M_UNKNOWN", "error": reason}
    else:
        assert done.stderr == f"homebody: {reason}\n"


def test_nobody_has_to_read_all_of_an_output(environ: dict[str, str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [HOMEBODY, "config"],
        env=environ,
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (1, b"")


def test_what_is_done_is_said_to_scripts(app: Application, login: Login, run: Run) -> None:
    bob = login("bob")
    run("token", "add", "--token", "kin")
    app.homeserver.database.notice_other_writers()
    room_id = bob.create_room()
    bob.post(f"rooms/{room_id}/report", json={"reason": "noise"})

    settings = said(run("config", "--json", HOMEBODY_REGISTRATION_SHARED_SECRET="s3cret"))
    removed = said(run("reports", "remove", "1", "--json"))
    revoked = said(run("token", "revoke", "kin", "--json"))
    noticed = said(run("notice", "bob", "hi", "--json", HOMEBODY_SERVER_NOTICES_USER="server"))
    changed = said(run("user", "passwd", "bob", "--password-stdin", "--json", stdin=PASSWORD))
    closed = said(run("user", "deactivate", "bob", "--yes", "--json"))

    assert settings["server_name"] == "localhost"
    assert settings["rc_login"]["address"]["burst_count"] == 30
    assert settings["registration_shared_secret"] == "(not shown)"
    assert (removed, revoked) == ({"id": 1}, {"token": "kin"})
    assert noticed.pop("event_id").startswith("$")
    assert noticed == changed == closed == {"user_id": "@bob:localhost"}


@pytest.mark.usefixtures("app")
def test_a_new_user_may_be_named_by_a_user_id(run: Run) -> None:
    made = run("user", "add", "@alice:localhost", "--no-password")
    elsewhere = run("user", "add", "@bob:example.org", "--no-password")
    without_server = run("user", "add", "@bob", "--no-password")

    assert made.stdout == "Created @alice:localhost, an administrator\n"
    assert (elsewhere.returncode, without_server.returncode) == (1, 1)
    assert elsewhere.stderr == (
        "homebody: @bob:example.org is not of this server, which is localhost\n"
    )


def test_the_settings_in_force_are_printed_without_secrets(run_apart: Run) -> None:
    done = run_apart("config", HOMEBODY_REGISTRATION_SHARED_SECRET="s3cret")

    assert done.returncode == 0
    assert 'server_name = "localhost"' in done.stdout
    assert "s3cret" not in done.stdout


def test_a_wrong_configuration_is_one_line_and_exit_code_2(tmp_path: Path, run_apart: Run) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('server_nam = "example.org"\n')

    done = run_apart("--config", str(file), "user", "list")

    assert done.returncode == 2
    assert done.stderr.startswith("homebody: ")
    assert "server_name" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_database_is_one_line(tmp_path: Path, run_apart: Run) -> None:
    (tmp_path / "homebody.db").write_text("this is no database, but long enough to be looked at")

    done = run_apart("user", "list")

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "file is not a database" in done.stderr


def test_help_names_all_commands(run_apart: Run) -> None:
    done = run_apart("--help")

    for command in ("appservices", "config", "token", "user"):
        assert f"\n  {command} " in done.stdout
