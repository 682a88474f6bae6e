"""A server in the test's own process, on a real database, and users who talk to it."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import logging
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from hypothesis import settings
from werkzeug.test import TestResponse

from homebody.application import create_app
from homebody.config import settings as config
from homebody.core import server_key
from homebody.storage import migrations
from homebody.storage.statements import Result, Sql
from homebody.web import Application
from tests.helpers import certificates, routes
from tests.helpers import network as networks
from tests.helpers import remote as remotes
from tests.helpers.network import Network
from tests.helpers.remote import Remotes

ROOT = Path(__file__).parents[1]
V3 = "/_matrix/client/v3/"
PASSWORD = "correct horse battery staple"

# The same examples in every run, so that no commit fails by chance, and no deadline, as machines
# that test are busy with other things. --hypothesis-profile=explore looks for more, and `make fuzz`
# for as many as it has time for.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.register_profile("big", deadline=None, max_examples=1000, print_blob=True)
settings.register_profile("courses", deadline=None, max_examples=10_000, print_blob=True)
settings.load_profile("repeatable")


def pytest_configure() -> None:
    """Let SIGINT end what tests start, also if a shell runs pytest in the background: it has SIGINT
    ignored then, and so would all processes that it starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over what stays to the end, and come less often.

    It went through all of Flask, SQLAlchemy and thousands of tests again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run each test that is a coroutine in an event loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


class Person:
    """A registered user with one device: requests go out with its access token.

    Paths are taken below /_matrix/client/v3/ unless they begin with a slash.
    """

    _transactions = itertools.count()

    def __init__(
        self, client: FlaskClient, user_id: str, access_token: str, device_id: str
    ) -> None:
        self.client = client
        self.user_id = user_id
        self.access_token = access_token
        self.device_id = device_id

    def request(self, method: str, path: str, **kwargs: Any) -> TestResponse:
        """One request with the person's token."""
        headers = {"Authorization": f"Bearer {self.access_token}", **kwargs.pop("headers", {})}
        url = path if path.startswith("/") else V3 + path
        return self.client.open(url, method=method, headers=headers, **kwargs)

    def get(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("GET", path, **kwargs)

    def put(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("PUT", path, **kwargs)

    def post(self, path: str, **kwargs: Any) -> TestResponse:
        kwargs.setdefault("json", {})
        return self.request("POST", path, **kwargs)

    def delete(self, path: str, **kwargs: Any) -> TestResponse:
        return self.request("DELETE", path, **kwargs)

    def create_room(self, **body: Any) -> str:
        """The id of a new room."""
        answer = self.post("createRoom", json=body)
        assert answer.status_code == 200, answer.get_json()
        return str(answer.get_json()["room_id"])

    def send(self, room_id: str, body: str = "hello", **content: Any) -> str:
        """The id of a message that was sent."""
        path = f"rooms/{quote(room_id)}/send/m.room.message/t{next(self._transactions)}"
        answer = self.put(path, json={"msgtype": "m.text", "body": body, **content})
        assert answer.status_code == 200, answer.get_json()
        return str(answer.get_json()["event_id"])

    def set_state(
        self, room_id: str, event_type: str, content: dict[str, Any], state_key: str = ""
    ) -> TestResponse:
        """Set an entry of a room's state."""
        path = f"rooms/{quote(room_id)}/state/{event_type}/{quote(state_key, safe='')}"
        return self.put(path, json=content)

    def sync(self, since: str | None = None, timeout: int = 0, **query: Any) -> dict[str, Any]:
        """The answer of /sync."""
        query |= {"timeout": timeout} | ({"since": since} if since else {})
        answer = self.get("sync", query_string=query)
        assert answer.status_code == 200, answer.get_json()
        body: dict[str, Any] = answer.get_json()
        return body


Login = Callable[[str], Person]
MakeApp = Callable[..., Application]


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database, to copy."""
    path = tmp_path_factory.mktemp("template") / "homebody.db"
    migrations.create(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # as a server would, and wait for the disk
    return path


@pytest.fixture(scope="session")
def signing_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a signing key, to copy."""
    folder = tmp_path_factory.mktemp("key")
    server_key.load_or_create(config.load(None, {}, {"data_dir": str(folder)}))
    return folder / config.SIGNING_KEY_NAME


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A new data folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def stopped(data_dir: Path, empty_database: Path) -> Path:
    """The data folder of a server that does not run."""
    shutil.copy(empty_database, data_dir / "homebody.db")
    (data_dir / "signing.key").write_text("ed25519 a_0001 " + "A" * 43 + "\n")
    return data_dir


@pytest.fixture(scope="session", autouse=True)
def _routes() -> Iterator[None]:
    with routes.shared():
        yield


@pytest.fixture
def make_app(tmp_path: Path, empty_database: Path, signing_key: Path) -> Iterator[MakeApp]:
    """Start a server with other settings, `make_app(registration="token")`, in the same folder."""
    started: list[Application] = []

    def make(**settings: str) -> Application:
        database = tmp_path / "homebody.db"
        if not database.exists():
            shutil.copy(empty_database, database)
            shutil.copy(signing_key, tmp_path)
        options = {
            "data_dir": str(tmp_path),
            "password_hashing": "cheap",
            "rate_limits": "false",
            **settings,
        }
        app = create_app(config.load(None, {}, options))
        # No test pulls the plug, and each COMMIT would wait some milliseconds for the disk
        app.homeserver.database.writer.raw.execute("PRAGMA synchronous = OFF")
        started.append(app)
        return app

    yield make
    for app in started:
        app.homeserver.ephemeral.close()
        app.homeserver.inbound.stop()
        app.homeserver.federation.close()
        app.homeserver.database.close()


@pytest.fixture(scope="session")
def ca_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authority that certifies the servers of the tests."""
    return certificates.write_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def remote(ca_file: Path) -> Iterator[Remotes]:
    """`remote()` or `remote("b.test")`: another server, scripted by the test.

    The fixture `app` then takes part in federation. For a server with other settings:
    `remote.talk_to(make_app(**remote.settings, …))`.
    """
    with remotes.running(str(ca_file)) as found:
        yield found


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The servers of `two_servers`, which take seconds to start."""
    with networks.running(tmp_path_factory.mktemp("network")) as found:
        yield found


@pytest.fixture
def two_servers(network: Network) -> Iterator[Network]:
    """Two real servers, `two_servers["a.test"]` and `["b.test"]`, and the links between them."""
    yield network
    network.tidy()


@pytest.fixture
def app(make_app: MakeApp, request: pytest.FixtureRequest) -> Application:
    """A server as it comes, but without rate limits and with quick password hashes."""
    if "remote" not in request.fixturenames:
        return make_app()
    found: Remotes = request.getfixturevalue("remote")
    app = make_app(**found.settings)
    found.talk_to(app)
    return app


@pytest.fixture
def client(app: Application) -> FlaskClient:
    """Somebody without an account."""
    return app.test_client()


@pytest.fixture
def login(client: FlaskClient) -> Login:
    """`login("alice")` is @alice:localhost, registered at the first call, on a new device each."""

    def as_person(name: str) -> Person:
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = client.post(V3 + "register", json=body)
        if answer.status_code == 400:
            who = {"type": "m.id.user", "user": name}
            body = {"type": "m.login.password", "identifier": who, "password": PASSWORD}
            answer = client.post(V3 + "login", json=body)
        assert answer.status_code == 200, answer.get_json()
        session = answer.get_json()
        return Person(client, session["user_id"], session["access_token"], session["device_id"])

    return as_person


@pytest.fixture
def room() -> Callable[..., str]:
    """`room(alice, bob)`: a public room that Alice made and Bob has joined."""

    def make(creator: Person, *members: Person, **options: Any) -> str:
        room_id = creator.create_room(**{"preset": "public_chat", **options})
        for member in members:
            answer = member.post(f"rooms/{quote(room_id)}/join")
            assert answer.status_code == 200, answer.get_json()
        return room_id

    return make


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the database is asked from here on; one entry also for an INSERT of many rows."""
    asked: list[str] = []
    execute = Sql.execute

    def note(sql: Sql, statement: Any, values: Any = None) -> Result:
        if "shown_presence" not in (text := str(statement)):  # written by a timer
            asked.append(text)
        return execute(sql, statement, values)

    monkeypatch.setattr(Sql, "execute", note)
    return asked


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Leave the log as it was before the test."""
    root, ours = logging.getLogger(), logging.getLogger("homebody")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    root.setLevel(before[1])
