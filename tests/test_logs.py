from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from app import config, logs

LOG = logging.getLogger("app.tests")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("app")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:], root.level = before[0], before[1]
    ours.setLevel(before[2])
    root.setLevel(before[1])


def configure(**options: str) -> None:
    logs.configure(config.load(None, {}, options))


def json_lines(captured: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in captured.readouterr().err.splitlines()]


def test_a_line_has_the_parts_that_synapse_owners_know(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    request_id = logs.begin_request()

    LOG.info("the sweep removed %d files", 3)

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - app\.tests - \d+ - INFO"
        rf" - {request_id} - the sweep removed 3 files\n",
        capsys.readouterr().err,
    )


def test_json_lines_have_the_parts_as_keys(capsys: pytest.CaptureFixture[str]) -> None:
    configure(log_format="json")
    request_id = logs.begin_request()

    logs.log_request("GET", "/_matrix/client/versions", None, 200, 0.0123)

    (line,) = json_lines(capsys)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("line") > 0
    assert line == {
        "logger": "app.access",
        "level": "INFO",
        "request": request_id,
        "message": "GET /_matrix/client/versions - 200 0.012 s",
        "method": "GET",
        "path": "/_matrix/client/versions",
        "user_id": None,
        "status": 200,
        "seconds": 0.0123,
    }


def test_each_greenlet_has_the_id_of_its_own_request() -> None:
    seen: dict[str, tuple[str, str]] = {}

    def answer(name: str) -> None:
        begun = logs.begin_request()
        gevent.sleep(0)
        seen[name] = (begun, logs.request_id())

    before = logs.request_id()
    gevent.joinall([gevent.spawn(answer, name) for name in "abc"], raise_error=True)

    assert all(begun == later for begun, later in seen.values())
    assert len({begun for begun, _ in seen.values()}) == 3
    assert logs.request_id() == before


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
        ("/sync?access_token=syt_x?b=syt_x", "/sync?access_token=***"),
    ],
)
def test_tokens_in_a_query_are_masked(raw: str, masked: str) -> None:
    assert logs.masked_path(raw).endswith(masked)
    assert "syt_x" not in logs.masked_path(raw)


def test_a_path_without_secrets_stays_as_it_is() -> None:
    for path in ("/", "/sync", "/sync?", "/sync?since=s1&timeout=0&x", "/a%2Fb?filter=%7B%7D"):
        assert logs.masked_path(path) == path


def test_long_paths_are_cut_after_masking() -> None:
    masked = logs.masked_path("/sync?access_token=" + "syt_x" * 1000 + "&filter=" + "x" * 5000)

    assert masked.startswith("/sync?access_token=***&filter=xxx")
    assert len(masked) == logs.MAX_PATH_CHARACTERS + 1


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


def test_a_request_is_one_line_with_its_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    logs.log_request("PUT", "/send?access_token=syt_x", "@alice:localhost", 403, 1.5)

    written = capsys.readouterr().err
    assert written.endswith(" - PUT /send?access_token=*** @alice:localhost 403 1.500 s\n")


def test_health_checks_are_logged_only_when_they_fail(capsys: pytest.CaptureFixture[str]) -> None:
    configure()

    logs.log_request("GET", "/health", None, 200, 0.001)
    logs.log_request("GET", "/health", None, 503, 0.001)

    assert [line.split(" - ")[-2:] for line in capsys.readouterr().err.splitlines()] == [
        ["GET /health", "503 0.001 s"]
    ]


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
    logs.log_request("GET", "/sync", None, 200, 0.1)

    assert capsys.readouterr().err == ""


def test_configuring_twice_writes_each_line_once(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    configure()

    LOG.info("once")

    assert capsys.readouterr().err.count("once") == 1
