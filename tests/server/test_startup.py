"""What keeps the server from starting: one clear line, exit code 2, and nothing is left behind."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from homebody.config import settings as config
from homebody.core import server_key
from homebody.server import startup
from tests.helpers import bridge
from tests.helpers import server as real_server
from tests.helpers.live import Person

HOMEBODY = Path(sys.executable).parent / "homebody"
GUNICORN = str(Path(sys.executable).parent / "gunicorn")


def complaint(data_dir: Path, **settings: str) -> str:
    """What a server that refuses to start says: the one line after `homebody: `."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    settings = {"data_dir": str(data_dir), "bind": "127.0.0.1:0", **settings}
    environ |= {f"HOMEBODY_{key.upper()}": value for key, value in settings.items()}
    done = subprocess.run(
        [HOMEBODY, "serve"],
        cwd=real_server.ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    prefix, _, sentence = lines[0].partition(": ")
    assert prefix == "homebody"
    return sentence


def put_database(data_dir: Path, empty_database: Path, *, migration: str) -> None:
    """A database that says it has come as far as this migration."""
    shutil.copy(empty_database, data_dir / "homebody.db")
    with sqlite3.connect(data_dir / "homebody.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (migration,))
    connection.close()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"

        sentence = complaint(tmp_path, bind=address)

    assert sentence == f"Can't listen on {address}: Address already in use"


def test_a_second_server_on_the_same_folder(tmp_path: Path) -> None:
    first = real_server.start(tmp_path)
    try:
        sentence = complaint(tmp_path)
    finally:
        first.stop()

    assert sentence == f"Another homebody is running on the data folder {tmp_path}"
    assert first.process.returncode == 0


@pytest.mark.parametrize("name", ["homebody.db", "other.db"])
def test_a_second_server_on_the_same_database(tmp_path: Path, name: str) -> None:
    (tmp_path / "first").mkdir()
    database = tmp_path / "first" / "homebody.db"
    if name == "other.db":  # in a folder that is nobody's data folder
        database = tmp_path / name
    first = real_server.start(tmp_path / "first", database_url=f"sqlite:///{database}")
    try:
        sentence = complaint(tmp_path / "second", database_url=f"sqlite:///{database}")
    finally:
        first.stop()

    assert sentence == f"The database {database} can't be used: another homebody uses it"


def test_a_server_that_was_killed_does_not_keep_the_next_one_out(tmp_path: Path) -> None:
    first = real_server.start(tmp_path)
    first.kill()

    second = real_server.start(tmp_path)
    second.stop()

    assert (first.process.returncode, second.process.returncode) == (-signal.SIGKILL, 0)


def test_relative_paths_are_those_of_the_folder_in_which_it_was_started(tmp_path: Path) -> None:
    data_dir = tmp_path / "srv" / "data"
    data_dir.mkdir(parents=True)
    here = tmp_path / "here"
    (here / "bridges").mkdir(parents=True)
    bridge.write(here / "bridges", bridge.registration(None))
    (here / "mine.toml").write_text('data_dir = "../srv/data"\nappservices = ["bridges/*.yaml"]\n')

    running = real_server.start_in(here, data_dir, config="mine.toml")
    listed = subprocess.run(
        [HOMEBODY, "--config", "mine.toml", "appservices", "list"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    running.stop()

    assert (data_dir / "homebody.db").exists()
    assert {path.name for path in here.iterdir()} == {"bridges", "mine.toml"}
    assert listed.stdout.startswith("irc  no URL"), listed.stderr


def other_program(folder: Path) -> Path:
    """Return a working folder whose modules are called like some of the server's."""
    package = folder / Path(startup.__file__).parents[1].name
    package.mkdir(parents=True)
    for path in (package / "__init__.py", *(folder / f"{it}.py" for it in ("wsgi", "flask"))):
        path.write_text("raise SystemExit('this is another program')")
    return folder


def test_modules_in_the_working_folder_are_not_run(tmp_path: Path) -> None:
    here = other_program(tmp_path / "here")

    running = real_server.start_in(here, tmp_path)
    running.stop()

    assert running.process.returncode == 0
    assert "another program" not in running.output()


def test_nor_by_gunicorn_with_the_file_of_the_checkout(tmp_path: Path) -> None:
    here = other_program(tmp_path / "here")

    done = run_until_it_ends(tmp_path, "--check-config", "wsgi:app", cwd=here)

    assert done.returncode == 0, done.stderr
    assert "another program" not in done.stderr


# to root, as in CI, no folder is forbidden: a file in its place is
@pytest.mark.parametrize(("below", "reason"), [("", "File exists"), ("sub", "Not a directory")])
def test_a_data_folder_that_cannot_be_used(tmp_path: Path, below: str, reason: str) -> None:
    (tmp_path / "data").write_text("no folder")

    sentence = complaint(tmp_path / "data" / below)

    assert sentence == f"The data folder {tmp_path / 'data' / below} can't be used: {reason}"


def test_a_wrong_key_in_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "homebody.toml").write_text('presence = true\nregistraton = "open"\n')

    sentence = complaint(tmp_path)

    file = tmp_path / "homebody.toml"
    assert sentence == f"{file}:2: registraton: no such key; did you mean registration?"
    assert [path.name for path in tmp_path.iterdir()] == ["homebody.toml"]


def test_a_wrong_value_in_the_environment(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, max_upload_bytes="plenty")

    assert sentence.startswith("environment HOMEBODY_MAX_UPLOAD_BYTES: must be ")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_a_newer_homebody(tmp_path: Path, empty_database: Path) -> None:
    put_database(tmp_path, empty_database, migration="9999")

    sentence = complaint(tmp_path)

    assert sentence.startswith("The database is of a newer homebody (migration 9999; this one ")


def test_a_database_of_another_program(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "homebody.db") as connection:
        connection.execute("CREATE TABLE accounts (user_id TEXT)")
    connection.close()

    sentence = complaint(tmp_path)

    assert sentence == f"The database {tmp_path / 'homebody.db'} is not one of homebody"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "homebody.db").write_text("a shopping list, long enough to be taken for a header")

    sentence = complaint(tmp_path)

    database = tmp_path / "homebody.db"
    assert sentence.startswith(f"The database {database} is damaged (file is not a database): ")


def test_a_database_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    sentence = complaint(tmp_path, database_url=f"sqlite:///{tmp_path}/elsewhere/homebody.db")

    assert sentence == f"The database can't be made: there is no folder {tmp_path / 'elsewhere'}"


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / "homebody.db").mkdir()

    sentence = complaint(tmp_path)

    assert sentence.startswith(f"The database {tmp_path}/homebody.db can't be read: ")


# to root, as in CI, no folder is forbidden: a file in its place is
@pytest.mark.parametrize("name", ["media", "media/incoming", "media/files"])
def test_a_folder_for_media_that_cannot_be_used(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("no folder")

    sentence = complaint(tmp_path)

    assert sentence.startswith(f"The folder {path} can't be used: ")


def test_a_migration_that_fails(tmp_path: Path, empty_database: Path) -> None:
    put_database(tmp_path, empty_database, migration="0001")

    sentence = complaint(tmp_path)

    assert sentence.startswith("The database could not be brought up to date: ")
    assert "already exists" in sentence


def test_another_server_name_than_that_of_the_accounts(
    tmp_path: Path, empty_database: Path
) -> None:
    shutil.copy(empty_database, tmp_path / "homebody.db")
    with sqlite3.connect(tmp_path / "homebody.db") as connection:
        columns = "user_id, created_ts, is_admin, is_guest, is_locked, is_suspended"
        account = "'@alice:localhost', 0, 0, 0, 0, 0"
        connection.execute(f"INSERT INTO accounts ({columns}) VALUES ({account})")  # noqa: S608 - ours
    connection.close()

    sentence = complaint(tmp_path, server_name="example.org")

    assert sentence.startswith(
        "server_name is example.org, but the accounts in the database are of"
    )
    assert sentence.endswith(f"To start over without them, move the data folder {tmp_path} away")


def test_a_signing_key_comes_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.load(None, {}, {"data_dir": str(tmp_path)})

    def cut(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", cut)
        with pytest.raises(config.ConfigError, match="can't be used"):
            server_key.load_or_create(settings)

    assert not settings.signing_key_path.exists()
    made = server_key.load_or_create(settings)
    assert server_key.load_or_create(settings).to_text() == made.to_text()
    assert [path.name for path in tmp_path.iterdir()] == [settings.signing_key_path.name]


@pytest.mark.parametrize("is_folder", [False, True])
def test_a_signing_key_that_is_none(tmp_path: Path, is_folder: bool) -> None:
    key = tmp_path / "signing.key"
    if is_folder:
        key.mkdir()
    else:
        key.write_text("the key under the mat")

    sentence = complaint(tmp_path)

    reason = (
        "can't be used: Is a directory" if is_folder else "is damaged: A signing key is written as"
    )
    assert sentence.startswith(f"The signing key {key} {reason}")


def run_until_it_ends(
    data_dir: Path, *arguments: str, cwd: Path = real_server.ROOT
) -> subprocess.CompletedProcess[str]:
    """What gunicorn's master says and does with these arguments, which let it not serve."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= {"HOMEBODY_DATA_DIR": str(data_dir), "HOMEBODY_BIND": "127.0.0.1:0"}
    return subprocess.run(
        [GUNICORN, "-c", str(real_server.ROOT / "gunicorn.conf.py"), *arguments],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_worker_that_ends_before_it_serves_is_not_started_again(tmp_path: Path) -> None:
    done = run_until_it_ends(
        tmp_path, "--worker-class", "tests.helpers.broken_worker.Worker", "wsgi:app"
    )

    assert done.returncode == 1
    assert done.stderr.count("RuntimeError: can't start new thread\n") == 1
    assert done.stderr.endswith("Reason: the server can't start; the lines above say why\n")


def test_what_keeps_a_worker_from_loading_is_one_line(tmp_path: Path) -> None:
    done = run_until_it_ends(tmp_path, "tests.helpers.broken_worker:make_app()")

    assert done.returncode == 3
    assert done.stderr.count("homebody can't start: The signing key has gone\n") == 1
    assert "Traceback" not in done.stderr


def test_the_log_says_where_the_server_is_before_anybody_registers(tmp_path: Path) -> None:
    settings = {"bind": "127.0.0.1:0", "server_name": "example.org", "log_level": "INFO"}
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= {f"HOMEBODY_{key.upper()}": value for key, value in settings.items()}
    environ["HOMEBODY_DATA_DIR"] = str(tmp_path)
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([HOMEBODY, "serve"], env=environ, stderr=output)
    try:
        until = time.monotonic() + real_server.START_SECONDS
        while "no accounts yet" not in log.read_text() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        process.terminate()
        process.wait(real_server.STOP_SECONDS)
    lines = log.read_text().splitlines()[1:]  # the first says that the server is new

    found = re.search(
        r"serves example\.org on 127\.0\.0\.1:(\d+), and sends clients to"
        r" https://example\.org \(public_url\)$",
        lines[0],
    )
    assert found is not None, lines
    assert int(found[1]) > 0
    assert "no accounts yet. Once there are, server_name can't change from example.org" in lines[1]
    assert f"set it in {tmp_path}/homebody.toml now" in lines[1]


def test_the_log_names_the_configuration_that_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("")
    (tmp_path / "data").mkdir()

    real_server.start(tmp_path / "data", config=str(file), log_level="INFO").stop()

    assert f"set it in {file} now" in (tmp_path / "data" / "server.log").read_text()


def test_a_signing_key_that_was_lost_is_in_the_log(tmp_path: Path) -> None:
    running = real_server.start(tmp_path)
    Person(running, "alice").close()
    running.stop()
    before = (tmp_path / "server.log").read_text()
    (tmp_path / "signing.key").unlink()

    real_server.start(tmp_path).stop()

    assert "There is no signing key" not in before
    assert f"There is no signing key {tmp_path}/signing.key although the server has accounts" in (
        tmp_path / "server.log"
    ).read_text().removeprefix(before)


def test_with_accounts_the_log_does_not_speak_of_the_name(tmp_path: Path) -> None:
    real_server.start(tmp_path, log_level="INFO").stop()
    first = (tmp_path / "server.log").read_text()
    running = real_server.start(tmp_path, log_level="INFO")
    Person(running, "alice").close()
    running.stop()
    (tmp_path / "server.log").unlink()

    real_server.start(tmp_path, log_level="INFO").stop()

    assert "There are no accounts yet" in first
    assert "There are no accounts yet" not in (tmp_path / "server.log").read_text()


def test_no_module_changes_or_assumes_the_working_folder() -> None:
    modules = Path(startup.__file__).parents[1].rglob("*.py")

    wrong = {path.name for path in modules if re.search(r"\bchdir\b|\bcwd\b", path.read_text())}

    assert wrong == set()
