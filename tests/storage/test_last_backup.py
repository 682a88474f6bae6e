"""The note about the latest backup in the data folder."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from homebody.cli import main
from homebody.storage import last_backup


def test_a_backup_is_noted_with_its_time_and_place(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(stopped))
    monkeypatch.chdir(tmp_path)
    before = last_backup.read(stopped)

    done = CliRunner().invoke(main, ["backup", "copies"])

    found = last_backup.read(stopped)
    assert done.exit_code == 0, done.output
    assert before is None
    assert found is not None
    assert found.place == str(tmp_path / "copies")
    assert abs(found.ts - time.time() * 1000) < 60_000


def test_a_backup_that_fails_is_not_noted(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEBODY_DATA_DIR", str(stopped))

    done = CliRunner().invoke(main, ["backup", str(stopped)])

    assert done.exit_code == 1
    assert last_backup.read(stopped) is None


@pytest.mark.parametrize("content", [b"", b"{}", b'{"ts": "x", "place": "y"}', b"\xff"])
def test_a_damaged_note_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / last_backup.NAME).write_bytes(content)

    assert last_backup.read(tmp_path) is None


def test_a_note_that_cannot_be_written_does_not_spoil_the_backup(tmp_path: Path) -> None:
    last_backup.note(tmp_path / "no such folder", tmp_path)

    assert last_backup.read(tmp_path / "no such folder") is None
