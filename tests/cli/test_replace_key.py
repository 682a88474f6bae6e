"""`homebody federation replace-key`: another signing key, and the old one for its events."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click.testing
import pytest

from homebody.cli import main
from homebody.config import settings
from homebody.core import server_key
from homebody.spec import server_keys, signing
from homebody.storage import data_folder
from tests.conftest import MakeApp

EVENT = {"hello": "world"}


def run(folder: Path, *words: str) -> click.testing.Result:
    given: dict[str, str | None] = {it: None for it in os.environ if it.startswith("HOMEBODY_")}
    given["HOMEBODY_DATA_DIR"] = str(folder)
    return click.testing.CliRunner().invoke(main, ["federation", "replace-key", *words], env=given)


def config_of(folder: Path) -> settings.Config:
    return settings.load(None, {}, {"data_dir": str(folder)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with a key."""
    server_key.load_or_create(config_of(tmp_path))
    return tmp_path


def test_the_old_key_is_kept_and_the_new_one_used(folder: Path) -> None:
    before = server_key.load_or_create(config_of(folder))
    old_text = (folder / "signing.key").read_text()

    body = json.loads(run(folder, "--json").stdout)

    after = server_key.load_or_create(config_of(folder))
    assert after.key_id != before.key_id
    assert after.verify_key != before.verify_key
    assert Path(body["old_file"]).read_text() == old_text
    assert {it.stat().st_mode & 0o777 for it in folder.glob("signing.key*")} == {0o600}
    (listed,) = body["old_verify_keys"]
    assert listed["key_id"] == before.key_id
    assert listed["key"] == signing.verify_key_to_base64(before.verify_key)


def test_what_it_prints_is_a_setting_with_all_old_keys(folder: Path, make_app: MakeApp) -> None:
    first = server_key.load_or_create(config_of(folder))
    toml = folder / settings.FILE_NAME

    for _ in range(2):
        result = run(folder)
        assert result.exit_code == 0, result.stderr
        toml.write_text(result.stdout.splitlines()[-1] + "\n")

    app = make_app(federation="true", old_verify_keys=toml.read_text().partition(" = ")[2])
    body: dict[str, Any] = app.test_client().get("/_matrix/key/v2/server").get_json()
    found = {it.key_id: it for it in server_keys.parse(body, "localhost").keys}
    assert len(found) == 3
    assert found[first.key_id].expired_ts is not None
    signed = signing.sign_json(EVENT, "localhost", first)
    signing.verify_json(signed, "localhost", first.key_id, found[first.key_id].key)


def test_a_running_server_is_left_alone(folder: Path) -> None:
    before = (folder / "signing.key").read_text()

    with data_folder.locked(config_of(folder)):
        result = run(folder)

    assert result.exit_code == 2
    assert "running" in result.stderr
    assert (folder / "signing.key").read_text() == before


def test_a_folder_without_a_key_stays_without(tmp_path: Path) -> None:
    result = run(tmp_path)

    assert result.exit_code != 0
    assert "no signing key" in result.stderr
    assert not (tmp_path / "signing.key").exists()
