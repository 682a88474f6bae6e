"""The lines that the log has of requests."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from homebody.web import middleware
from tests.conftest import PASSWORD, V3, MakeApp
from tests.helpers.logs import configure
from tests.helpers.server import ROOT

pytestmark = pytest.mark.usefixtures("restored_logging")

NO_DATABASE = " (database: read 0.000, turn 0.000, write 0.000, commit 0.000)"


@pytest.mark.parametrize(
    ("raw", "masked"),
    [
        ("/_matrix/client/v3/sync?access_token=syt_x&since=s1", "access_token=***&since=s1"),
        ("/sync?since=s1&access_token=syt_x", "/sync?since=s1&access_token=***"),
        ("/sync?access%5Ftoken=syt_x", "/sync?access%5Ftoken=***"),
        (
            "/sync?a=1&a=2&access_token=syt_x&access_token=syt_x",
            "access_token=***&access_token=***",
        ),
        ("/login?loginToken=syt_x", "/login?loginToken=***"),
        ("/validity?token=syt_x", "/validity?token=***"),
        ("/oauth/device?user_code=syt_x", "/oauth/device?user_code=***"),
        ("/login?next=/oauth/authorize%3Fstate%3Dsyt_x", "/login?next=***"),
        ("/sync?access_token=syt_x?b=syt_x", "/sync?access_token=***"),
        ("/_homebody/invite/syt_x", "/_homebody/invite/***"),
        ("/_homebody/reset/syt_x/?a=1", "/_homebody/reset/***?a=1"),
        ("//_homebody//invite/syt_x", "/_homebody/invite/***"),
        ("/_homebody%2finvite%2Fsyt_x", "/_homebody/invite/***"),
        ("/_homebody/%69nvite/syt_x", "/_homebody/%69nvite/***"),
        ("/_synapse/admin/v1/registration_tokens/syt_x", "/v1/registration_tokens/***"),
    ],
)
def test_tokens_are_masked(raw: str, masked: str) -> None:
    assert middleware.masked_path(raw).endswith(masked)
    assert "syt_x" not in middleware.masked_path(raw)


def test_a_path_without_secrets_stays_as_it_is() -> None:
    for path in (
        "/",
        "/sync",
        "/sync?",
        "/sync?since=s1&timeout=0&x",
        "/a%2Fb?filter=%7B%7D",
        "/v1/invite/x",
    ):
        assert middleware.masked_path(path) == path


def test_long_paths_are_cut_after_masking() -> None:
    path = "/sync?access_token=" + "syt_x" * 1000 + "&filter=" + "x" * 5000

    masked = middleware.masked_path(path)

    assert masked.startswith("/sync?access_token=***&filter=xxx")
    assert len(masked) == middleware.MAX_PATH_CHARACTERS + 1


def test_a_request_is_one_line_with_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    middleware.log_request("::1", "PUT", "/send?access_token=syt_x", "@alice:localhost", 403, 1.5)

    written = capsys.readouterr().err
    assert written.endswith(
        f" - ::1 PUT /send?access_token=*** @alice:localhost 403 1.500 s{NO_DATABASE}\n"
    )


DATABASE = re.compile(r"\(database: read (\S+), turn (\S+), write (\S+), commit (\S+)\)$")


def database_seconds(line: str) -> list[float]:
    """What a line says of the database: seconds of reading, waiting, writing, committing."""
    found = DATABASE.search(line)
    assert found, line
    return [float(it) for it in found.groups()]


def test_a_line_has_the_time_in_the_database_and_each_only_its_own(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    database = app.homeserver.database

    def slow() -> dict[str, object]:
        with database.read() as tx:
            tx.sql.seconds += 0.3  # as a statement that takes long
            time.sleep(0.05)  # not in the database
        with database.write():
            time.sleep(0.1)
        return {}

    app.view_functions["versions.get_versions"] = slow
    database.writer.committed = lambda *_: time.sleep(0.1)  # as a slow disk
    configure()
    client = app.test_client()

    with database.write():
        other = threading.Thread(target=client.get, args=["/_matrix/client/versions"])
        other.start()
        time.sleep(0.2)
    other.join()
    client.get("/nowhere")

    slow_line, line = capsys.readouterr().err.splitlines()
    read, turn, write, commit = database_seconds(slow_line)
    assert 0.3 <= read < 0.35
    assert 0.1 < turn < 0.3
    assert 0.1 <= write < 0.2
    assert 0.1 <= commit < 0.3
    assert database_seconds(line) == [0.0] * 4


def test_health_checks_are_logged_only_when_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    middleware.log_request("::1", "GET", "/health", None, 200, 0.001)
    middleware.log_request("::1", "GET", "/health", None, 503, 0.001)

    assert [line.split(" - ")[-2:] for line in capsys.readouterr().err.splitlines()] == [
        ["::1 GET /health", f"503 0.001 s{NO_DATABASE}"]
    ]


@pytest.fixture
def log_of(make_app: MakeApp, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """What is logged of requests: `log_of(lambda client: client.get("/"), log_level="INFO")`."""

    def lines(requests: Callable[[FlaskClient], object], **settings: str) -> list[str]:
        client = make_app(**settings).test_client()
        client.post(f"{V3}register", json=ACCOUNT | {"auth": {"type": "m.login.dummy"}})
        configure(**settings)
        capsys.readouterr()
        requests(client)
        return capsys.readouterr().err.splitlines()

    return lines


ACCOUNT = {"username": "alice", "password": PASSWORD}
TIME = "2026-01-01 00:00:00,000"
BY_PROXY = {"X-Forwarded-For": "198.51.100.1, 192.0.2.7"}


def locked_out(lines: list[str]) -> list[str]:
    """The addresses that fail2ban finds in these lines by the first expression of its filter.

    Of a file, it takes off the time; lines of the journal come whole, behind host and program.
    """
    text = (ROOT / "packaging/fail2ban/filter.d/homebody.conf").read_text(encoding="utf-8")
    (failregex,) = re.findall(r"^failregex = (.+)$", text, re.MULTILINE)
    pattern = re.compile(failregex.replace("<HOST>", r"(\S+)"))
    in_file = [match[1] for line in lines if (match := pattern.match(line[len(TIME) :]))]
    in_journal = [
        match[1] for line in lines if (match := pattern.match(f"host homebody[1]: {line}"))
    ]
    assert in_file == in_journal
    return in_file


def log_in(client: FlaskClient, name: str = "alice", *, is_right: bool = False) -> TestResponse:
    password = PASSWORD if is_right else "wrong"
    who = {"type": "m.id.user", "user": name}
    body = {"type": "m.login.password", "identifier": who, "password": password}
    return client.post(f"{V3}login", json=body, headers=BY_PROXY)


def test_the_line_of_a_request_begins_with_the_clients_address(
    log_of: Callable[..., list[str]],
) -> None:
    (line,) = log_of(lambda client: client.get("/_matrix/client/versions", headers=BY_PROXY))

    assert " - 192.0.2.7 GET /_matrix/client/versions - 200 " in line


def test_what_is_refused_before_any_view_is_logged_as_well(
    log_of: Callable[..., list[str]],
) -> None:
    def ask(client: FlaskClient) -> None:
        client.get("/%FF", headers=BY_PROXY)
        client.get("/sync?" + "&" * 1001, headers=BY_PROXY)
        client.options("/sync", headers=BY_PROXY)

    bad_path, bad_query = log_of(ask)

    assert " - 192.0.2.7 GET /%FF - 400 " in bad_path
    assert " - 192.0.2.7 GET /sync?" in bad_query


def test_refused_logins_are_found_by_the_clients_address(
    log_of: Callable[..., list[str]],
) -> None:
    def guess(client: FlaskClient) -> None:
        log_in(client)
        log_in(client, "@nobody:localhost")
        token = {"type": "m.login.token", "token": "guessed"}
        client.post(f"{V3}login", json=token, headers=BY_PROXY)
        nonce = client.get("/_synapse/admin/v1/register").get_json()["nonce"]
        wrong = {"nonce": nonce, "username": "eve", "password": "secret", "mac": "00"}
        client.post("/_synapse/admin/v1/register", json=wrong, headers=BY_PROXY)
        assert log_in(client, is_right=True).status_code == 200

    lines = log_of(guess, log_level="WARNING", registration_shared_secret="s3cret")

    assert locked_out(lines) == ["192.0.2.7"] * 4
    assert [line.rpartition(" as ")[2] for line in lines] == [
        "@alice:localhost",
        "@nobody:localhost",
        "-",
        "eve",
    ]


def test_a_wrong_password_in_the_middle_of_a_session_is_a_refused_login(
    log_of: Callable[..., list[str]],
) -> None:
    def guess(client: FlaskClient) -> None:
        token = log_in(client, is_right=True).get_json()["access_token"]
        headers = BY_PROXY | {"Authorization": f"Bearer {token}"}
        for auth in ({}, {"auth": {"type": "m.login.password", "password": "wrong"}}):
            client.post(f"{V3}account/deactivate", json=auth, headers=headers)

    lines = log_of(guess, log_level="WARNING")

    assert locked_out(lines) == ["192.0.2.7"]


def test_guesses_that_are_slowed_down_are_refused_logins(
    log_of: Callable[..., list[str]],
) -> None:
    def guess(client: FlaskClient) -> None:
        for _ in range(12):
            log_in(client)

    lines = log_of(guess, log_level="WARNING", rate_limits="true")

    assert locked_out(lines) == ["192.0.2.7"] * 12


def test_a_name_can_not_let_another_address_be_locked_out(
    log_of: Callable[..., list[str]],
) -> None:
    name = "x - homebody.access - 1 - WARNING - ab - login refused to 203.0.113.9 as x"

    lines = log_of(lambda client: (log_in(client, name), log_in(client, f"x\n{name}")))

    assert locked_out(lines) == ["192.0.2.7"] * 2
    assert "203.0.113.9" not in "".join(lines)


def test_a_refused_login_has_its_parts_as_keys_in_json(log_of: Callable[..., list[str]]) -> None:
    (line,) = log_of(log_in, log_format="json", log_level="WARNING")

    parts = json.loads(line)
    assert (parts["event"], parts["address"]) == ("login_refused", "192.0.2.7")
    assert parts["user_id"] == "@alice:localhost"


@pytest.mark.parametrize("path", ["/_matrix/client/versions", f"{V3}sync", "/nowhere", "/%FF"])
def test_every_answer_has_the_id_of_its_line_in_the_log(
    log_of: Callable[..., list[str]], path: str
) -> None:
    answers: list[TestResponse] = []

    lines = log_of(lambda client: answers.extend(client.get(path) for _ in range(2)))

    ids = [answer.headers["X-Request-Id"] for answer in answers]
    assert [f" - {it} - " in line for it, line in zip(ids, lines, strict=True)] == [True] * 2
    assert len(set(ids)) == 2
    assert "X-Request-Id" in answers[0].headers["Access-Control-Expose-Headers"]


def test_a_fault_is_found_in_the_log_by_the_id_of_the_answer(
    make_app: MakeApp, capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app()
    app.view_functions["versions.get_versions"] = lambda: str(1 // 0)
    configure()

    answer = app.test_client().get("/_matrix/client/versions")

    assert answer.status_code == 500
    request_id = answer.headers["X-Request-Id"]
    assert f" - ERROR - {request_id} - fault in a request\nTraceback" in capsys.readouterr().err
