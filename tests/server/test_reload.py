"""What a running server takes over from its settings on SIGHUP."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from homebody.config.settings import Config
from homebody.server import reload
from homebody.web import Application
from tests.conftest import MakeApp
from tests.helpers import server as real_server
from tests.helpers.live import Person
from tests.helpers.logs import configure
from tests.helpers.server import RunningServer
from tests.helpers.waiting import wait_for

FIRST = """
log_level = "INFO"
max_upload_bytes = "50 MiB"
registration = "open"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "homebody.toml"
    path.write_text(FIRST)
    return path


@pytest.fixture
def running(tmp_path: Path, file: Path) -> Iterator[RunningServer]:
    """A server with a file of settings, of which none is in its environment."""
    (tmp_path / "data").mkdir()
    server = real_server.start(tmp_path / "data", config=str(file), log_level="INFO")
    yield server
    server.stop()


def test_a_running_server_follows_its_file_on_sighup(running: RunningServer, file: Path) -> None:
    alice = Person(running, "alice")
    file.write_text('max_upload_bytes = "7 MiB"\ncache_bytes = "32 MiB"\nregistration = "closed"\n')

    running.process.send_signal(signal.SIGHUP)
    changed = "reloaded the settings; changed: allow_guests, max_upload_bytes, registration"
    wait_for(lambda: changed in running.output(), running.output)

    assert alice.ask("GET", "/_matrix/client/v1/media/config") == {"m.upload.size": 7 * 2**20}
    assert "changed: allow_guests, max_upload_bytes, registration\n" in running.output()
    assert "has to be restarted for changes of cache_bytes\n" in running.output()
    body = {"username": "bob", "password": "wonderland-7", "auth": {"type": "m.login.dummy"}}
    assert alice.raw("POST", "/register", body)[0] == 403
    alice.close()

    file.write_text("max_upload_bytes = 1 apple\n")
    running.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the settings stay as they were: " in running.output(), running.output)

    assert f"stay as they were: {file}:1: is not TOML" in running.output()
    assert running.process.poll() is None


@pytest.fixture
def app(make_app: MakeApp) -> Application:
    return make_app(rate_limits="true")


def again(app: Application, **settings: str) -> Config:
    """Reload with other settings, and return those in effect."""
    config = app.homeserver.server.config
    environ = {"HOMEBODY_DATA_DIR": str(config.data_dir), "HOMEBODY_RATE_LIMITS": "true"}
    environ |= {f"HOMEBODY_{key.upper()}": it for key, it in settings.items()}
    reload.reload(app.homeserver, environ)
    return app.homeserver.server.config


def test_an_error_changes_nothing(app: Application) -> None:
    before = app.homeserver.server.config

    after = again(app, max_upload_bytes="7 MiB", registration="perhaps")

    assert after is before


def test_what_needs_a_restart_stays(app: Application) -> None:
    before = app.homeserver.server.config

    after = again(app, server_name="other.example.org", bind="127.0.0.1:9", turn_uris="turn:x")

    assert (after.server_name, after.bind) == (before.server_name, before.bind)
    assert after.turn_uris == ("turn:x",)


def test_a_changed_rate_limit_is_in_effect_at_once(app: Application) -> None:
    limits = app.homeserver.rate_limits

    again(app, rc_search__burst_count="1")

    limits.check("rc_search", "@alice:localhost")
    with pytest.raises(Exception, match="Too many requests"):
        limits.check("rc_search", "@alice:localhost")


def test_a_limit_that_stays_goes_on_counting(app: Application) -> None:
    limits = app.homeserver.rate_limits
    again(app, rc_search__burst_count="1", rc_search__per_second="0.001")
    limits.check("rc_search", "@alice:localhost")

    again(
        app, rc_search__burst_count="1", rc_search__per_second="0.001", rc_typing__burst_count="2"
    )

    with pytest.raises(Exception, match="Too many requests"):
        limits.check("rc_search", "@alice:localhost")


def test_limits_can_be_switched_off_and_on(app: Application) -> None:
    limits = app.homeserver.rate_limits
    tight = {"rc_search__burst_count": "1", "rc_search__per_second": "0.001"}

    again(app, rate_limits="false", **tight)
    for _ in range(3):
        limits.check("rc_search", "@alice:localhost")
    again(app, **tight)

    limits.check("rc_search", "@alice:localhost")
    with pytest.raises(Exception, match="Too many requests"):
        limits.check("rc_search", "@alice:localhost")


def test_servers_can_be_excluded(make_app: MakeApp) -> None:
    app = make_app(server_name="hs.example.org")
    server = app.homeserver.server

    reload.reload(
        app.homeserver,
        {
            "HOMEBODY_DATA_DIR": str(server.config.data_dir),
            "HOMEBODY_SERVER_NAME": "hs.example.org",
            "HOMEBODY_FEDERATION_DENY_SERVERS": "evil.example.org",
        },
    )

    assert not server.config.is_server_allowed("evil.example.org")
    with pytest.raises(Exception, match="exclude evil"):
        app.homeserver.federation.request("evil.example.org", "GET", "/x", timeout_s=1)


@pytest.mark.usefixtures("restored_logging")
def test_the_log_changes_its_level_and_format_and_shows_no_secret(
    app: Application, capsys: pytest.CaptureFixture[str]
) -> None:
    configure()

    again(app, log_format="json", turn_shared_secret="s3cret", bind="127.0.0.1:9")
    again(app, log_format="json", turn_shared_secret="s3cret", log_level="ERROR")
    again(app, log_format="json", turn_shared_secret="0ther")

    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("{") for line in lines)
    assert not re.search("s3cret|0ther", "".join(lines))
    changed = [json.loads(line)["message"].rpartition("changed: ")[2] for line in lines]
    assert changed[-1] == "log_level, turn_shared_secret"


def test_settings_that_are_reloaded_exist() -> None:
    assert {it.name for it in fields(Config)} >= reload.RELOADED
