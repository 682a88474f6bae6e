"""The wheel and the sdist, each in an empty environment, run from an empty folder.

`make dist` builds them; `make wheel` does so and runs these tests.
"""

from __future__ import annotations

import configparser
import hashlib
import http.client
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from tests.helpers.encryption import Identity, public, signing_key
from tests.helpers.server import ROOT, RunningServer, free_port, wait_until_it_answers

pytestmark = [pytest.mark.wheel, pytest.mark.timeout(600)]

OLD = ROOT / "tests" / "vectors" / "1e620a5"
OLD_TOKEN = "hb_mzMIepcpY21lUTqpggVTHWrcp9m7_QVr4L9_PLQglQM"
RECIPE = b"Boil water.\n"
V3 = "/_matrix/client/v3"
USERS = ["@alice:localhost", "@bob:localhost"]
Json = dict[str, Any]


class Installed:
    """An environment in which homebody is installed, and the folder where its commands run."""

    def __init__(self, bin_folder: Path, here: Path) -> None:
        self.bin = bin_folder
        self.here = here

    def environ(self, data_dir: Path | None = None, port: int = 0) -> dict[str, str]:
        """The environment of a command; without a data folder, it is `data` in the folder."""
        mine = {"HOMEBODY_PASSWORD_HASHING": "cheap", "HOMEBODY_BIND": f"127.0.0.1:{port}"}
        if data_dir is not None:
            mine["HOMEBODY_DATA_DIR"] = str(data_dir)
        return {**clean_environ(), **mine}

    def run(self, program: str, *words: str, data_dir: Path | None = None) -> str:
        """What a command prints that succeeds."""
        done = subprocess.run(
            [self.bin / program, *words],
            cwd=self.here,
            env=self.environ(data_dir),
            capture_output=True,
            text=True,
            input="wonderland-7\n",
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def serve(self, *command: str, data_dir: Path | None = None) -> RunningServer:
        """A server that this command has started, when it answers."""
        port = free_port()
        log = self.here / "server.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self.bin / command[0], *command[1:]],
                cwd=self.here,
                env=self.environ(data_dir, port),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = RunningServer(process, f"http://127.0.0.1:{port}", log)
        wait_until_it_answers(server)
        return server


def clean_environ() -> dict[str, str]:
    """The environment without what could lead to the checkout or to another server."""
    ours = ("HOMEBODY_", "PYTHON", "VIRTUAL_ENV", "PIP_")
    return {key: value for key, value in os.environ.items() if not key.startswith(ours)}


@pytest.fixture(scope="module", params=["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def bin_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the programs of a new environment are, with one of the two installed in it."""
    (file,) = (ROOT / "dist").glob(request.param)
    folder = tmp_path_factory.mktemp("environment")
    shutil.copy(ROOT / "constraints.txt", folder)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pinned = {f"PIP_{kind}": "constraints.txt" for kind in ("CONSTRAINT", "BUILD_CONSTRAINT")}
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", str(file)],
        cwd=folder,
        env={**clean_environ(), **pinned},
        check=True,
    )
    return folder / "venv" / "bin"


@pytest.fixture
def installed(bin_folder: Path, tmp_path: Path) -> Installed:
    """The environment, and an empty folder to work in."""
    return Installed(bin_folder, tmp_path)


Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(installed: Installed) -> Iterator[Serve]:
    """Start servers that end with the test."""
    running: list[RunningServer] = []

    def start(*command: str, data_dir: Path | None = None) -> RunningServer:
        running.append(installed.serve(*command, data_dir=data_dir))
        return running[-1]

    yield start
    for server in running:
        server.stop()


def raw(
    server: RunningServer, method: str, path: str, body: Any = None, token: str = ""
) -> tuple[int, bytes]:
    """(status, body) of the response to a request."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    with closing(connection):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read()


def ask(server: RunningServer, method: str, path: str, body: Any = None, token: str = "") -> Any:
    """The JSON of a request that succeeds."""
    status, content = raw(server, method, path, body, token)
    assert status == 200, content
    return json.loads(content)


def log_in(server: RunningServer, user: str) -> str:
    """The access token of a new device."""
    identifier = {"type": "m.id.user", "user": user}
    body = {"type": "m.login.password", "identifier": identifier, "password": "wonderland-7"}
    return str(ask(server, "POST", f"{V3}/login", body)["access_token"])


def test_the_command_and_the_module_print_the_version_of_setup_cfg(installed: Installed) -> None:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")

    said = [
        installed.run("homebody", "--version"),
        installed.run("python", "-m", "homebody", "--version"),
    ]

    assert said == [f"homebody, version {parser['metadata']['version']}\n"] * 2


def test_every_dependency_has_the_version_of_the_constraints(installed: Installed) -> None:
    found = set(installed.run("python", "-m", "pip", "freeze").splitlines())

    others = {line for line in found if not line.startswith("homebody ")}
    assert len(others) == len(found) - 1
    assert others <= set((ROOT / "constraints.txt").read_text("utf-8").splitlines())


def test_the_files_are_those_of_the_checkout(installed: Installed) -> None:
    code = "import homebody; print(*homebody.__path__)"
    folder = Path(installed.run("python", "-c", code).strip())

    def files(below: Path) -> dict[str, bytes]:
        found = (path for path in below.rglob("*") if path.is_file())
        return {
            path.relative_to(below).as_posix(): path.read_bytes()
            for path in found
            if path.suffix != ".pyc"
        }

    assert folder.is_relative_to(installed.bin.parent)
    assert files(folder) == files(ROOT / "app/homebody") | {
        f"migrations/{name}": content for name, content in files(ROOT / "alembic").items()
    }


def test_an_empty_folder_becomes_a_server(installed: Installed, serve: Serve) -> None:
    server = serve("homebody", "serve")
    installed.run("homebody", "user", "add", "alice", "--password-stdin")
    token = log_in(server, "alice")

    room_id = ask(server, "POST", f"{V3}/createRoom", {"name": "Kitchen"}, token)["room_id"]
    landing_page = raw(server, "GET", "/")
    server.stop()

    assert room_id in installed.run("python", "-m", "homebody", "rooms", "list")
    assert landing_page[0] == 200
    assert b"homebody" in landing_page[1]
    assert {path.name for path in installed.here.iterdir()} == {"data", "server.log"}


def test_gunicorn_serves_the_two_files_of_the_checkout(installed: Installed, serve: Serve) -> None:
    server = serve("gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "wsgi:app")

    assert "v1.1" in ask(server, "GET", "/_matrix/client/versions")["versions"]
    assert (installed.here / "data" / "homebody.db").exists()


def test_a_backup_is_restored_elsewhere(installed: Installed) -> None:
    installed.run("homebody", "init")
    installed.run("homebody", "user", "add", "alice", "--password-stdin")
    users = installed.run("homebody", "user", "list")

    installed.run("homebody", "backup", "saved")
    elsewhere = installed.here / "elsewhere"
    installed.run("homebody", "restore", "saved", data_dir=elsewhere)

    assert users.startswith("@alice:localhost")
    assert installed.run("homebody", "user", "list", data_dir=elsewhere) == users


@pytest.fixture
def old_data(installed: Installed) -> Path:
    """The data folder of a server of commit 1e620a5."""
    folder = installed.here / "old"
    sha256 = hashlib.sha256(RECIPE).hexdigest()
    file = folder / "media" / "files" / sha256[:2] / sha256[2:]
    file.parent.mkdir(parents=True)
    file.write_bytes(RECIPE)
    shutil.copy(OLD / "signing.key", folder)
    with closing(sqlite3.connect(folder / "homebody.db")) as connection:
        connection.executescript((OLD / "homebody.sql").read_text("utf-8"))
    return folder


def revision(data_dir: Path) -> str:
    """The migration that a database has come to."""
    with closing(sqlite3.connect(data_dir / "homebody.db")) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


NEWEST = max(path.name[:4] for path in (ROOT / "alembic" / "versions").glob("[0-9]*.py"))


def test_a_command_brings_an_old_database_up_to_date(installed: Installed, old_data: Path) -> None:
    before = revision(old_data)

    listed = installed.run("homebody", "user", "list", "--json", data_dir=old_data)

    assert (before, revision(old_data)) == ("0012", NEWEST)
    assert [user["user_id"] for user in json.loads(listed)] == USERS


def test_a_backup_of_an_old_server_is_restored_and_brought_up_to_date(
    installed: Installed, old_data: Path
) -> None:
    installed.run("homebody", "backup", "saved", data_dir=old_data)

    installed.run("homebody", "restore", "saved", data_dir=installed.here / "elsewhere")

    restored = installed.here / "elsewhere"
    assert (revision(old_data), revision(restored)) == ("0012", NEWEST)
    assert [path.read_bytes() for path in (restored / "media/files").glob("*/*")] == [RECIPE]


def test_an_old_server_goes_on_with_all_that_it_had(serve: Serve, old_data: Path) -> None:
    server = serve("homebody", "serve", data_dir=old_data)

    synced = ask(server, "GET", f"{V3}/sync", token=OLD_TOKEN)
    token = log_in(server, "alice")

    rooms = synced["rooms"]["join"]
    names = {
        event["content"]["name"]: room_id
        for room_id, room in rooms.items()
        for event in room["state"]["events"] + room["timeline"]["events"]
        if event["type"] == "m.room.name"
    }
    assert names.keys() == {"Kitchen", "Secret"}
    assert revision(old_data) == NEWEST
    check_kitchen(server, token, names["Kitchen"])
    check_secret(server, token, names["Secret"])
    check_keys(server, token)
    account_data = f"{V3}/user/@alice:localhost/account_data"
    colour = ask(server, "GET", f"{account_data}/org.example.colour", None, token)
    assert colour == {"colour": "blue"}


def check_kitchen(server: RunningServer, token: str, room_id: str) -> None:
    """Messages with what relates to them, the file, and that words are found."""
    room = f"{V3}/rooms/{quote(room_id)}"
    chunk = ask(server, "GET", f"{room}/messages?dir=f&limit=100", None, token)["chunk"]
    tea = next(event for event in chunk if event["content"].get("body") == "Tea?")
    relations = tea["unsigned"]["m.relations"]
    assert relations["m.replace"]["content"]["m.new_content"]["body"] == "Tea or coffee?"
    assert relations["m.thread"]["latest_event"]["content"]["body"] == "Coffee, please"
    assert relations["m.thread"]["count"] == 1  # the other reply was redacted
    file = next(event for event in chunk if event["content"].get("msgtype") == "m.file")
    path = f"/_matrix/client/v1/media/download/{file['content']['url'].removeprefix('mxc://')}"
    assert raw(server, "GET", path, None, token) == (200, RECIPE)
    search = {"search_categories": {"room_events": {"search_term": "coffee"}}}
    found = ask(server, "POST", f"{V3}/search", search, token)
    assert found["search_categories"]["room_events"]["count"] == 2
    said = {"msgtype": "m.text", "body": "Still here"}
    ask(server, "PUT", f"{room}/send/m.room.message/new", said, token)


def check_secret(server: RunningServer, token: str, room_id: str) -> None:
    """The encrypted room, which Bob has left, and the backup of its keys."""
    room = f"{V3}/rooms/{quote(room_id)}"
    members = ask(server, "GET", f"{room}/joined_members", None, token)["joined"]
    chunk = ask(server, "GET", f"{room}/messages?dir=b&limit=100", None, token)["chunk"]
    assert members.keys() == {"@alice:localhost"}
    encrypted = [event["content"] for event in chunk if event["type"] == "m.room.encrypted"]
    assert [content["session_id"] for content in encrypted] == ["s1"]
    backup = ask(server, "GET", f"{V3}/room_keys/version", None, token)
    keys = ask(server, "GET", f"{V3}/room_keys/keys?version={backup['version']}", None, token)
    assert (backup["count"], list(keys["rooms"][room_id]["sessions"])) == (1, ["s1"])


def check_keys(server: RunningServer, token: str) -> None:
    """Device keys, cross-signing keys, and a one-time key that is given out once."""
    query: Json = {"device_keys": {"@alice:localhost": [], "@bob:localhost": []}}
    keys = ask(server, "POST", f"{V3}/keys/query", query, token)
    bob = keys["device_keys"]["@bob:localhost"]["BOB"]
    assert bob["keys"]["ed25519:BOB"] == public(signing_key("device @bob:localhost BOB"))
    master = Identity("@alice:localhost").public("master")
    assert keys["master_keys"]["@alice:localhost"]["keys"] == {f"ed25519:{master}": master}
    claim = {"one_time_keys": {"@bob:localhost": {"BOB": "signed_curve25519"}}}
    claimed = [ask(server, "POST", f"{V3}/keys/claim", claim, token) for _ in range(2)]
    assert [it["one_time_keys"] != {} for it in claimed] == [True, False]
