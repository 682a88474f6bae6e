"""What was read before a write and decides what it does is looked at again inside the write."""

from __future__ import annotations

import http.server
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.cli import main
from homebody.core.accounts import accounts
from homebody.core.sessions import deactivation, devices, registration, registration_tokens, uia
from homebody.errors import UiaRequiredError
from homebody.storage.database import Database
from homebody.web import Application
from tests.conftest import PASSWORD, V3, Login, MakeApp, Person
from tests.helpers.deliveries import delivering, waiting
from tests.helpers.rooms import refusal
from tests.helpers.waiting import wait_for

ALICE = "@alice:localhost"
SECONDS = 20.0
NEW, NEWEST = "a new password", "the newest password"
PROOF = {"type": "m.login.password", "user": "alice", "password": PASSWORD}


@pytest.fixture
def db(app: Application) -> Database:
    database: Database = app.homeserver.database
    return database


class Late:
    """A request in a thread of its own that has read what it needs, and waits for its write."""

    def __init__(self, db: Database, ask: Callable[[], Any]) -> None:
        self._db = db
        self._ask = ask
        self._result: list[Any] = []
        self._thread = threading.Thread(target=lambda: self._result.append(self._ask()))

    def wait_until_it_queues(self, behind: int = 0) -> None:
        """Start it, while the test holds the writer's turn; it may also need no write and end."""
        self._thread.start()
        queue = self._db.writer.turn._queue  # noqa: SLF001 - the race can't be timed
        end = time.monotonic() + SECONDS
        # the thread that commits queues as well
        while self._thread.is_alive() and len(queue) <= behind + 1:
            assert time.monotonic() < end
            self._thread.join(0.01)

    def result(self) -> Any:
        """What it has got."""
        self._thread.join(SECONDS)
        (result,) = self._result
        return result


def can_log_in(client: FlaskClient, password: str) -> bool:
    body = {"type": "m.login.password", "user": "alice", "password": password}
    return client.post(V3 + "login", json=body).status_code == 200


def hash_of(db: Database, password: str) -> str:
    return accounts.hash_password(db.server, password)


def test_an_old_password_changes_nothing_that_a_new_one_has_changed(
    db: Database, client: FlaskClient, login: Login
) -> None:
    thief, newest = login("alice"), hash_of(db, NEWEST)
    late = Late(
        db, lambda: thief.post("account/password", json={"new_password": NEW, "auth": PROOF})
    )

    with db.write() as tx:
        late.wait_until_it_queues()
        accounts.set_password_hash(tx, ALICE, newest)

    assert refusal(late.result()) == (403, "M_FORBIDDEN")
    assert can_log_in(client, NEWEST)
    assert not can_log_in(client, NEW)


def test_an_old_password_ends_no_session_after_a_new_one_was_set(
    db: Database, login: Login
) -> None:
    thief, phone = login("alice"), login("alice")
    newest = hash_of(db, NEWEST)
    late = Late(db, lambda: thief.delete(f"devices/{phone.device_id}", json={"auth": PROOF}))

    with db.write() as tx:
        late.wait_until_it_queues()
        accounts.set_password_hash(tx, ALICE, newest)

    assert refusal(late.result()) == (403, "M_FORBIDDEN")
    assert phone.get("account/whoami").status_code == 200


def test_a_session_of_proofs_serves_one_of_two_requests_at_once(
    app: Application, db: Database, client: FlaskClient
) -> None:
    session = client.post(V3 + "register", json={}).get_json()["session"]
    auth = {"type": "m.login.dummy", "session": session}

    def register(name: str) -> Callable[[], TestResponse]:
        body = {"username": name, "auth": auth}
        return lambda: app.test_client().post(V3 + "register", json=body)

    both = [Late(db, register(name)) for name in ("alice", "bob")]
    with db.write():
        for number, late in enumerate(both):
            late.wait_until_it_queues(behind=number)

    answers = [late.result() for late in both]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert refusal(answers[1]) == (401, "M_UNKNOWN")


def test_a_client_that_asks_does_not_undo_what_a_page_has_completed(db: Database) -> None:
    flows = [[registration.TOKEN, registration.DUMMY]]
    with db.write() as tx:
        registration_tokens.add(tx, "test", "family")

    def ask(**auth: Any) -> dict[str, Any]:
        try:
            uia.require(db, flows, uia.Attempt("POST /x", {"auth": auth}))
        except UiaRequiredError as challenge:
            return challenge.body
        return {}

    session = ask()["session"]
    word = {"token": "family"}
    page = Late(db, lambda: uia.complete(db, session, registration.TOKEN, word))
    wrong = Late(db, lambda: ask(session=session, type=registration.TOKEN, **word))
    client = Late(db, lambda: ask(session=session))

    with db.write():
        for number, late in enumerate((page, wrong, client)):
            late.wait_until_it_queues(behind=number)
    answers = [late.result() for late in (wrong, client)]

    assert answers[0]["completed"] == [registration.TOKEN]
    assert ask(session=session)["completed"] == [registration.TOKEN]


def test_a_guest_who_has_logged_out_meanwhile_becomes_no_user(
    app: Application, db: Database, client: FlaskClient
) -> None:
    guest = client.post(V3 + "register?kind=guest", json={}).get_json()
    body = {
        "username": guest["user_id"][1:].partition(":")[0],
        "password": PASSWORD,
        "auth": {"type": "m.login.dummy"},
        "guest_access_token": guest["access_token"],
    }
    late = Late(db, lambda: app.test_client().post(V3 + "register", json=body))

    with db.write() as tx:
        late.wait_until_it_queues()
        devices.remove_all(tx, guest["user_id"])

    assert refusal(late.result()) == (401, "M_UNKNOWN_TOKEN")
    with db.read() as reader:
        assert accounts.is_guest(reader, guest["user_id"])


def test_a_closed_account_gets_no_password_from_a_slow_typist(
    db: Database, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    login("alice")
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(db.server.config.data_dir))

    class Typist(io.BytesIO):
        """Types the new password after the account was closed."""

        def read1(self, size: int | None = -1) -> bytes:
            deactivation.deactivate(db, ALICE)
            return super().read1(size)

    done = CliRunner().invoke(
        main, ["user", "passwd", "alice", "--password-stdin"], Typist(f"{NEW}\n".encode())
    )

    db.notice_other_writers()
    assert done.exit_code == 1
    with db.read() as reader:
        account = accounts.find(reader, ALICE)
    assert account is not None
    assert account.password_hash is None


@contextmanager
def gateway(before_it_answers: Callable[[], None]) -> Iterator[str]:
    """The address of a push gateway that rejects all keys, and takes its time to answer."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            before_it_answers()
            keys = [device["pushkey"] for device in body["notification"]["devices"]]
            answer = json.dumps({"rejected": keys}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/_matrix/push/v1/notify"
        server.shutdown()
        thread.join(10)


def test_a_pusher_that_was_set_anew_is_not_the_one_that_a_gateway_rejected(
    make_app: MakeApp,
) -> None:
    app = make_app(outside_allowed="127.0.0.1")
    client = app.test_client()

    def person(name: str) -> Person:
        body = {"username": name, "auth": {"type": "m.login.dummy"}}
        session = client.post(V3 + "register", json=body).get_json()
        return Person(client, session["user_id"], session["access_token"], session["device_id"])

    alice, bob = person("alice"), person("bob")
    room_id = alice.create_room(preset="public_chat")
    bob.post(f"rooms/{room_id}/join")
    moved = "http://127.0.0.1:1/_matrix/push/v1/notify"

    def set_pusher(url: str) -> None:
        wanted = {"app_id": "a", "pushkey": "k", "kind": "http", "app_display_name": "A"}
        wanted |= {"device_display_name": "D", "lang": "en"}
        answer = bob.post("pushers/set", json={**wanted, "data": {"url": url}})
        assert answer.status_code == 200

    with gateway(lambda: set_pusher(moved)) as url, delivering(app):
        set_pusher(url)
        alice.send(room_id)
        wait_for(lambda: not waiting(app))

    (kept,) = bob.get("pushers").get_json()["pushers"]
    assert kept["data"]["url"] == moved
