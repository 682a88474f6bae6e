"""The page that shows how the server is, and that of the doctor."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.doctor import last_findings
from homebody.doctor.findings import Finding
from homebody.storage import last_backup
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers.pages import send
from tests.web.test_pages import visible

STATUS = "/_homebody/admin/"
DOCTOR = "/_homebody/admin/doctor"
OUTPUT = (
    '{"findings": [{"id": "tls", "severity": "broken", "seen": "It expired yesterday",'
    ' "meaning": "Clients refuse to connect", "change": {"nginx": "ssl_certificate <here>;"}},'
    ' {"id": "database", "severity": "ok", "seen": "sound"}]}'
)


def test_the_first_page_says_how_the_server_is(browser: FlaskClient) -> None:
    answer = browser.get(STATUS)

    text = visible(answer)
    assert answer.status_code == 200
    for word in ("Memory", "Waiting requests", "Event loop never blocked", "Free", "Database"):
        assert word in text
    assert "Deliveries nothing is waiting" in text
    assert "Last backup none is known" in text


def test_the_path_may_lack_its_slash(browser: FlaskClient) -> None:
    assert browser.get(STATUS.rstrip("/")).status_code == 200


def test_a_backup_and_a_blocked_event_loop_are_shown(
    app: Application, browser: FlaskClient, tmp_path: Path
) -> None:
    last_backup.note(Path(app.homeserver.server.config.data_dir), tmp_path / "backups")
    app.homeserver.metrics.stalls.observe(0.3)

    text = visible(browser.get(STATUS))

    assert f"in {tmp_path / 'backups'}" in text
    assert "Make one" not in text
    assert "blocked once , for 0.3 seconds" in text


def test_what_the_doctor_finds_is_shown(
    browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = visible(browser.get(STATUS))
    asked: list[Any] = []

    def run(command: list[str], **_given: Any) -> subprocess.CompletedProcess[bytes]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1, OUTPUT.encode(), b"")

    monkeypatch.setattr(subprocess, "run", run)
    answer = send(browser, DOCTOR)
    shown = browser.get(DOCTOR)

    assert "has not checked the server yet" in before
    assert (answer.status_code, answer.headers["Location"]) == (303, DOCTOR)
    assert asked[0][3:5] == ["homebody", "doctor"]
    assert "Broken : tls" in visible(shown)
    assert "ssl_certificate &lt;here&gt;;" in shown.get_data(as_text=True)
    assert "1 broken, 0 warnings, 1 in order" in visible(browser.get(STATUS))


def test_findings_outlive_the_server_and_name_who_had_it_checked(
    app: Application, make_app: MakeApp, browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.CompletedProcess([], 1, OUTPUT.encode(), b"")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_given: done)
    send(browser, DOCTOR)

    latest = make_app().homeserver.checkups.latest()

    assert latest is not None
    assert (latest.by, latest.counts["broken"]) == ("@owner:localhost", 1)
    assert latest == app.homeserver.checkups.latest()
    assert "by @owner:localhost: 1 broken" in visible(browser.get(STATUS))
    path = app.homeserver.server.config.data_dir / last_findings.NAME
    assert path.stat().st_mode & 0o077 == 0


def test_findings_of_the_command_are_shown_with_its_user(
    app: Application, browser: FlaskClient
) -> None:
    found = [Finding("database", "ok", "sound")]
    last_findings.note(app.homeserver.server.config.data_dir, "command line (eve)", found)

    assert "by command line (eve): 0 broken, 0 warnings, 1 in order" in visible(browser.get(STATUS))
    assert "Checked by command line (eve)." in visible(browser.get(DOCTOR))


def test_a_damaged_note_of_findings_is_as_none(app: Application, browser: FlaskClient) -> None:
    path = app.homeserver.server.config.data_dir / last_findings.NAME
    path.write_text('{"ts": 1, "by"')

    assert "has not checked the server yet" in visible(browser.get(STATUS))


def test_findings_are_shown_where_no_note_can_be_written(
    app: Application, browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    (app.homeserver.server.config.data_dir / f"{last_findings.NAME}.new").mkdir()
    done = subprocess.CompletedProcess([], 1, OUTPUT.encode(), b"")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_given: done)

    send(browser, DOCTOR)

    assert "by @owner:localhost: 1 broken" in visible(browser.get(STATUS))


def test_only_one_check_runs_at_a_time(app: Application, browser: FlaskClient) -> None:
    checkups = app.homeserver.checkups

    with checkups.lock:
        answer = send(browser, DOCTOR)
        shown = visible(browser.get(DOCTOR))

    assert answer.status_code == 429
    assert "A check is running" in shown


def test_a_doctor_that_fails_is_reported(
    app: Application, browser: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_given: Any) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 2, b"", b"no")

    monkeypatch.setattr(subprocess, "run", run)
    answer = send(browser, DOCTOR)

    assert answer.status_code == 500
    assert "homebody doctor failed" in visible(answer)
    assert not app.homeserver.checkups.is_running
