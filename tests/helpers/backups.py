"""Helpers for tests of `homebody backup` and `homebody restore`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner, Result

from homebody.cli import main
from homebody.core.media import files
from tests.helpers import server as real_server
from tests.helpers.live import Person
from tests.helpers.server import RunningServer

HOMEBODY = str(Path(sys.executable).parent / "homebody")
PNG = b"\x89PNG, as far as anybody asks"


def environ_of(data_dir: Path) -> dict[str, str]:
    return {"HOMEBODY_DATA_DIR": str(data_dir), "HOMEBODY_PASSWORD_HASHING": "cheap"}


def homebody(data_dir: Path, *words: str) -> Result:
    """Run a command on this data folder in the test's own process."""
    others = {key: None for key in os.environ if key.startswith("HOMEBODY_")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "nice", lambda _by: 0)  # it would slow down all later tests
        return CliRunner().invoke(main, words, env={**others, **environ_of(data_dir)})


def homebody_apart(data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command on this data folder in a process of its own."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("HOMEBODY_")}
    environ |= environ_of(data_dir)
    return subprocess.run(
        [HOMEBODY, *words], env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def done(data_dir: Path, *words: str) -> Any:
    """Run a command that must succeed, and return its JSON output."""
    finished = homebody(data_dir, *words, "--json")
    assert finished.exit_code == 0, finished.output
    return json.loads(finished.stdout)


def upload(person: Person, content: bytes) -> str:
    return str(person.ask("POST", "/_matrix/media/v3/upload", content)["content_uri"])


def download(person: Person, uri: str) -> bytes:
    path = f"/_matrix/client/v1/media/download/{uri.removeprefix('mxc://')}"
    return person.raw("GET", path)[1]


def messages(person: Person, room_id: str) -> list[str]:
    """Return the texts of a room's messages, oldest first."""
    answer = person.ask("GET", f"/rooms/{quote(room_id)}/messages?dir=f&limit=1000")
    chunk = answer["chunk"]
    return [event["content"]["body"] for event in chunk if event["type"] == "m.room.message"]


def store(data_dir: Path, content: bytes) -> None:
    """Store a file in the folder of uploads."""
    target = files.content_path(data_dir, hashlib.sha256(content).hexdigest())
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def store_upload(data_dir: Path, content: bytes, name: str = "1") -> Path:
    """Store a file as an upload does, with its row in the database, and return its path."""
    store(data_dir, content)
    sha256 = hashlib.sha256(content).hexdigest()
    row = ("localhost", name, 0, len(content), sha256)
    with closing(sqlite3.connect(data_dir / "homebody.db")) as connection, connection:
        connection.execute(
            "INSERT INTO media (origin, media_id, created_ts, size_bytes, sha256)"
            " VALUES (?, ?, ?, ?, ?)",
            row,
        )
    return files.content_path(data_dir, sha256)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return {path: content, or None for folders} of a folder without its lock file."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {
        name: path.read_bytes() if path.is_file() else None
        for name, path in found.items()
        if name != "homebody.lock"
    }


def lost_and_restored(running: RunningServer, data_dir: Path, backup: Path) -> RunningServer:
    """Kill the server, delete its data, restore the backup and start the server again."""
    running.kill()
    shutil.rmtree(data_dir)
    done(data_dir, "restore", str(backup))
    return real_server.start(data_dir)
