"""Commands beside a server that runs in the test."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from homebody.cli import main
from homebody.web import Application


@pytest.fixture
def command(app: Application, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`command("rooms", "list")`: what `homebody rooms list` has done."""
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(app.homeserver.database.server.config.data_dir))

    def run(*words: str, **options: Any) -> Result:
        result = CliRunner().invoke(main, words, **options)
        app.homeserver.database.notice_other_writers()
        return result

    return run


@pytest.fixture
def printed(command: Callable[..., Result]) -> Callable[..., Any]:
    """`printed("rooms", "list")`: the JSON that `homebody rooms list --json` prints."""

    def run(*words: str) -> Any:
        result = command(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run
