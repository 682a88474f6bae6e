from __future__ import annotations

import json
import logging
import re
from typing import Any

import gevent
import pytest

from homebody.runtime import logs
from homebody.runtime.times import Times
from homebody.web import middleware
from tests.helpers.logs import configure

LOG = logging.getLogger("homebody.tests")

pytestmark = pytest.mark.usefixtures("restored_logging")


def json_lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_a_line_has_the_parts_that_synapse_owners_know(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    request_id = middleware.begin_request()

    LOG.info("the sweep removed %d files", 3)

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - homebody\.tests - \d+ - INFO"
        rf" - {request_id} - the sweep removed 3 files\n",
        capsys.readouterr().err,
    )


def test_json_lines_have_the_parts_as_keys(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    request_id = middleware.begin_request()

    used = Times(read=0.001, turn=0.002)
    middleware.log_request("192.0.2.7", "GET", "/_matrix/client/versions", None, 200, 0.0123, used)

    (line,) = json_lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("line") > 0
    assert line == {
        "logger": "homebody.access",
        "level": "INFO",
        "request": request_id,
        "message": (
            "192.0.2.7 GET /_matrix/client/versions - 200 0.012 s"
            " (database: read 0.001, turn 0.002, write 0.000, commit 0.000)"
        ),
        "address": "192.0.2.7",
        "method": "GET",
        "path": "/_matrix/client/versions",
        "user_id": None,
        "status": 200,
        "seconds": 0.0123,
        "read_seconds": 0.001,
        "turn_seconds": 0.002,
        "write_seconds": 0.0,
        "commit_seconds": 0.0,
    }


def test_each_greenlet_has_the_id_of_its_own_request() -> None:
    seen: dict[str, tuple[str, str]] = {}

    def answer(name: str) -> None:
        begun = middleware.begin_request()
        gevent.sleep(0)
        seen[name] = (begun, logs.REQUEST_ID.get())

    before = logs.REQUEST_ID.get()
    gevent.joinall([gevent.spawn(answer, name) for name in "abc"], raise_error=True)

    assert all(begun == later for begun, later in seen.values())
    assert len({begun for begun, _ in seen.values()}) == 3
    assert logs.REQUEST_ID.get() == before


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_token_gets_into_the_log_by_another_way(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure(log_format=log_format)

    LOG.warning("odd header %r", "Authorization: Bearer syt_x")
    LOG.warning("odd body %s", {"access_token": "syt_x", "a": 1})
    try:
        int("/sync?access_token=syt_x&b=1")
    except ValueError:
        LOG.exception("a request failed")

    written = capsys.readouterr().err
    assert "syt_x" not in written
    assert written.count("***") >= 3
    assert "ValueError: invalid literal" in written


def test_a_name_with_a_line_break_forges_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    LOG.info("the name is %s", "Al\n2026-01-01 - app - 1 - ERROR - \x1b[2J\u2028\x85")

    written = capsys.readouterr().err
    assert len(written.splitlines()) == 1
    assert r"Al\x0a2026" in written
    assert r"\x1b[2J\u2028\x85" in written


def test_only_our_own_loggers_become_talkative(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_level="DEBUG")

    LOG.debug("ours")
    logging.getLogger("urllib3.connectionpool").info("GET /?access_token=syt_x")
    logging.getLogger("sqlalchemy.engine").info("UPDATE users SET password_hash = ?")

    written = capsys.readouterr().err
    assert written.endswith("ours\n")
    assert len(written.splitlines()) == 1


def test_what_is_less_severe_than_the_setting_is_not_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(log_level="WARNING")

    LOG.info("small talk")
    middleware.log_request("::1", "GET", "/sync", None, 200, 0.1)

    assert capsys.readouterr().err == ""


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure()

    LOG.info("once")

    assert capsys.readouterr().err.count("once") == 1
