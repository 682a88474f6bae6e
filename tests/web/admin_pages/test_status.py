"""The page that shows how the server is, and that of the doctor."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from homebody.storage import last_backup
from homebody.web import Application
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
    assert "blocked 1 times , for 0.3 seconds" in text


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

    assert "has not checked the server" in before
    assert (answer.status_code, answer.headers["Location"]) == (303, DOCTOR)
    assert asked[0][3:5] == ["homebody", "doctor"]
    assert "Broken : tls" in visible(shown)
    assert "ssl_certificate &lt;here&gt;;" in shown.get_data(as_text=True)
    assert "1 broken, 0 warnings, 1 in order" in visible(browser.get(STATUS))


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
