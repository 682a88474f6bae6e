"""What lies on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import random
from pathlib import Path

import pytest

from homebody import errors
from homebody.core.media import files
from tests.conftest import MakeApp


def test_a_start_sweeps_what_a_crash_left(make_app: MakeApp, tmp_path: Path) -> None:
    incoming = tmp_path / "media/incoming"
    incoming.mkdir(parents=True)
    (incoming / "left").write_bytes(b"half a fi")
    (tmp_path / "media/files").mkdir()
    (tmp_path / "media/files/kept").write_bytes(b"whole")

    make_app()

    assert list(incoming.iterdir()) == []
    assert (tmp_path / "media/files/kept").exists()


def test_a_sweep_leaves_what_is_being_written(tmp_path: Path) -> None:
    incoming = tmp_path / "media/incoming"
    incoming.mkdir(parents=True)
    (incoming / "left").write_bytes(b"half a fi")
    with (incoming / "busy").open("wb") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)

        swept = files.sweep(tmp_path)

    assert swept == 1
    assert [path.name for path in incoming.iterdir()] == ["busy"]


def test_an_upload_is_locked_while_it_comes(tmp_path: Path) -> None:
    def read_after_a_sweep(buffer: memoryview) -> int:
        assert files.sweep(tmp_path) == 0
        return body.readinto(buffer[:3])

    body = io.BytesIO(b"hello")

    content = files.receive(tmp_path, read_after_a_sweep, 100)

    assert files.content_path(tmp_path, content.sha256).read_bytes() == b"hello"
    assert content.size_bytes == 5


def test_a_file_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        opened = Path(f"/proc/self/fd/{descriptor}").readlink()
        done.append(f"fsync of {opened.relative_to(tmp_path).parts[1:2]}")
        fsync(descriptor)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)

    files.receive(tmp_path, io.BytesIO(b"x").readinto, 100)

    assert done[:2] == ["fsync of ('incoming',)", "rename"]
    assert len(done[2:]) == 3  # its folder, and those that got a new folder


@pytest.mark.parametrize("size", [0, 1, files.PIECE_BYTES, 3 * files.PIECE_BYTES + 7])
def test_a_body_is_kept_as_it_came(tmp_path: Path, size: int) -> None:
    body = random.Random(size).randbytes(size)  # noqa: S311 - any bytes will do

    content = files.receive(tmp_path, io.BytesIO(body).readinto, 2**24)

    assert files.content_path(tmp_path, content.sha256).read_bytes() == body
    assert content == files.Content(hashlib.sha256(body).hexdigest(), size)


def test_a_failing_body_leaves_nothing(tmp_path: Path) -> None:
    def read(_buffer: memoryview) -> int:
        raise errors.unknown("The body ended early")

    with pytest.raises(errors.MatrixError):
        files.receive(tmp_path, read, 100)

    assert [path for path in (tmp_path / "media").rglob("*") if path.is_file()] == []


def test_a_file_that_has_lost_its_end_is_sent_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")

    assert b"".join(files.pieces(path, 1, 100)) == b"hort"
